"""The engine's process as an HTTP worker sees it: the same sampler and models, one hop away. Knows no HTTP.

Samples come as raw frames and are never copied here; what only the engine's process knows is asked of it. A caller that
leaves withdraws its order.
"""

import asyncio
import contextlib
import itertools
import weakref
from collections.abc import AsyncIterator, Callable, Hashable
from typing import Any

import structlog
import zmq

from models.errors import LoadError
from models.generator import Samples
from models.latents import ClassIndices, Latents
from models.manifest import Signature
from serving import wire
from serving.cache import value_bytes
from serving.cache_memory import Kept, MemoryCache
from serving.calls import Done, Leave, run
from serving.channel import Channel, Frames
from serving.errors import NotReady, Overloaded
from serving.loading import LiveModel
from serving.loop_share import LoopShare
from serving.merging import own_families
from serving.metrics import Metrics
from serving.orders import LatentOrder, Order
from serving.references import champion_meant
from serving.sampler import Drawn
from serving.schedule import Deadline

REPORT_SECONDS = 1.0
SILENCE_SECONDS = 5.0  # after which the engine's process counts as away: it answers each report
MAX_OWED_BYTES = 256 * 1024 * 1024  # samples under way to one worker: a bound on what waits while it does not read

log = structlog.get_logger("genserve.remote")


class RemoteNetwork:
    """Stands for a generator that is loaded in the engine's process.

    Args:
        facts: what is known of it here.
    """

    def __init__(self, facts: wire.ModelFacts) -> None:
        self.handle = facts.handle
        self.signature: Signature = facts.manifest
        self.providers = facts.providers

    def generate(self, z: Latents, class_idx: ClassIndices | None = None) -> Samples:
        """Never here.

        Raises:
            LoadError: always.
        """
        raise LoadError("this network is in the engine's process: ask it for samples")


class Link:
    """A worker's connection to the engine's process.

    Args:
        socket: a connected DEALER.
        metrics: this worker's own, which it reports.
    """

    def __init__(self, socket: "zmq.Socket[bytes]", metrics: Metrics) -> None:
        self._channel = Channel(socket, self._received)
        self._loop = asyncio.get_running_loop()
        self._metrics = metrics
        self._drain: Callable[[], None] | None = None
        self._stop: Callable[[bool], None] | None = None
        self._asked: dict[int, asyncio.Future[tuple[Any, list[memoryview]]]] = {}
        self._next = itertools.count(1)
        self._heard = -SILENCE_SECONDS
        self._snapshot = wire.Snapshot(0, False, False, None, (), ())
        self._loop_share = LoopShare(weight=1.0)
        self._encoding = False
        self.models = RemoteModels(self)

    def obey(self, *, drain: Callable[[], None], stop: Callable[[bool], None]) -> None:
        """Whom to call when this worker shall say not ready, and when it shall end: at once, if with True."""
        self._drain, self._stop = drain, stop

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Report to the engine's process from start to end."""
        reporting = self._loop.create_task(self._report_for_ever())
        try:
            yield
        finally:
            reporting.cancel()
            self._report(0)
            self._channel.close()

    @property
    def reachable(self) -> bool:
        """Whether the engine's process was heard lately."""
        return self._loop.time() - self._heard < SILENCE_SECONDS

    async def ask(
        self, question: Callable[[int], wire.FromWorker], frames: Frames = ()
    ) -> tuple[Any, list[memoryview]]:
        """The answer to a question, and the frames behind it.

        Raises:
            GenserveError: whatever the engine's process raised.
            EngineError: something unexpected there.
        """
        number = next(self._next)
        future: asyncio.Future[tuple[Any, list[memoryview]]] = self._loop.create_future()
        self._asked[number] = future
        try:
            if not self._channel.send([wire.encode(question(number)), *frames]):
                raise NotReady("the engine's process takes no orders now")
            answer, arrays = await future
        except asyncio.CancelledError:
            self._channel.send([wire.encode(wire.Withdraw(number))])
            raise
        finally:
            del self._asked[number]
        if isinstance(answer, wire.Failed):
            raise wire.error_of(answer)
        return answer, arrays

    async def scrape(self) -> bytes:
        """The metrics of all processes."""
        _, [text] = await self.ask(wire.Scrape)
        return bytes(text)

    def _received(self, frames: list[memoryview]) -> None:
        self._heard = self._loop.time()
        message = wire.decode_from_engine(frames[0])
        if isinstance(message, wire.Made | wire.Found | wire.Failed | wire.Exposition):
            future = self._asked.get(message.id)
            if future is not None and not future.done():  # else its caller left
                future.set_result((message, frames[1:]))
        elif isinstance(message, wire.Snapshot):
            self._snapshot = message
            self.models.take_over(message)
            if message.draining and self._drain is not None:
                self._drain()
        elif isinstance(message, wire.Collect):
            self._report(message.id)
        elif isinstance(message, wire.Stop) and self._stop is not None:
            self._stop(message.force)

    def tell_encoding(self, busy: bool) -> None:
        """Say whether anybody waits for this worker's encoders, where that changed."""
        if busy != self._encoding:
            self._encoding = busy
            self._channel.send([wire.encode(wire.Encoding(busy))])

    def _report(self, number: int) -> None:
        families = own_families(self._metrics.registry)
        held, share = self.models.replaced(), self._loop_share.look()
        report = wire.Report(number, self._snapshot.number, held, share, self._encoding, families)
        self._channel.send([wire.encode(report)])

    async def _report_for_ever(self) -> None:
        while True:
            self._report(0)
            await asyncio.sleep(REPORT_SECONDS)


