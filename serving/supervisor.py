"""Keeps HTTP workers running around one engine's process, and stops them in good order. Knows no requests.

A worker that ends, or cannot be started, is started again, after a pause that grows while it does not stay up; one that
says nothing for SILENT_SECONDS hangs, and is killed.
"""

import asyncio
import contextlib
import itertools
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import structlog
import zmq

from models.repository import Repository
from serving.backend import Backend
from serving.channel import connect
from serving.errors import SettingsError
from serving.hub import Hub
from serving.listening import NOBODY
from serving.middleware import MAX_BODY_BYTES
from serving.settings import Settings
from serving.worker import Task

COMMAND = (sys.executable, "-P", "-c", "from serving.worker import main; main()")
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.1, 10.0
STEADY_SECONDS = 30.0  # a worker that lived so long is started again after the first pause
SILENT_SECONDS = 60.0
LOOK_SECONDS = 5.0
EXIT_SECONDS = 5.0  # beyond what requests may take
MAX_Z_BYTES = 65536 * 4  # of one latent, see models.manifest.Signature

Process = subprocess.Popen[bytes]

log = structlog.get_logger("genserve.supervisor")


class Supervisor:
    """Runs workers; made on the event loop that it is used on.

    Args:
        backend: what they ask.
        settings: of the server.
        repository: its models.
        listening: descriptor of the listening socket that all of them take connections from.
        folder: only this user's; holds the socket that they meet at.
    """

    def __init__(
        self, backend: Backend, settings: Settings, repository: Repository, *, listening: int, folder: Path
    ) -> None:
        self._settings = settings
        self._repository = repository
        self._listening = listening
        self._metrics = backend.metrics
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._address = f"ipc://{folder / 'engine'}"
        self._max_frame_bytes = max(
            2 * MAX_BODY_BYTES, settings.max_images * MAX_Z_BYTES
        )  # a number is 2 bytes of JSON
        end = connect(self._context, zmq.ROUTER, self._max_frame_bytes)
        end.setsockopt(zmq.ROUTER_MANDATORY, 1)
        try:
            end.bind(self._address)
        except zmq.ZMQError as error:  # a path above 107 characters
            raise SettingsError(f"no socket can be made in {folder}: {error}", field="TMPDIR") from error
        self.hub = Hub(backend, end)
        self._shares = os.open(folder / "shares", os.O_RDWR | os.O_CREAT, 0o600)
        os.pwrite(self._shares, NOBODY * settings.workers, 0)
        self._names = itertools.count(1)
        self._processes: dict[int, tuple[str, Process]] = {}  # by slot, with their names
        self._stopping = asyncio.Event()
        self._keepers: list[asyncio.Task[None]] = []
        self._metrics.watch_workers(lambda: self.hub.up)

    def start(self) -> None:
        """Keep every worker running."""
        loop = asyncio.get_running_loop()
        self._keepers = [loop.create_task(self._keep(slot)) for slot in range(self._settings.workers)]
        self._keepers.append(loop.create_task(self._watch()))
        for keeper in self._keepers:
            keeper.add_done_callback(_tell_fault)

    def stop(self, *, force: bool) -> None:
        """Let workers end with their last answers, or at once."""
        self._stopping.set()
        self.hub.stop(force=force)
        if force:
            self._kill()

    async def ended(self) -> None:
        """Wait until every worker has ended; one that takes longer than any request may is killed."""
        await self._stopping.wait()
        _, late = await asyncio.wait(self._keepers, timeout=self._settings.request_timeout_seconds + EXIT_SECONDS)
        if late:
            self._kill()
            await asyncio.wait(late)

    def close(self) -> None:
        """Let go of sockets; workers must have ended."""
        self.hub.close()
        self._context.destroy(linger=0)
        os.close(self._shares)

    async def _keep(self, slot: int) -> None:
        """One worker after another, until they shall stop; a slot is not given up, whatever fails."""
        pause = FIRST_PAUSE_SECONDS
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                outcome: int | Exception = await self._run(slot)
            except Exception as error:  # no descriptor, process or memory is left, say: that may pass
                outcome = error
            if self._stopping.is_set():
                break
            if time.monotonic() - began > STEADY_SECONDS:
                pause = FIRST_PAUSE_SECONDS
            self._tell(slot, outcome, pause)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def _tell(self, slot: int, outcome: int | Exception, pause: float) -> None:
        """That a worker ended unasked, or could not be run."""
        if isinstance(outcome, int):
            self._metrics.worker_restarted()
            log.error("a worker ended and is started again", worker=slot, status=outcome, pause_seconds=pause)
            return
        log.error(
            "a worker could not be run and is tried again",
            worker=slot,
            error=repr(outcome),
            pause_seconds=pause,
            exc_info=None if isinstance(outcome, OSError) else outcome,  # the machine's fault, not the code's
        )

    async def _run(self, slot: int) -> int:
        """One worker from start to end; its exit status."""
        name = f"worker-{next(self._names)}"
        self.hub.expect(name.encode())
        try:
            end, stdin = socket.socketpair()
            with end:
                with stdin:
                    process = self._start(stdin)
                self._processes[slot] = (name, process)
                log.info("worker started", worker=slot, pid=process.pid)
                try:
                    await _attend(end, self._task(slot, name))
                    return await asyncio.to_thread(process.wait)  # a moment
                except BaseException:
                    process.kill()  # else it would go on beside its successor
                    raise
                finally:
                    del self._processes[slot]
        finally:
            self.hub.ended(name.encode())
            os.pwrite(self._shares, NOBODY, slot * len(NOBODY))

    def _start(self, stdin: socket.socket) -> Process:
        """A fresh interpreter, not a fork: this process has threads.

        Not by the event loop: uvloop's keeps up to four descriptors of each start that fails for want of one.
        """
        return subprocess.Popen(  # noqa: S603 our own command
            COMMAND,
            stdin=stdin.fileno(),
            pass_fds=(self._listening, self._shares),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path)},
        )

    def _task(self, slot: int, name: str) -> Task:
        return Task(
            name=name,
            slot=slot,
            address=self._address,
            max_frame_bytes=self._max_frame_bytes,
            listening=self._listening,
            shares=self._shares,
            root=str(self._repository.root.resolve()),
            settings=self._settings,
        )

    async def _watch(self) -> None:
        """Kill workers that hang, unless it was this process that slept."""
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            before = loop.time()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), LOOK_SECONDS)
            if loop.time() - before > 2 * LOOK_SECONDS:
                continue
            for slot, (name, process) in self._processes.items():
                if self.hub.silent(name.encode(), SILENT_SECONDS):
                    log.error("a worker hangs and is killed", worker=slot, pid=process.pid)
                    process.kill()

    def _kill(self) -> None:
        for _, process in self._processes.values():
            process.kill()


async def _attend(end: socket.socket, task: Task) -> None:
    """Hand a worker its task over its standard input, and wait until that is closed, which only its end does."""
    end.setblocking(False)
    loop = asyncio.get_running_loop()
    with contextlib.suppress(ConnectionError):  # it ended before it had read everything
        await loop.sock_sendall(end, msgspec.json.encode(task) + b"\n")
        await loop.sock_recv(end, 1)


def _tell_fault(keeper: "asyncio.Task[None]") -> None:
    """Keepers end without a fault, when all shall stop; one that did not is missing from now on."""
    if not keeper.cancelled() and (fault := keeper.exception()) is not None:
        log.error("workers are no longer kept as they should be: restart the server", exc_info=fault)
