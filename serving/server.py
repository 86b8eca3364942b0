"""Runs an application until it is told to stop, and stops it in good order, in one process or several. Knows no routes.

SIGTERM: ready says 503 at once, requests are still answered for GENSERVE_DRAIN_SECONDS, then no connection is taken
any more, what is in flight ends, and the process exits 0. A second signal ends the waiting; so does SIGINT (Ctrl-C).
"""

import argparse
import asyncio
import contextlib
import os
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path

import structlog

from models.errors import Unavailable
from models.places import readable_repository
from models.probing import used_provider
from models.repository import Repository
from models.runtime import check_runtime
from serving import interpreter
from serving.app import create_app, metrics_app
from serving.backend import create_backend
from serving.errors import SettingsError
from serving.listening import HttpServer, http_config, listen, loop_factory, url
from serving.logs import configure_logging
from serving.settings import Settings, load_settings
from serving.supervisor import Supervisor

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
    interpreter.prepare()
    runtime = check_runtime()
    _check_providers(settings)
    root = settings.models or readable_repository({}).root
    repository = Repository(root, trusted=settings.trusted_keys)
    if not repository.root.is_dir():
        log.warning("the model repository does not exist yet: nothing can be served", root=str(repository.root))
    elif not repository.names():
        log.warning("the repository is empty: nothing can be served before a promotion", root=str(repository.root))
    said = "--port" if getattr(arguments, "port", None) is not None else "GENSERVE_PORT"
    listening = [listen(settings.host, settings.port, said)]
    if settings.metrics_port is not None:
        listening.append(listen(settings.host, settings.metrics_port, "GENSERVE_METRICS_PORT"))
    for place, sock in zip(("serving", "metrics"), listening, strict=False):
        log.info(place, url=url(sock), models=str(repository.root), runtime=runtime, workers=settings.workers)
    run = _run if settings.workers == 1 else _run_workers
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(run(settings, repository, *listening))
    return 0


async def _run(
    settings: Settings, repository: Repository, serving: socket.socket, metrics: socket.socket | None = None
) -> None:
    """Everything in this process."""
    app = create_app(settings, repository)
    server = HttpServer(http_config(app, settings))

    def stop(force: bool) -> None:
        server.should_exit, server.force_exit = True, force

    _Stop(app.drain, stop, settings.drain_seconds).watch()
    async with _metrics_server(app.service.scrape, settings, metrics):
        await server.serve([serving])
    log.info("stopped")


async def _run_workers(
    settings: Settings, repository: Repository, serving: socket.socket, metrics: socket.socket | None = None
) -> None:
    """Models and engines in this process, HTTP in others around it."""
    backend = create_backend(settings, repository, busy=lambda: hub.busy)
    with tempfile.TemporaryDirectory(prefix="genserve-") as folder:  # only this user's
        supervisor = Supervisor(backend, settings, repository, listening=serving.fileno(), folder=Path(folder))
        hub = supervisor.hub
        backend.metrics.ready.set_function(lambda: hub.ready)
        backend.metrics.draining.set_function(lambda: hub.draining)

        def stop(force: bool) -> None:
            serving.close()  # else connections would wait here for nobody
            supervisor.stop(force=force)

        _Stop(hub.drain, stop, settings.drain_seconds).watch()
        try:
            async with backend.running(), _metrics_server(hub.exposition, settings, metrics):
                supervisor.start()
                await supervisor.ended()
        finally:
            supervisor.close()
    log.info("stopped")


@contextlib.asynccontextmanager
async def _metrics_server(
    scrape: Callable[[], Awaitable[bytes]], settings: Settings, sock: socket.socket | None
) -> AsyncIterator[None]:
    """/metrics on a socket of its own, where there is one."""
    if sock is None:
        yield
        return
    server = HttpServer(http_config(metrics_app(scrape), settings, lifespan="off"))
    running = asyncio.get_running_loop().create_task(server.serve([sock]))
    try:
        yield
    finally:
        server.should_exit = True
        await running


class _Stop:
    """What signals do.

    Args:
        drain: says not ready.
        stop: lets the server end with its last answer; with True, at once.
        drain_seconds: between the two.
    """

    def __init__(self, drain: Callable[[], None], stop: Callable[[bool], None], drain_seconds: float) -> None:
        self._drain = drain
        self._stop = stop
        self._drain_seconds = drain_seconds
        self._signals = 0

    def watch(self) -> None:
        """From now on."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.signalled, number)

    def signalled(self, number: int) -> None:
        """First: drain, then stop. Second, or Ctrl-C: stop. Third: let go of what is in flight."""
        self._signals += 1
        self._drain()
        log.info("stopping", signal=signal.Signals(number).name, drain_seconds=self._drain_seconds)
        if self._signals == 1 and number == signal.SIGTERM:
            asyncio.get_running_loop().call_later(self._drain_seconds, self._stop, False)
        else:
            self._stop(self._signals > 2)


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
