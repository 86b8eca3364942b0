"""The engine's process as its HTTP workers see it: one socket for orders, models, metrics. Knows no HTTP.

Every job is a task over the same Sampler that one process would use, so cache, flights, queue and bounds are those of
the whole server. A worker that ends takes its jobs with it.
"""

import asyncio
import itertools
from collections.abc import Coroutine
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec
import structlog
import zmq

from models.errors import GenserveError
from serving import wire
from serving.backend import Backend
from serving.channel import Channel, Frames
from serving.errors import NotReady
from serving.handles import Handles
from serving.loading import LiveModel
from serving.loop_share import BUSY_LOOP
from serving.merging import Merged
from serving.schedule import Deadline

Request = wire.Draw | wire.DrawLatents | wire.Find | wire.Scrape

SCRAPE_SECONDS = 0.1  # a worker that has not reported by then is shown as it was a second ago at most

log = structlog.get_logger("genserve.hub")


@dataclass(eq=False)
class Peer:
    """A worker.

    Args:
        jobs: what it waits for, by its own numbers.
        seen: the last snapshot that it has taken over.
        held: handles of replaced models that its requests still hold.
        heard: when it last reported, or was announced, on the event loop's clock.
        up: whether it has reported.
        encoding: whether anybody waits for its encoders.
        loop_share: of a core, that its event loop took between its last two reports.
    """

    heard: float
    up: bool = False
    jobs: dict[int, asyncio.Task[Any]] = field(default_factory=dict)
    seen: int = 0
    held: tuple[int, ...] = ()
    encoding: bool = False
    loop_share: float = 0.0


