"""Fresh images made ahead in idle time, each handed out once. Knows nothing of HTTP, caches or how images are encoded.

A lone request without a seed is then answered at once, and a burst finds something to begin with. An image of the stock
is what its seed gives, like any other: who asks for that seed again gets the same bytes. While anyone waits, or all
engines or the event loop are busy, nothing is made.
"""

import asyncio
import secrets
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

import structlog

from models.latents import MAX_SEED, draw
from models.latents import Drawn as LatentDraw
from serving.batcher import Batcher
from serving.cache import value_bytes
from serving.cache_memory import Address
from serving.loading import LiveModel
from serving.loop_share import BUSY_LOOP, LoopShare
from serving.orders import Order
from serving.sampler import Drawn
from serving.schedule import Deadline

IDLE_SECONDS = 0.003  # an engine is idle if it is so at two looks this far apart
BUSY_SECONDS = 0.05  # most between two looks
FILL_SECONDS = 60.0  # an image that takes longer is given up
FAILED_SECONDS = 10.0  # before the next try of a model
FORGETTING = 0.995  # weight that an earlier request keeps at each later one, as a sign of demand
MAX_BYTES = 16 * 1024 * 1024  # of all the stock, so that large images take no more
READY_BYTES = 2048  # of an image besides its samples and its PNG, which is hardly ever larger than they
UNEVEN_SHARE = 0.1  # of the stock may be on the wrong shelf before something is thrown away
EPSILON = 1e-9  # parts of the stock that are none

R = TypeVar("R")

log = structlog.get_logger("genserve.stock")


class StockObserver(Protocol):
    """Whoever publishes the stock; called on the event loop."""

    def stocked(self, model: str, images: int) -> None:
        """So many images of a model are ready."""
        ...

    def stock_served(self, model: str) -> None:
        """One of them was handed out."""
        ...


class Ready(NamedTuple, Generic[R]):
    """An image of the stock.

    Args:
        drawn: it, as an order gets it.
        answer: whole, for a request that leaves the format open, too; None where there is none.
    """

    drawn: Drawn
    answer: R | None


