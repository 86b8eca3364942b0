"""Puts one application together. Everything is made here and passed on; nothing lives in modules."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial

from litestar import Litestar
from litestar.exceptions import HTTPException

from models.repository import Repository, Version
from models.runtime import available_cores
from serving.asgi import ASGIApp, Receive, Scope, Send
from serving.backend import create_backend
from serving.encoding import Encoders
from serving.known import Known
from serving.loading import LiveModel
from serving.metrics import CONTENT_TYPE
from serving.middleware import Front
from serving.pages import model_routes, page_routes
from serving.problems import answer_error
from serving.routes import hot_routes, operating_routes, sampling_routes
from serving.service import Service, nothing_ahead
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
        self.front = front

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        await self.front(scope, receive, send)

    def drain(self) -> None:
        """Say not ready from now on, and give up connections after their next answer; requests are still answered."""
        self.service.state.draining = True


def create_app(
    settings: Settings, repository: Repository, *, loader: Callable[[Version], LiveModel] | None = None
) -> App:
    """An application over a repository, with everything behind it in the same process.

    Args:
        settings: what a person set.
        repository: the models; only read.
        loader: makes a LiveModel of a version; serving.loading.load with these settings by default.
    """
    encoders = Encoders(settings.threads or available_cores())
    backend = create_backend(settings, repository, loader=loader, busy=lambda: encoders.busy)
    metrics = backend.metrics

    async def scrape() -> bytes:
        return metrics.exposition()

    service = Service(
        settings=settings,
        repository=repository,
        live=backend.live,
        sampler=backend.sampler,
        metrics=metrics,
        scrape=scrape,
        encoders=encoders,
        made_ahead=nothing_ahead if backend.stock is None else backend.stock.answer,
    )
    metrics.ready.set_function(lambda: service.ready)
    metrics.draining.set_function(lambda: service.state.draining)
    return assemble(service, backend.running)


def assemble(service: Service, running: Callable[[], AbstractAsyncContextManager[None]]) -> App:
    """The routes and what stands before them.

    Args:
        service: its parts.
        running: what goes on from the application's start to its end.
    """
    hot = hot_routes(service)
    litestar = Litestar(
        route_handlers=[
            *sampling_routes(service, hot),
            *operating_routes(service, metrics=service.settings.metrics_port is None),
            *model_routes(service),
            *page_routes(),
        ],
        exception_handlers={Exception: answer_error, HTTPException: answer_error},
        lifespan=[partial(_lifespan, service, running)],
        openapi_config=None,
        logging_config=None,
    )
    paths = [route.path_format for route in litestar.routes]
    front = Front(
        litestar,
        hot=hot,
        paths=paths,
        metrics=service.metrics,
        draining=lambda: service.state.draining,
        known=Known(),
    )
    return App(service, litestar, front)


def metrics_app(scrape: Callable[[], Awaitable[bytes]]) -> ASGIApp:
    """GET /metrics alone, for a port of its own."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        known = scope["path"] == "/metrics" and scope["method"] in ("GET", "HEAD")
        body = await scrape() if known else b"only GET /metrics is here\n"
        headers = [(b"content-type", CONTENT_TYPE.encode()), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200 if known else 404, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})

    return answer


@contextlib.asynccontextmanager
async def _lifespan(
    service: Service, running: Callable[[], AbstractAsyncContextManager[None]], _: Litestar
) -> AsyncIterator[None]:
    async with running():
        try:
            yield
        finally:
            service.close()