class Hub:
    """Answers workers.

    Args:
        backend: does the work.
        socket: a bound ROUTER that refuses peers it does not know (ROUTER_MANDATORY).
    """

    def __init__(self, backend: Backend, socket: "zmq.Socket[bytes]") -> None:
        self._backend = backend
        self._channel = Channel(socket, self._received)
        self._loop = asyncio.get_running_loop()
        self._peers: dict[bytes, Peer] = {}
        self._handles = Handles()
        self._snapshot = wire.Snapshot(0, False, False, None, (), ())
        self._draining = False
        self._stop: wire.Stop | None = None
        self._merged = Merged(backend.metrics.registry)
        self._collects: dict[int, tuple[set[bytes], asyncio.Future[None]]] = {}  # who has still to report
        self._next_collect = itertools.count(1)
        backend.publisher.subscribe(self.publish)

    @property
    def up(self) -> int:
        """Workers that have reported."""
        return sum(peer.up for peer in self._peers.values())

    @property
    def ready(self) -> bool:
        """Whether new requests should be sent here."""
        return self._backend.live.ready and self.up > 0 and not self._draining

    @property
    def draining(self) -> bool:
        """Whether the server is about to stop."""
        return self._draining

    @property
    def busy(self) -> bool:
        """Whether somebody waits for what workers do, which needs no engine."""
        return any(peer.encoding or peer.loop_share >= BUSY_LOOP for peer in self._peers.values())

    def silent(self, worker: bytes, seconds: float) -> bool:
        """Whether a worker has not reported for so long."""
        peer = self._peers.get(worker)
        return peer is not None and self._loop.time() - peer.heard > seconds

    def expect(self, worker: bytes) -> None:
        """A worker of this name will connect; what others send is dropped."""
        self._peers[worker] = Peer(self._loop.time())

    def ended(self, worker: bytes) -> None:
        """A worker's process is gone: nobody waits for its jobs."""
        peer = self._peers.pop(worker, None)
        for task in peer.jobs.values() if peer else ():
            task.cancel()
        self._merged.ended(worker)
        for waiting, all_here in self._collects.values():
            self._collected(waiting, all_here, worker)

    def drain(self) -> None:
        """Let every worker say not ready."""
        self._draining = True
        self.publish()

    def stop(self, *, force: bool) -> None:
        """Let every worker end with its last answer, or at once; also those that come up only now."""
        self._stop = wire.Stop(force)
        self._tell_all(self._stop)

    def publish(self) -> None:
        """Tell workers what they must know, where it changed."""
        live, old = self._backend.live, self._snapshot
        loaded = live.loaded
        champions = [model for model in loaded if live.champion(model.version.name) is model]
        new = wire.Snapshot(
            number=old.number,
            ready=live.ready,
            draining=self._draining,
            default=live.default_reference,
            champions=tuple(map(self._facts, champions)),
            others=tuple(self._facts(model) for model in loaded if model not in champions),
            fault=live.fault,
        )
        if new != old:
            self._snapshot = msgspec.structs.replace(new, number=old.number + 1)
            self._handles.retire_others(loaded, self._snapshot.number)
            self._tell_all(self._snapshot)

    async def exposition(self) -> bytes:
        """The metrics of all processes, as they are now."""
        waiting = {worker for worker, peer in self._peers.items() if peer.up}
        if waiting:
            number = next(self._next_collect)
            reported = self._loop.create_future()
            self._collects[number] = (waiting, reported)
            self._tell_all(wire.Collect(number))
            try:
                await asyncio.wait([reported], timeout=SCRAPE_SECONDS)
            finally:
                del self._collects[number]
        return self._merged.exposition()

    def close(self) -> None:
        """Let go of the socket and of all jobs."""
        for worker in list(self._peers):
            self.ended(worker)
        self._channel.close()

    def _facts(self, model: LiveModel) -> wire.ModelFacts:
        return wire.facts_of(self._handles.handle(model), model)

    def _tell_all(self, message: wire.FromEngine) -> None:
        header = wire.encode(message)
        for worker, peer in self._peers.items():
            if peer.up:
                self._channel.send([worker, header])

    def _received(self, frames: list[memoryview]) -> None:
        """A message of a worker."""
        worker, header, *arrays = frames
        name = bytes(worker)
        peer = self._peers.get(name)
        if peer is None:  # its process ended meanwhile
            return
        message = wire.decode_from_worker(header)
        if isinstance(message, wire.Draw):
            self._start(name, peer, message, self._draw(message))
        elif isinstance(message, wire.DrawLatents):
            self._start(name, peer, message, self._draw_latents(message, arrays))
        elif isinstance(message, wire.Find):
            self._start(name, peer, message, self._find(message))
        elif isinstance(message, wire.Scrape):
            self._start(name, peer, message, self._scrape(message))
        elif isinstance(message, wire.Withdraw):
            task = peer.jobs.pop(message.id, None)
            if task is not None:
                task.cancel()
        elif isinstance(message, wire.Encoding):
            peer.encoding = message.busy
        else:
            self._reported(name, peer, message)

    def _reported(self, worker: bytes, peer: Peer, report: wire.Report) -> None:
        peer.seen, peer.held, peer.heard, peer.up = report.seen, report.held, self._loop.time(), True
        peer.loop_share, peer.encoding = report.loop_share, report.encoding
        self._merged.receive(worker, report.families)
        held = {handle for other in self._peers.values() for handle in other.held}
        self._handles.release(min(other.seen for other in self._peers.values()), held)
        behind = report.seen != self._snapshot.number
        self._channel.send([worker, wire.encode(self._snapshot if behind else wire.Alive())])
        if self._stop is not None:
            self._channel.send([worker, wire.encode(self._stop)])
        if report.id in self._collects:
            self._collected(*self._collects[report.id], worker)

    def _collected(self, waiting: set[bytes], all_here: "asyncio.Future[None]", worker: bytes) -> None:
        waiting.discard(worker)
        if not waiting and not all_here.done():
            all_here.set_result(None)

    def _start(self, worker: bytes, peer: Peer, message: Request, work: Coroutine[Any, Any, Frames]) -> None:
        """Do a worker's job, and send what comes of it."""
        task = self._loop.create_task(work)
        peer.jobs[message.id] = task
        task.add_done_callback(partial(self._done, worker, peer, message))

    def _done(self, worker: bytes, peer: Peer, message: Request, task: "asyncio.Task[Frames]") -> None:
        if peer.jobs.get(message.id) is task:
            del peer.jobs[message.id]
        if task.cancelled():  # the worker withdrew it, or is gone
            return
        error = task.exception()
        if error is not None and not isinstance(error, GenserveError):
            log.error("unhandled error", job=type(message).__name__, exc_info=error)
        frames = task.result() if error is None else [wire.encode(wire.failed_of(message.id, error))]
        if not self._channel.send([worker, *frames]):
            log.warning("a worker does not read its answers", worker=worker.decode())

    async def _draw(self, message: wire.Draw) -> Frames:
        order = wire.order_of(message, self._model(message.model))
        drawn = await self._backend.sampler.sample(order, Deadline(message.deadline))
        return wire.answer_of(message.id, drawn, order.seeds)

    async def _draw_latents(self, message: wire.DrawLatents, frames: list[memoryview]) -> Frames:
        order = wire.latents_of(frames, self._model(message.model))
        drawn = await self._backend.sampler.sample_latents(order, Deadline(message.deadline))
        return wire.answer_of(message.id, drawn, None)

    async def _find(self, message: wire.Find) -> Frames:
        model = await self._backend.live.get(message.reference)
        return [wire.encode(wire.Found(message.id, self._facts(model)))]

    async def _scrape(self, message: wire.Scrape) -> Frames:
        return [wire.encode(wire.Exposition(message.id)), await self.exposition()]

    def _model(self, handle: int) -> LiveModel:
        model = self._handles.model(handle)
        if model is None:  # only where a worker was silent for longer than a request may take
            raise NotReady("the version asked for was replaced meanwhile", field="model")
        return model
