"""Puts one application together. Everything is made here and passed on; nothing lives in modules."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from litestar import Litestar
from litestar.exceptions import HTTPException

from models.repository import Repository, Version
from models.runtime import available_cores, default_providers
from serving.asgi import ASGIApp, Receive, Scope, Send
from serving.batcher import Batcher
from serving.cache_memory import ByteLRU, MemoryCache
from serving.cache_redis import RedisCache
from serving.catalogue import verdict_fd
from serving.live import LiveModel, LiveModels, load
from serving.metrics import CONTENT_TYPE, Metrics
from serving.middleware import Front
from serving.pages import model_routes, page_routes
from serving.problems import answer_error
from serving.routes import operating_routes, sampling_routes
from serving.sampler import Sampler
from serving.schedule import Schedule
from serving.service import Service
from serving.settings import Settings


class App:
    """One application: an ASGI callable and what the server needs to know of it.

    Args:
        service: its parts.
        routes: what answers.
        front: what stands before it.
    """

    def __init__(self, service: Service, routes: Litestar, front: Front) -> None:
        self.service = service
        self.routes = routes
        self._front = front

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        await self._front(scope, receive, send)

    def drain(self) -> None:
        """Say not ready from now on, and give up connections after their next answer; requests are still answered."""
        self.service.state.draining = True


def create_app(
    settings: Settings, repository: Repository, *, loader: Callable[[Version], LiveModel] | None = None
) -> App:
    """An application over a repository.

    Args:
        settings: what a person set.
        repository: the models; only read.
        loader: makes a LiveModel of a version; serving.live.load with these settings by default.
    """
    metrics = Metrics()
    providers = settings.providers or default_providers()
    loader = loader or partial(load, repository, providers=providers, allow_unjudged=settings.allow_unjudged)
    publisher = Publisher(metrics, providers)
    live = LiveModels(
        repository,
        loader=loader,
        observer=publisher,
        default=settings.default_model,
        max_loaded=settings.max_loaded_versions,
        allow_unjudged=settings.allow_unjudged,
        poll_seconds=settings.poll_seconds,
    )
    # One one-thread session serves all engines: 103 % [100, 115] (small) and 100 % [89, 112] (medium) of the speed of
    # a session for each, in half the memory.
    engines = settings.threads or available_cores()
    schedule = Schedule(max_queue_images=settings.max_queue_images, max_batch_images=settings.max_batch_size)
    batcher = Batcher(schedule, engines=engines, observer=publisher)
    metrics.watch_queue(lambda: schedule.waiting, settings.max_queue_images)
    local, shared = _caches(settings, metrics)
    service = Service(
        settings=settings,
        repository=repository,
        live=live,
        sampler=Sampler(batcher, local, shared),
        metrics=metrics,
        encoders=ThreadPoolExecutor(engines, thread_name_prefix="encoder"),
    )
    metrics.ready.set_function(lambda: service.ready)
    metrics.draining.set_function(lambda: service.state.draining)
    litestar = Litestar(
        route_handlers=[
            *sampling_routes(service),
            *operating_routes(service, metrics=settings.metrics_port is None),
            *model_routes(service),
            *page_routes(),
        ],
        exception_handlers={Exception: answer_error, HTTPException: answer_error},
        lifespan=[partial(_lifespan, service)],
        openapi_config=None,
        logging_config=None,
    )
    paths = [route.path_format for route in litestar.routes]
    front = Front(litestar, paths=paths, metrics=metrics, draining=lambda: service.state.draining)
    return App(service, litestar, front)


def metrics_app(metrics: Metrics) -> ASGIApp:
    """GET /metrics alone, for a port of its own."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        known = scope["path"] == "/metrics" and scope["method"] in ("GET", "HEAD")
        body = metrics.exposition() if known else b"only GET /metrics is here\n"
        headers = [(b"content-type", CONTENT_TYPE.encode()), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200 if known else 404, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})

    return answer


class Publisher:
    """Turns what the batcher and the live models report into metrics.

    Args:
        metrics: where numbers go.
        providers: as asked for, to see whether a model fell back to another.
    """

    def __init__(self, metrics: Metrics, providers: tuple[str, ...]) -> None:
        self._metrics = metrics
        self._providers = providers

    def went_live(self, model: LiveModel) -> None:
        """A model now answers for its name."""
        self._metrics.model_live(
            model.version.name,
            version=model.version.number,
            digest=model.manifest.digest,
            provider=model.provider,
            numerics=model.numerics,
            when=model.loaded,
            fd=verdict_fd(model.verdict),
        )

    def load_failed(self, name: str) -> None:
        """A version of a name could not be loaded."""
        self._metrics.load_failed(name)

    def changed(self, loaded: Sequence[LiveModel]) -> None:
        """What is loaded, or what is known of it, changed."""
        names = {model.version.name for model in loaded}
        self._metrics.unjudged(names, {model.version.name for model in loaded if model.verdict is None})
        self._metrics.provider_fell_back(any(model.provider != self._providers[0] for model in loaded))

    def batch_ran(self, network: LiveModel, images: int, seconds: float) -> None:
        """A batch ended well."""
        self._metrics.batch_ran(network.version.name, images, seconds)

    def waited(self, seconds: float) -> None:
        """A caller's first image started after this long in the queue."""
        self._metrics.waited(seconds)

    def rejected(self, images: int, reason: str) -> None:
        """Images were not taken, or left unrun."""
        self._metrics.rejected(images, reason)


def _caches(settings: Settings, metrics: Metrics) -> tuple[MemoryCache | None, RedisCache | None]:
    if settings.cache_bytes == 0:
        return None, None
    lru = ByteLRU(max_bytes=settings.cache_bytes, ttl_seconds=settings.cache_ttl_seconds)
    metrics.watch_cache(lambda: lru.bytes, lambda: len(lru))
    if settings.redis_url is None:
        return MemoryCache(lru, metrics), None
    metrics.expect_tier("redis")
    shared = RedisCache(
        settings.redis_url,
        timeout_seconds=settings.redis_timeout_seconds,
        ttl_seconds=settings.cache_ttl_seconds,
        observer=metrics,
    )
    return MemoryCache(lru, metrics), shared


@contextlib.asynccontextmanager
async def _lifespan(service: Service, _: Litestar) -> AsyncIterator[None]:
    """Follow the repository from start to end; loading goes on while probes are answered already."""
    follower = asyncio.get_running_loop().create_task(service.live.follow())
    try:
        yield
    finally:
        follower.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await follower
        service.encoders.shutdown(wait=False, cancel_futures=True)
        await service.sampler.close()
