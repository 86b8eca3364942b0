"""The routes that draw, and those of probes and metrics. Each is a few lines over serving.service."""

import hashlib
import re
from typing import Any

from litestar import Request, Response, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from models.errors import Invalid, NotFound
from models.latents import MAX_SEED
from serving.encoders import ENCODER_VERSIONS
from serving.errors import NotReady
from serving.live import LiveModel
from serving.metrics import MEDIA_TYPE
from serving.orders import Order, order_image
from serving.requests import ImageQuery, decode_query
from serving.service import AnyRequest, Service

IMMUTABLE = "public, max-age=31536000, immutable"
IMAGE_FILE = re.compile(r"(?P<seed>0|[1-9][0-9]{0,9})\.(?P<format>png|webp)")
VERSION_NUMBER = re.compile(r"[1-9][0-9]{0,8}")


def sampling_routes(service: Service) -> list[HTTPRouteHandler]:
    """POST /sample, POST /interpolate and the image route."""

    @post("/sample", status_code=200)
    async def sample(request: Request[Any, Any, Any]) -> Response[bytes]:
        return await service.sample(request)

    @post("/interpolate", status_code=200)
    async def interpolate(request: Request[Any, Any, Any]) -> Response[bytes]:
        return await service.interpolate(request)

    @get("/models/{name:str}/versions/{version:str}/images/{file:str}")
    async def image(
        request: Request[Any, Any, Any], name: FromPath[str], version: FromPath[str], file: FromPath[str]
    ) -> Response[bytes]:
        return await _image(service, request, reference(name, version), file)

    return [sample, interpolate, image]


def operating_routes(service: Service, *, metrics: bool) -> list[HTTPRouteHandler]:
    """The probes, and /metrics where it has no port of its own."""

    @get("/health/live")
    async def live() -> dict[str, str]:
        return {"status": "live"}

    @get("/health/ready")
    async def ready() -> dict[str, str]:
        if service.ready:
            return {"status": "ready"}
        draining = service.state.draining
        raise NotReady("the server is draining" if draining else "no model is loaded yet", retry_after_seconds=1.0)

    @get("/metrics")
    async def exposition() -> Response[bytes]:
        text = service.metrics.exposition()
        return Response(text, media_type=MEDIA_TYPE, headers={"cache-control": "no-store"})

    return [live, ready, *([exposition] if metrics else [])]


def reference(name: str, version: str) -> str:
    """name@version for a route's two parts.

    Raises:
        NotFound: the version is not a number.
    """
    if not VERSION_NUMBER.fullmatch(version):
        raise NotFound(f"{version[:40]!r} is not a version number", field="version")
    return f"{name}@{version}"


def query_of(request: AnyRequest) -> dict[str, str]:
    """The query's pairs.

    Raises:
        Invalid: a name is given twice.
    """
    pairs: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name in pairs:
            raise Invalid("given twice", field=str(name)[:64])
        pairs[str(name)] = str(value)
    return pairs


async def _image(service: Service, request: AnyRequest, asked: str, file: FromPath[str]) -> Response[bytes]:
    """One image for <img> and CDNs: what never changes is never computed twice for those who have it."""
    match = IMAGE_FILE.fullmatch(file)
    if match is None:
        raise NotFound("an image is {seed}.png or {seed}.webp", field="seed")
    seed, form = int(match["seed"]), match["format"]
    if seed > MAX_SEED:
        raise Invalid(f"{seed} is outside 0 .. {MAX_SEED}", field="seed")
    deadline = service.deadline(request)
    model = await service.live.get(asked)
    if model.manifest.kind != "image":
        raise Invalid(f"{model.version} draws {model.manifest.kind}s, which have no {form}", field="format")
    order = order_image(seed, decode_query(query_of(request), ImageQuery), model, form)
    etag = _etag(model, order, form)
    headers = {"etag": etag, "cache-control": IMMUTABLE}
    if _has(request.headers.get("if-none-match"), etag):
        return Response(b"", status_code=304, headers=headers)
    return await service.answer_order(order, form, deadline, headers)


def _etag(model: LiveModel, order: Order, form: str) -> str:
    """A strong validator: equal ones mean equal bytes."""
    facts = (model.manifest.digest, model.numerics, str(model.version), order[1:4], form, ENCODER_VERSIONS)
    return f'"{hashlib.sha256(repr(facts).encode()).hexdigest()[:32]}"'


def _has(if_none_match: str | None, etag: str) -> bool:
    if if_none_match is None:
        return False
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return etag in tags or tags == ["*"]
