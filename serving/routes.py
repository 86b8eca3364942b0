"""The routes that draw, and those of probes and metrics. Each is a few lines over serving.service."""

import hashlib
import re
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any, cast
from urllib.parse import parse_qsl

from litestar import Request, Response, asgi, get
from litestar.exceptions import MethodNotAllowedException
from litestar.handlers import ASGIRouteHandler, HTTPRouteHandler
from litestar.params import FromPath
from litestar.types import Receive as LitestarReceive
from litestar.types import Scope as LitestarScope
from litestar.types import Send as LitestarSend

from models.errors import Invalid, NotFound
from models.latents import MAX_SEED
from serving.asgi import INCOMING, Incoming, Receive, Reply, Scope, Send
from serving.calls import Done, Leave, outcome, run
from serving.encoders import ENCODER_VERSIONS
from serving.errors import NotReady
from serving.loading import LiveModel
from serving.metrics import MEDIA_TYPE
from serving.orders import Order, order_image
from serving.problems import reply_to, response_of
from serving.requests import ImageQuery, decode_query
from serving.service import Service

IMMUTABLE = "public, max-age=31536000, immutable"
ALLOWED = "OPTIONS, POST"
IMAGE_FILE = re.compile(r"(?P<seed>0|[1-9][0-9]{0,9})\.(?P<format>png|webp)")
VERSION_NUMBER = re.compile(r"[1-9][0-9]{0,8}")


class HotRoute:
    """A path that POST asks: plain ASGI, at a fifth of the cost of Litestar's requests and responses, and without ASGI
    where the server can (serving.asgi.Route).

    Args:
        path: exact.
        work: answers, or raises.
        short: the same for what is often asked and soon done; None from it where this request is not.
        recall: the answer where it is at hand.
    """

    def __init__(
        self,
        path: str,
        work: Callable[[Incoming], Coroutine[Any, Any, Reply]],
        *,
        short: Callable[[Incoming, Done[Reply]], Leave | None] = lambda *_: None,
        recall: Callable[[Incoming], Reply | None] = lambda _: None,
    ) -> None:
        self.path = path
        self.at_once = recall
        self._work = work
        self._short = short

    def begin(self, request: Incoming, done: Done[Reply]) -> Leave:
        """See Route."""
        return self._short(request, done) or run(self._work(request), done)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See Route."""
        if scope["method"] == "POST":
            reply = await self._answer(scope[INCOMING])
        elif scope["method"] == "OPTIONS":
            reply = Reply(204, [(b"allow", ALLOWED.encode())], b"")
        else:
            reply = reply_to(MethodNotAllowedException(headers={"Allow": ALLOWED}), self.path)
        await reply.send(send)

    async def _answer(self, request: Incoming) -> Reply:
        reply = self.at_once(request)
        if reply is not None:
            return reply
        try:
            return await outcome(partial(self.begin, request))
        except Exception as error:
            return reply_to(error, self.path)


def hot_routes(service: Service) -> dict[str, HotRoute]:
    """POST /sample and POST /interpolate, by path."""
    routes = [
        HotRoute("/sample", service.sample, short=service.sample_one, recall=service.recall),
        HotRoute("/interpolate", service.interpolate),
    ]
    return {route.path: route for route in routes}


def sampling_routes(service: Service, hot: Mapping[str, HotRoute]) -> list[ASGIRouteHandler | HTTPRouteHandler]:
    """The hot routes and the image route."""

    @get("/models/{name:str}/versions/{version:str}/images/{file:str}")
    async def image(
        request: Request[Any, Any, Any], name: FromPath[str], version: FromPath[str], file: FromPath[str]
    ) -> Response[bytes]:
        incoming: Incoming = cast(Scope, request.scope)[INCOMING]
        query = request.scope["query_string"]
        return response_of(await _image(service, incoming, reference(name, version), file, query))

    return [*map(_handler, hot.values()), image]


def _handler(route: HotRoute) -> ASGIRouteHandler:
    @asgi(route.path, copy_scope=False)
    async def handle(scope: LitestarScope, receive: LitestarReceive, send: LitestarSend) -> None:
        await route(cast(Scope, scope), cast(Receive, receive), cast(Send, send))

    return handle


def operating_routes(service: Service, *, metrics: bool) -> list[HTTPRouteHandler]:
    """The probes, and /metrics where it has no port of its own."""

    @get("/health/live")
    async def live() -> dict[str, str]:
        return {"status": "live"}

    @get("/health/ready")
    async def ready() -> dict[str, str]:
        if service.ready:
            return {"status": "ready"}
        why = "the server is draining" if service.state.draining else service.live.fault or "no model is loaded yet"
        raise NotReady(why, retry_after_seconds=1.0)

    @get("/metrics")
    async def exposition() -> Response[bytes]:
        text = await service.scrape()
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


def query_of(query: bytes) -> dict[str, str]:
    """A query string's pairs.

    Raises:
        Invalid: a name is given twice.
    """
    pairs: dict[str, str] = {}
    for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if name in pairs:
            raise Invalid("given twice", field=name[:64])
        pairs[name] = value
    return pairs


async def _image(service: Service, request: Incoming, asked: str, file: str, query: bytes) -> Reply:
    """One image for <img> and CDNs: what never changes is never computed twice for those who have it."""
    match = IMAGE_FILE.fullmatch(file)
    if match is None:
        raise NotFound("an image is {seed}.png or {seed}.webp", field="seed")
    seed, form = int(match["seed"]), match["format"]
    if seed > MAX_SEED:
        raise Invalid(f"{seed} is outside 0 .. {MAX_SEED}", field="seed")
    deadline = service.deadline(request)
    model = await service.within(deadline, service.live.get(asked))
    if model.manifest.kind != "image":
        raise Invalid(f"{model.version} draws {model.manifest.kind}s, which have no {form}", field="format")
    order = order_image(seed, decode_query(query_of(query), ImageQuery), model, form)
    etag = _etag(model, order, form)
    headers = [(b"etag", etag.encode()), (b"cache-control", IMMUTABLE.encode())]
    if _has(request.header(b"if-none-match"), etag):
        return Reply(304, headers, b"")
    return await service.answer_image(order, form, deadline, etag, headers)


def _etag(model: LiveModel, order: Order, form: str) -> str:
    """A strong validator: equal ones mean equal bytes."""
    facts = (model.manifest.digest, model.numerics, str(model.version), order[1:4], form, ENCODER_VERSIONS)
    return f'"{hashlib.sha256(repr(facts).encode()).hexdigest()[:32]}"'


def _has(if_none_match: str, etag: str) -> bool:
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return etag in tags or tags == ["*"]
