"""From an order to samples: cache, single flight, batcher. Knows nothing of HTTP or encoders."""

import asyncio
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import partial
from typing import Literal, NamedTuple

import numpy as np

from models.generator import Samples
from models.latents import Drawn as LatentDraw
from models.latents import draw
from serving.batcher import Batcher
from serving.cache import SampleKey, value_bytes
from serving.cache_memory import Kept, MemoryCache
from serving.cache_redis import RedisCache
from serving.calls import Done, Leave, nothing, outcome, run
from serving.flights import Flights
from serving.jobs import Generated
from serving.loading import LiveModel
from serving.offload import INLINE_BYTES, offload
from serving.orders import LatentOrder, Order
from serving.schedule import Deadline

INLINE_SEEDS = 32

CacheState = Literal["hit", "partial", "miss", "bypass", "stock"]


class Drawn(NamedTuple):
    """Samples with what is reported about them.

    Args:
        samples: [N, ...].
        seeds: one for each; None for given latents.
        class_idx: one for each; None for an unconditional model.
        cache: where they came from.
        queue_seconds: longest wait of those that were computed.
        inference_seconds: longest time from the first batch to the last.
        png: the one sample encoded as it answers, where it was made ahead.
    """

    samples: Samples
    seeds: tuple[int, ...] | None
    class_idx: tuple[int, ...] | None
    cache: CacheState
    queue_seconds: float
    inference_seconds: float
    png: bytes | None = None


class Fetched(NamedTuple):
    """One sample that the local tier did not have.

    Args:
        sample: [...].
        shared: whether the shared tier had it.
        queue_seconds: see Drawn.
        inference_seconds: see Drawn.
    """

    sample: Samples
    shared: bool
    queue_seconds: float
    inference_seconds: float


class Latents:
    """What keys of one request draw, on whichever thread asks first.

    NumPy lets go of Python's lock in every draw, and an engine's thread waits long to get it back from a busy event
    loop. So the few of a small request are drawn by the event loop, once the queue has taken them; many, as they run.

    Args:
        model: whose.
        keys: one for each sample, all of one truncation.
    """

    __slots__ = ("_drawn", "_keys", "_model")

    def __init__(self, model: LiveModel, keys: Sequence[SampleKey]) -> None:
        self._model = model
        self._keys = keys
        self._drawn: LatentDraw | None = None

    def draw(self) -> None:
        """Draw them all now."""
        self._drawn = self._draw(self._keys)

    def __call__(self, start: int, stop: int) -> LatentDraw:
        """Those of samples [start, stop)."""
        if self._drawn is None:
            return self._draw(self._keys[start:stop])
        z, class_idx = self._drawn
        return LatentDraw(z[start:stop], None if class_idx is None else class_idx[start:stop])

    def _draw(self, keys: Sequence[SampleKey]) -> LatentDraw:
        if len(keys) == 1:
            (key,) = keys
            classes = None if key.class_idx is None else [key.class_idx]
            return draw(self._model.manifest, (key.seed,), class_idx=classes, truncation=key.truncation)
        classes = [key.class_idx for key in keys if key.class_idx is not None]
        seeds = [key.seed for key in keys]
        return draw(self._model.manifest, seeds, class_idx=classes or None, truncation=keys[0].truncation)