class Stock(Generic[R]):
    """A bounded number of images, shared among the champions by recent demand.

    Args:
        batcher: makes them.
        limit: images, over all models; fewer where that many take more than MAX_BYTES.
        champions: the models that answer for their names now.
        finish: what an image is handed out as, and its whole answer if it has one; callable from any thread.
        observer: told of every change.
        busy: whether somebody waits for anything that needs no engine.
    """

    def __init__(
        self,
        batcher: Batcher,
        *,
        limit: int,
        champions: Callable[[], Sequence[LiveModel]],
        finish: Callable[[LiveModel, Drawn], tuple[Drawn, R | None]],
        observer: StockObserver,
        busy: Callable[[], bool] = lambda: False,
    ) -> None:
        self._batcher = batcher
        self._limit = limit
        self._champions = champions
        self._finish = finish
        self._observer = observer
        self._busy = busy
        self._loop_share = LoopShare()
        self._failed: set[Address] = set()  # of late
        self._shelves: dict[Address, deque[Ready[R]]] = {}
        self._demand: dict[str, float] = {}
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        return sum(len(shelf) for shelf in self._shelves.values())

    def take(self, order: Order) -> Drawn | None:
        """An image for an order of one image that leaves everything open; None where there is none, or it does not."""
        if not order.leaves_open:
            return None
        key = order.model.address
        shelf = self._shelves.get(key)
        if shelf is None:  # no champion
            return None
        ready = shelf.popleft() if shelf else None
        self._asked(key, served=ready is not None)
        return None if ready is None else ready.drawn

    def answer(self, model: LiveModel) -> R | None:
        """The whole answer to a request that leaves everything open; None where there is none, and nothing is counted.

        A hit touches little memory that another request does not, and so must this: what is not needed to answer comes
        after the answer.
        """
        key = model.address
        shelf = self._shelves.get(key)
        if not shelf or shelf[0].answer is None:
            return None
        asyncio.get_running_loop().call_soon(self._asked, key, True)
        return shelf.popleft().answer

    def champions_changed(self) -> None:
        """There may be new champions: what is kept of old ones goes."""
        champions = {model.address for model in self._champions()}
        for key in self._shelves.keys() - champions:
            del self._shelves[key]
            self._observer.stocked(key.name, 0)
        for key in champions - self._shelves.keys():
            self._shelves[key] = deque()
            self._observer.stocked(key.name, 0)
        self._demand = {key.name: self._demand.get(key.name, 0.0) for key in champions}
        self._changed.set()

    def _asked(self, key: Address, served: bool) -> None:
        """An order came that the stock may answer: demand, and numbers."""
        for name in self._demand:
            self._demand[name] *= FORGETTING
        self._demand[key.name] = self._demand.get(key.name, 0.0) + 1.0
        self._changed.set()
        if served:
            self._observer.stock_served(key.name)
            if key in self._shelves:  # else there is a new champion, whose shelf is told by itself
                self._observer.stocked(key.name, len(self._shelves[key]))

    async def run(self) -> None:
        """Fill the shelves in idle time, until cancelled."""
        quiet = False
        while True:
            self._changed.clear()
            model = self._wanted()
            if model is None:
                await self._changed.wait()
                quiet = False
            elif not (quiet and self._idle):
                await self._wait_until_quiet()
                quiet = True
            else:
                await self._try(model)

    @property
    def _idle(self) -> bool:
        """Whether nobody waits: for an engine, or for anything else."""
        return self._batcher.spare and not self._busy() and self._loop_share.look() < BUSY_LOOP

    async def _wait_until_quiet(self) -> None:
        pause = IDLE_SECONDS
        while True:
            if self._idle:
                await asyncio.sleep(IDLE_SECONDS)
                if self._idle:
                    return
            await asyncio.sleep(pause)
            pause = min(2 * pause, BUSY_SECONDS)

    def _wanted(self) -> LiveModel | None:
        """The model that has the least of its share and room for an image more; None where all have theirs.

        All is counted in parts of the whole stock, of which a large image takes more than a small one. Where there is
        no room and the shares are far from the demand, what is too much elsewhere is thrown away. A model that fails
        keeps what it has, and the others share the rest.
        """
        champions = {model.address: model for model in self._champions()}
        parts = {key: self._part(champions[key]) for key in self._shelves.keys() & champions.keys()}
        kept = sum(parts.pop(key) * len(self._shelves[key]) for key in self._failed & parts.keys())
        parts = {key: part for key, part in parts.items() if part <= 1.0}
        weights = {key: self._demand[key.name] + 1.0 / len(parts) for key in parts}
        rest = (1.0 - kept) / sum(weights.values()) if weights else 0.0
        missing = {key: weights[key] * rest - part * len(self._shelves[key]) for key, part in parts.items()}
        room = sum(missing.values()) + EPSILON
        fits = [key for key, part in parts.items() if part <= room and missing[key] > EPSILON]
        if fits:
            return champions[max(fits, key=missing.__getitem__)]
        least = max(missing, key=missing.__getitem__, default=None)
        if least is None or missing[least] + EPSILON < max(parts[least], UNEVEN_SHARE):
            return None
        while room < parts[least]:
            most = min(missing, key=missing.__getitem__)
            self._shelves[most].popleft()
            self._observer.stocked(most.name, len(self._shelves[most]))
            missing[most] += parts[most]
            room += parts[most]
        return champions[least]

    def _part(self, model: LiveModel) -> float:
        """Of the whole stock, that an image of a model takes."""
        return max(1.0 / self._limit, (2 * value_bytes(model.form) + READY_BYTES) / MAX_BYTES)

    async def _try(self, model: LiveModel) -> None:
        """`_fill`; a model that fails does without for a while, and requests find out by themselves."""
        try:
            await self._fill(model)
        except Exception:
            log.warning("the stock could not be filled", model=str(model.version), exc_info=True)
            self._failed.add(model.address)
            asyncio.get_running_loop().call_later(FAILED_SECONDS, self._again, model.address)

    def _again(self, address: Address) -> None:
        self._failed.discard(address)
        self._changed.set()

    async def _fill(self, model: LiveModel) -> None:
        """One image more: whoever comes meanwhile waits for no more than that."""
        seed = secrets.randbelow(MAX_SEED + 1)
        latents: list[LatentDraw] = []

        def source(start: int, stop: int) -> LatentDraw:
            latents.append(draw(model.manifest.signature, [seed]))
            return latents[0]

        deadline = Deadline(time.monotonic() + FILL_SECONDS)
        made = await self._batcher.generate(model, source, 1, deadline=deadline, purpose="ahead")
        class_idx = latents[0].class_idx
        classes = None if class_idx is None else tuple(class_idx.tolist())
        drawn = Drawn(made.samples.copy(), (seed,), classes, "stock", 0.0, 0.0)  # a view would keep its batch alive
        ready = Ready(*await asyncio.to_thread(self._finish, model, drawn))
        shelf = self._shelves.get(model.address)
        if shelf is not None:  # else it was promoted away meanwhile
            shelf.append(ready)
            self._observer.stocked(model.version.name, len(shelf))
