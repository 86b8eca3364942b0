# syntax=docker/dockerfile:1
# The service's image:   docker build -t genserve:0.1.0 .
# with CUDA 13's:        docker build -t genserve:0.1.0-gpu --build-arg EXTRA=gpu .
# The Python is the one that the tests run on.
ARG PYTHON=3.11.14-slim-bookworm

FROM python:${PYTHON} AS build
ARG EXTRA=cpu
WORKDIR /source
RUN python -m venv /opt/genserve
COPY pyproject.toml README.md LICENSE ./
COPY genserve ./genserve
COPY models ./models
COPY serving ./serving
COPY trainer ./trainer
RUN --mount=type=cache,target=/var/cache/pip PIP_CACHE_DIR=/var/cache/pip \
    /opt/genserve/bin/pip install ".[${EXTRA}]" && /opt/genserve/bin/pip check

FROM python:${PYTHON}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="genserve" \
      org.opencontainers.image.description="Serves trained generators over HTTP" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --gid 10001 genserve \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin genserve
COPY --from=build /opt/genserve /opt/genserve
# NVIDIA's runtime hands over these parts of the driver; without a GPU the variable does nothing.
ENV PATH=/opt/genserve/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    GENSERVE_HOST=0.0.0.0 \
    GENSERVE_PORT=8000 \
    GENSERVE_LOG_FORMAT=json
WORKDIR /srv
# Numeric, so that Kubernetes can see that it is not root. Only /tmp is written to: the root may be read-only.
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=120s --start-interval=1s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['GENSERVE_PORT'] + '/health/ready', timeout=2)"]
ENTRYPOINT ["genserve"]
CMD ["serve"]