class RemoteModels:
    """The models that the engine's process has: serving.ports.Models.

    Args:
        link: to it.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._known: weakref.WeakValueDictionary[int, LiveModel] = weakref.WeakValueDictionary()  # in use here
        self._champions: dict[str, LiveModel] = {}
        self._others: list[LiveModel] = []
        self._default: str | None = None
        self._ready = False
        self.fault: str | None = None

    @property
    def ready(self) -> bool:
        """Whether something can answer, and the engine's process was heard lately."""
        return self._ready and self._link.reachable

    @property
    def loaded(self) -> list[LiveModel]:
        """Everything in memory there, champions first."""
        return [*self._champions.values(), *self._others]

    def champion(self, name: str) -> LiveModel | None:
        """The model that answers for a name now."""
        return self._champions.get(name)

    def at_hand(self, reference: str | None) -> LiveModel | None:
        """See LiveModels.at_hand."""
        meant = self._default if reference is None else reference
        return None if meant is None else champion_meant(self._champions, meant)

    async def get(self, reference: str | None) -> LiveModel:
        """See LiveModels.get: champions are known here, whatever else is asked for there."""
        champion = self.at_hand(reference)
        if champion is not None:
            return champion
        found, _ = await self._link.ask(lambda number: wire.Find(number, reference))
        return self._model(found.model)

    def take_over(self, snapshot: wire.Snapshot) -> None:
        """What is true from now on; requests under way keep what they have."""
        self._champions = {facts.name: self._model(facts) for facts in snapshot.champions}
        self._others = [self._model(facts) for facts in snapshot.others]
        self._default, self._ready, self.fault = snapshot.default, snapshot.ready, snapshot.fault

    def replaced(self) -> tuple[int, ...]:
        """Handles of models that only requests under way still hold."""
        current = {_network(model).handle for model in self.loaded}
        return tuple(handle for handle in list(self._known) if handle not in current)

    def _model(self, facts: wire.ModelFacts) -> LiveModel:
        model = self._known.get(facts.handle)
        if model is None:
            model = self._known[facts.handle] = wire.model_of(facts, RemoteNetwork(facts))
        return model


class RemoteSampler:
    """The sampler of the engine's process: serving.ports.Draws.

    Args:
        link: to it.
        local: keeps this worker's answers; None for no cache at all.
    """

    def __init__(self, link: Link, local: MemoryCache | None) -> None:
        self._link = link
        self._local = local
        self._owed = 0  # bytes

    async def sample(self, order: Order, deadline: Deadline) -> Drawn:
        """Samples for seeds; see Sampler.sample."""
        handle = _network(order.model).handle

        def question(number: int) -> wire.Draw:
            return wire.Draw(
                number,
                handle,
                order.seeds,
                order.class_idx,
                order.truncation,
                order.repeatable,
                deadline.at,
            )

        return await self._drawn(order, len(order.seeds), question)

    def begin(self, order: Order, deadline: Deadline, done: Done[Drawn]) -> Leave:
        """See Sampler.begin."""
        return run(self.sample(order, deadline), done)

    async def sample_latents(self, order: LatentOrder, deadline: Deadline) -> Drawn:
        """Samples for latents; see Sampler.sample_latents."""
        handle = _network(order.model).handle

        def question(number: int) -> wire.DrawLatents:
            return wire.DrawLatents(number, handle, deadline.at)

        return await self._drawn(order, len(order.z), question, wire.frames_of(order))

    def find_answer(self, key: Hashable) -> Kept | None:
        """A whole answer that was kept before; None where there is none."""
        return self._local.find_answer(key) if self._local else None

    def keep_answer(self, key: Hashable, kept: Kept) -> None:
        """Keep an encoded answer of `size` bytes in this worker."""
        if self._local:
            self._local.keep_answer(key, kept)

    async def _drawn(
        self, order: Order | LatentOrder, images: int, question: Callable[[int], wire.FromWorker], frames: Frames = ()
    ) -> Drawn:
        """What comes back.

        Raises:
            Overloaded: too many bytes are under way to this worker already.
        """
        size = images * value_bytes(order.model.form)
        if self._owed and self._owed + size > MAX_OWED_BYTES:
            raise Overloaded(f"the requests being answered wait for {MAX_OWED_BYTES} bytes of samples already")
        self._owed += size
        try:
            made, arrays = await self._link.ask(question, frames)
        finally:
            self._owed -= size
        return wire.drawn_of(made, arrays, order)


def _network(model: LiveModel) -> RemoteNetwork:
    """What stands for a model's network here."""
    network = model.generator
    assert isinstance(network, RemoteNetwork)  # noqa: S101 for the type checker: workers make no others
    return network
