"""HTTP on sockets: uvicorn's server as this project runs it, alone on a socket or sharing it evenly. Knows no routes.

Processes that share a socket take connections one at a time, and whoever has more of them than another waits a moment
first. Measured with 16 connections at once over two processes, largest share, median of 15: all that wait are taken by
whoever wakes first 1.00, SO_REUSEPORT 0.56 (at worst 0.75), this 0.50 (0.63). One socket also means that a process that
dies takes no connection with it that it had not accepted.
"""

import asyncio
import contextlib
import mmap
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any, Literal

import uvicorn

from serving.errors import SettingsError
from serving.fast_path import FastProtocol
from serving.settings import Settings

BACKLOG = 2048
KEEP_ALIVE_SECONDS = 75  # longer than the 60 s that load balancers reuse a connection for
YIELD_SECONDS = 0.002  # for others to take a connection first
LAST_WORD_SECONDS = 0.25  # for a connection that was taken just before the end to ask
NOBODY = struct.pack("i", 2**31 - 1)  # the number of connections of a process that takes none


class Shares:
    """How many connections each process has: a few numbers in memory that all of them see.

    Args:
        fd: of a file with a number of the size of NOBODY for each process.
        processes: how many there are.
        own: which one this is.
    """

    def __init__(self, fd: int, processes: int, own: int) -> None:
        self._counts = memoryview(mmap.mmap(fd, len(NOBODY) * processes)).cast("i")
        self._own = own

    def set(self, connections: int) -> None:
        """Say how many this process has."""
        self._counts[self._own] = connections

    @property
    def ahead(self) -> bool:
        """Whether this process has more than another."""
        return self._counts[self._own] > min(self._counts)


class Acceptor:
    """Takes connections from a listening socket that other processes take from too; looks like an asyncio.Server.

    Args:
        sock: listening.
        protocol: makes one for each connection.
        shares: of all processes.
        connections: how many this process has now.
    """

    def __init__(
        self,
        sock: socket.socket,
        protocol: Callable[[], asyncio.Protocol],
        shares: Shares,
        connections: Callable[[], int],
    ) -> None:
        self._sock = sock
        self._protocol = protocol
        self._shares = shares
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._connecting: set[asyncio.Task[Any]] = set()
        self._pause: asyncio.TimerHandle | None = None
        self._loop.add_reader(sock, self._ready)

    def close(self) -> None:
        """Take no more."""
        if self._pause is not None:
            self._pause.cancel()
        elif self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock)
        self._sock.close()

    async def wait_closed(self) -> None:
        """Nothing to wait for."""

    def _ready(self) -> None:
        self._count()
        if self._shares.ahead:
            self._loop.remove_reader(self._sock)
            self._pause = self._loop.call_later(YIELD_SECONDS, self._resume)
        else:
            self._accept()

    def _resume(self) -> None:
        self._pause = None
        self._loop.add_reader(self._sock, self._ready)
        self._accept()

    def _accept(self) -> None:
        try:
            connection, _ = self._sock.accept()
        except OSError:  # another process was faster, the client left, or there are no descriptors left
            return
        connection.setblocking(False)
        task = self._loop.create_task(self._loop.connect_accepted_socket(self._protocol, connection))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)
        self._count()

    def _count(self) -> None:
        self._shares.set(self._connections() + len(self._connecting))


class HttpServer(uvicorn.Server):
    """uvicorn's server, which leaves signals to us.

    Args:
        config: see http_config.
        shares: where its socket is shared with other processes.
    """

    def __init__(self, config: uvicorn.Config, shares: Shares | None = None) -> None:
        super().__init__(config)
        self._shares = shares

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """None."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen."""
        if self._shares is None:
            await super().startup(sockets)
            return
        await super().startup([])
        for sock in sockets or []:
            acceptor = Acceptor(sock, self._protocol, self._shares, lambda: len(self.server_state.connections))
            self.servers.append(acceptor)  # type: ignore[arg-type]  # it has what uvicorn calls: close, wait_closed

    def finish(self, *, force: bool) -> None:
        """Take no more connections, and end with the last answer; at once where `force`.

        Other processes may take connections for a little longer, so one that was taken here and has not asked yet must
        still be answered here.
        """
        for server in self.servers if self.started else ():
            server.close()
        self.force_exit = force
        asyncio.get_running_loop().call_later(0 if force else LAST_WORD_SECONDS, self._exit)

    def _exit(self) -> None:
        self.should_exit = True

    def _protocol(self) -> asyncio.Protocol:
        return FastProtocol(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)


def http_config(app: Any, settings: Settings, *, lifespan: Literal["on", "off"] = "on") -> uvicorn.Config:  # noqa: ANN401 any ASGI application
    """How uvicorn runs an application."""
    return uvicorn.Config(
        app,
        http=FastProtocol,
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


def listen(host: str, port: int, setting: str) -> socket.socket:
    """A listening socket: a port that is taken is an error before anything is loaded; who comes until then waits.

    Raises:
        SettingsError: so it is; it names `setting`.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        sock = socket.socket(family, kind, protocol)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError as error:
        raise SettingsError(f"cannot listen on {host}:{port}: {error.strerror or error}", field=setting) from error
    sock.setblocking(False)
    return sock


def url(sock: socket.socket) -> str:
    """Where a socket is reached."""
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    """uvloop's event loop where there is one."""
    try:
        import uvloop
    except ImportError:  # no uvloop on this platform
        return None
    return uvloop.Loop
