"""Runs an application until it is told to stop, and stops it in good order. Knows no routes.

SIGTERM: ready says 503 at once, requests are still answered for GENSERVE_DRAIN_SECONDS, then no connection is taken
any more, what is in flight ends, and the process exits 0. A second signal ends the waiting; so does SIGINT (Ctrl-C).
"""

import argparse
import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import structlog
import uvicorn

from models.errors import Unavailable
from models.places import readable_repository
from models.probing import used_provider
from models.repository import Repository
from models.runtime import check_runtime
from serving.app import App, create_app, metrics_app
from serving.errors import SettingsError
from serving.logs import configure_logging
from serving.protocol import GuardedProtocol
from serving.settings import Settings, load_settings

BACKLOG = 2048
KEEP_ALIVE_SECONDS = 75  # longer than the 60 s that load balancers reuse a connection for

log = structlog.get_logger("genserve.server")


def serve(arguments: argparse.Namespace | None = None, environment: Mapping[str, str] = os.environ) -> int:
    """Serve until a signal comes; the exit status.

    Args:
        arguments: of serving.arguments.
        environment: see serving.settings.

    Raises:
        GenserveError: a wrong setting, no ONNX Runtime, a port that is taken.
    """
    settings = load_settings(arguments, environment)
    configure_logging(settings)
    runtime = check_runtime()
    _check_providers(settings)
    repository = Repository(settings.models) if settings.models else readable_repository({})
    if not repository.root.is_dir():
        log.warning("the model repository does not exist yet: nothing can be served", root=str(repository.root))
    elif not repository.names():
        log.warning("the repository is empty: nothing can be served before a promotion", root=str(repository.root))
    app = create_app(settings, repository)
    listening = [_listen(settings.host, settings.port, "GENSERVE_PORT")]
    if settings.metrics_port is not None:
        listening.append(_listen(settings.host, settings.metrics_port, "GENSERVE_METRICS_PORT"))
    for place, sock in zip(("serving", "metrics"), listening, strict=False):
        log.info(place, url=_url(sock), models=str(repository.root), runtime=runtime)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_run(app, settings, listening))
    return 0


async def _run(app: App, settings: Settings, listening: list[socket.socket]) -> None:
    server = _Server(_config(app, settings))
    stop = _Stop(server, app, settings.drain_seconds)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.signalled, number)
    servers = [server]
    if len(listening) > 1:
        servers.append(_Server(_config(metrics_app(app.service.scrape), settings, lifespan="off")))
    main = loop.create_task(server.serve(listening[:1]))
    others = [loop.create_task(s.serve([sock])) for s, sock in zip(servers[1:], listening[1:], strict=True)]
    await main
    for other in servers[1:]:
        other.should_exit = True
    await asyncio.gather(*others)
    log.info("stopped")


def _config(app: Any, settings: Settings, *, lifespan: Literal["on", "off"] = "on") -> uvicorn.Config:  # noqa: ANN401 any ASGI application
    return uvicorn.Config(
        app,
        http=GuardedProtocol,
        ws="none",
        loop="none",
        lifespan=lifespan,
        log_config=None,
        log_level="error",  # a warning for each malformed request would let anybody fill the log
        access_log=False,
        backlog=BACKLOG,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=round(settings.request_timeout_seconds) + 1,
    )


class _Server(uvicorn.Server):
    """uvicorn's server, which leaves signals to us."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Stop:
    """What signals do."""

    def __init__(self, server: uvicorn.Server, app: App, drain_seconds: float) -> None:
        self._server = server
        self._app = app
        self._drain_seconds = drain_seconds
        self._signals = 0

    def signalled(self, number: int) -> None:
        """First: drain, then stop. Second, or Ctrl-C: stop. Third: let go of what is in flight."""
        self._signals += 1
        self._app.drain()
        log.info("stopping", signal=signal.Signals(number).name, drain_seconds=self._drain_seconds)
        if self._signals == 1 and number == signal.SIGTERM:
            asyncio.get_running_loop().call_later(self._drain_seconds, self._stop)
        else:
            self._stop()
            self._server.force_exit = self._signals > 2

    def _stop(self) -> None:
        self._server.should_exit = True


def _check_providers(settings: Settings) -> None:
    """Try the providers that were asked for, before anything is loaded.

    Raises:
        SettingsError: none of them can be used here; what was not asked for is never taken instead.
    """
    if not settings.providers:
        return
    try:
        used = used_provider(settings.providers)
    except Unavailable as error:
        raise SettingsError(f"{error.detail}; add cpu to allow a fallback", field="GENSERVE_PROVIDERS") from error
    if used != settings.providers[0]:
        log.warning("the provider asked for first cannot be used", asked=list(settings.providers), used=used)


def _listen(host: str, port: int, setting: str) -> socket.socket:
    """A bound socket: a port that is taken is an error before anything is loaded."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        sock = socket.socket(family, kind, protocol)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except OSError as error:
        raise SettingsError(f"cannot listen on {host}:{port}: {error.strerror or error}", field=setting) from error
    sock.setblocking(False)
    return sock


def _url(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # no uvloop on this platform
        return None
    return uvloop.Loop
