"""One HTTP process of several: parses, orders, encodes; asks the engine's process for samples. Knows no engines.

    python -P -c "from serving.worker import main; main()"

Started by serving.supervisor alone. Its standard input is one line, the Task, and then stays open for as long as the
engine's process lives: its end is the end of this one. Signals are the engine's process's business, so those that a
terminal or a service manager sends to everybody are ignored here.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import sys
from pathlib import Path

import msgspec
import structlog
import zmq

from models.repository import Repository
from models.runtime import available_cores
from serving import interpreter
from serving.app import App, assemble
from serving.cache_memory import ByteLRU, MemoryCache
from serving.channel import connect
from serving.encoding import Encoders
from serving.listening import HttpServer, Shares, http_config, loop_factory
from serving.logs import configure_logging
from serving.metrics import Metrics
from serving.remote import Link, RemoteSampler
from serving.service import Service
from serving.settings import Settings

log = structlog.get_logger("genserve.worker")


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker is told at its start.

    Args:
        name: of this process, new for each.
        slot: which of the workers it is, from 0.
        address: of the engine's process.
        max_frame_bytes: of what passes between them.
        listening: file descriptor of the listening socket.
        shares: file descriptor of the connections' numbers.
        root: of the model repository.
        settings: of the server.
    """

    name: str
    slot: int
    address: str
    max_frame_bytes: int
    listening: int
    shares: int
    root: str
    settings: Settings


def main() -> None:
    """Serve until told to stop."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    task = msgspec.json.decode(sys.stdin.buffer.readline(), type=Task)
    configure_logging(task.settings)
    interpreter.prepare()
    structlog.contextvars.bind_contextvars(worker=task.slot)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_run(task))


async def _run(task: Task) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    end = connect(context, zmq.DEALER, task.max_frame_bytes)
    end.setsockopt(zmq.IDENTITY, task.name.encode())
    end.connect(task.address)
    metrics = Metrics()
    link = Link(end, metrics)
    app = _app(task, link, metrics)
    server = HttpServer(http_config(app, task.settings), Shares(task.shares, task.settings.workers, task.slot))

    link.obey(drain=app.drain, stop=lambda force: server.finish(force=force))
    asyncio.get_running_loop().add_reader(sys.stdin, _orphaned, Path(task.address.removeprefix("ipc://")).parent)
    try:
        await server.serve([socket.socket(fileno=task.listening)])
    finally:
        context.destroy(linger=0)


def _app(task: Task, link: Link, metrics: Metrics) -> App:
    """What one process would run, with models and samples one hop away."""
    settings = task.settings
    local = None
    if settings.cache_bytes:
        lru = ByteLRU(max_bytes=answers_bytes(settings), ttl_seconds=settings.cache_ttl_seconds)
        metrics.watch_cache(lambda: lru.bytes, lambda: len(lru))
        local = MemoryCache(lru, metrics)
    loop = asyncio.get_running_loop()

    def changed() -> None:  # on any thread
        with contextlib.suppress(RuntimeError):  # the loop was closed
            loop.call_soon_threadsafe(lambda: link.tell_encoding(encoders.busy))

    encoders = Encoders(max(1, available_cores() // settings.workers), changed=changed)
    service = Service(
        settings=settings,
        repository=Repository(task.root, trusted=settings.trusted_keys),
        live=link.models,
        sampler=RemoteSampler(link, local),
        metrics=metrics,
        scrape=link.scrape,
        encoders=encoders,
    )
    return assemble(service, link.running)


def answers_bytes(settings: Settings) -> int:
    """A worker's share of the cache: all workers keep answers in half of it, samples are kept once in the other."""
    return settings.cache_bytes // 2 // settings.workers


def _orphaned(folder: Path) -> None:
    """The engine's process is gone: nothing more can be answered, and nobody else removes its folder."""
    log.error("the engine's process is gone")
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)