class Sampler:
    """Answers orders.

    Args:
        batcher: runs what has to be computed.
        local: the tier in this process; None for no cache at all.
        shared: the tier across processes; None for none.
        stock: gives what was made ahead, where an order leaves everything open; None for no stock.
    """

    def __init__(
        self,
        batcher: Batcher,
        local: MemoryCache | None,
        shared: RedisCache | None,
        stock: Callable[[Order], Drawn | None] | None = None,
    ) -> None:
        self._batcher = batcher
        self._local = local
        self._shared = shared
        self._stock = stock
        self._flights: Flights[SampleKey, Fetched] = Flights()
        self._era = 0  # what began before the last `forget` is not kept

    async def sample(self, order: Order, deadline: Deadline) -> Drawn:
        """Samples for seeds, from the cache where it has them; where nobody chose the seed, perhaps of another one.

        Raises:
            QueueFull, QueueTooLong, DeadlineExceeded: see Batcher.submit.
        """
        if len(order.seeds) == 1:
            return await outcome(partial(self.begin, order, deadline))
        classes = await self._classes(order) if order.model.manifest.classes else None
        keys = _keys(order, classes)
        distinct = dict.fromkeys(keys)
        form = order.model.form
        samples = self._local.find(distinct, form) if self._local else {}
        missing = [key for key in distinct if key not in samples]
        fetched: Mapping[SampleKey, Fetched] = {}
        if missing:
            start = partial(self._start, order.model, order.repeatable)
            fetched = await self._flights.get(missing, deadline, start)
        samples.update((key, one.sample) for key, one in fetched.items())
        joined = await offload(len(keys) * value_bytes(form), np.stack, [samples[key] for key in keys])
        return Drawn(
            joined,
            order.seeds,
            classes,
            self._state(len(distinct), fetched.values()),
            max([one.queue_seconds for one in fetched.values()], default=0.0),
            max([one.inference_seconds for one in fetched.values()], default=0.0),
        )

    def begin(self, order: Order, deadline: Deadline, done: Done[Drawn]) -> Leave:
        """`sample` for one seed, by calling back, perhaps at once.

        Raises:
            QueueFull, QueueTooLong, DeadlineExceeded: see Batcher.submit.
        """
        if self._stock is not None and (made := self._stock(order)) is not None:
            done(made)
            return nothing
        model, seeds, classes = order.model, order.seeds, order.class_idx
        if classes is None and model.manifest.classes:
            classes = _class_of(model, seeds)
        key = SampleKey(
            model.manifest.digest, model.numerics, seeds[0], classes[0] if classes else None, order.truncation
        )
        if self._local is not None and (known := self._local.find((key,), model.form)):
            done(Drawn(known[key][np.newaxis], seeds, classes, "hit", 0.0, 0.0))  # a view: not copied
            return nothing

        def landed(ended: Mapping[SampleKey, Fetched] | BaseException) -> None:
            if isinstance(ended, BaseException):
                done(ended)
                return
            one = ended[key]
            state = self._state(1, (one,))
            done(Drawn(one.sample[np.newaxis], seeds, classes, state, one.queue_seconds, one.inference_seconds))

        return self._flights.join(key, deadline, partial(self._start, model, order.repeatable), landed)

    async def sample_latents(self, order: LatentOrder, deadline: Deadline) -> Drawn:
        """Samples for latents; they have no address, so no cache knows them."""
        made = await self._batcher.generate(order.model, order.draw, len(order.z), deadline=deadline)
        classes = None if order.class_idx is None else tuple(order.class_idx.tolist())
        return Drawn(made.samples, None, classes, "bypass", made.queue_seconds, made.inference_seconds)

    def find_answer(self, key: Hashable) -> Kept | None:
        """A whole answer that was kept before; None where there is none."""
        return self._local.find_answer(key) if self._local else None

    def keep_answer(self, key: Hashable, kept: Kept) -> None:
        """Keep a whole answer in the local tier."""
        if self._local:
            self._local.keep_answer(key, kept)

    def forget(self, model: LiveModel) -> None:
        """A model was loaded anew since what it made was wrong: no cache gives that out again."""
        self._era += 1
        if self._local is not None:
            self._local.clear()
        if self._shared is not None:
            self._shared.forget_later(model.manifest.digest, model.numerics)

    async def close(self) -> None:
        """Let go of caches and threads."""
        self._batcher.close()
        for cache in (self._local, self._shared):
            if cache is not None:
                await cache.close()

    def _start(
        self,
        model: LiveModel,
        repeatable: bool,
        keys: list[SampleKey],
        deadline: Deadline,
        admitted: bool,
        done: Done[Mapping[SampleKey, Fetched]],
    ) -> Leave:
        """The work of one flight; see serving.flights.Start.

        What nobody chose the seeds of (not `repeatable`) nobody will ask for again: it must not push out what is.
        """
        kept = repeatable and (self._local is not None or self._shared is not None)
        if kept and (self._shared is not None or len(keys) * value_bytes(model.form) > INLINE_BYTES):
            return run(self._fetch(model, keys, deadline, admitted), done)
        latents = Latents(model, keys)
        made = partial(self._made, keys, self._era if kept else -1, done)
        job = self._batcher.submit(model, latents, len(keys), deadline=deadline, done=made, admitted=admitted)
        if len(keys) <= INLINE_SEEDS:
            latents.draw()
        return partial(self._batcher.leave, job)

    def _made(
        self,
        keys: list[SampleKey],
        era: int,
        done: Done[Mapping[SampleKey, Fetched]],
        ended: Generated | BaseException,
    ) -> None:
        """What one job made, by key; the local tier keeps it where it is worth it, which no past era is."""
        if isinstance(ended, BaseException):
            done(ended)
            return
        if era == self._era and self._local is not None:
            self._local.put(dict(zip(keys, ended.samples, strict=True)))
        done(_by_key(keys, ended))

    async def _fetch(
        self, model: LiveModel, keys: list[SampleKey], deadline: Deadline, admitted: bool
    ) -> dict[SampleKey, Fetched]:
        """From the shared tier, then from the network for the rest; the local tier keeps both."""
        era = self._era
        found = await self._shared.get_many(keys, model.form) if self._shared else {}
        fetched = {key: Fetched(sample, True, 0.0, 0.0) for key, sample in found.items()}
        missing = [key for key in keys if key not in found]
        if missing:
            generated = await self._batcher.generate(
                model, Latents(model, missing), len(missing), deadline=deadline, admitted=admitted
            )
            made = _by_key(missing, generated)
            fetched.update(made)
            if self._shared and era == self._era:
                self._shared.put_later({key: one.sample for key, one in made.items()}, model.form)
        if self._local and era == self._era:
            await self._local.put_many({key: one.sample for key, one in fetched.items()}, model.form)
        return fetched

    async def _classes(self, order: Order) -> tuple[int, ...] | None:
        """Each sample's class of a conditional model: as asked, else as its seed draws it."""
        if order.class_idx is not None:
            return order.class_idx
        if len(order.seeds) <= INLINE_SEEDS:
            return _class_of(order.model, order.seeds)
        return await asyncio.to_thread(_class_of, order.model, order.seeds)

    def _state(self, asked: int, fetched: Iterable[Fetched]) -> CacheState:
        if self._local is None:
            return "bypass"
        computed = sum(not one.shared for one in fetched)
        return "hit" if not computed else "miss" if computed == asked else "partial"


def _by_key(keys: Sequence[SampleKey], made: Generated) -> dict[SampleKey, Fetched]:
    return {
        key: Fetched(sample, False, made.queue_seconds, made.inference_seconds)
        for key, sample in zip(keys, made.samples, strict=True)
    }


def _class_of(model: LiveModel, seeds: Sequence[int]) -> tuple[int, ...] | None:
    """The class that each seed draws; each takes 10 us and more."""
    drawn = draw(model.manifest, seeds).class_idx
    return None if drawn is None else tuple(drawn.tolist())


def _keys(order: Order, classes: tuple[int, ...] | None) -> list[SampleKey]:
    model = order.model
    return [
        SampleKey(model.manifest.digest, model.numerics, seed, classes[i] if classes else None, order.truncation)
        for i, seed in enumerate(order.seeds)
    ]
