"""Watches in idle time whether models still make what they were promoted for. Knows no HTTP, and no statistics.

Fresh samples are drawn as they are for requests: same latents, same session, through the batcher; a few at a time, and
only where nobody has asked for anything for a moment. So under load the monitor does nothing at all. What it sees is
decided by serving.watch; here is what follows: loading a model again, and saying that this server is not ready.
"""

import asyncio
import math
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import structlog

from models.baseline import BLOCK, Baseline
from models.errors import GenserveError
from models.extractors import Features
from models.latents import MAX_SEED, draw
from serving.batcher import Batcher
from serving.cache import SampleKey
from serving.errors import DeadlineExceeded, QueueFull, QueueTooLong
from serving.idle import Idle
from serving.inspection import Inspector, Lens
from serving.loading import LiveModel
from serving.sampler import Latents
from serving.schedule import Deadline
from serving.watch import Event, Shown, State, Watch

CHUNK_SECONDS = 0.005  # of an engine's time: whoever comes waits for no more than that, or for one image
CHUNK_IMAGES = 16  # at most
DRAW_SECONDS = 60.0  # a chunk that takes longer is given up
BLOCK_SECONDS = 10.0  # BLOCK samples of a model that is well take at least so long, but for its first few blocks
HASTE = 5.0  # times as fast where something may be wrong
WEEK_SECONDS = 7 * 86_400.0
FAILED_SECONDS = 5.0  # before the next try, where the monitor itself fails
RETRY_SECONDS = 600.0  # before a model that failed is loaded again
LOOK_SECONDS = 1.0  # while there is nothing to watch

log = structlog.get_logger("genserve.monitor")


class MonitorObserver(Protocol):
    """Whoever publishes what is seen; called on the event loop."""

    def monitored(self, model: str, images: int) -> None:
        """So many images were drawn to be looked at."""
        ...

    def looked(self, model: str, *, expected: float, shown: Shown | None, evidence: float) -> None:
        """What the last blocks say: the distance expected, the one seen, and the evidence against the model."""
        ...

    def judged(self, model: str, state: State) -> None:
        """What is thought of a model."""
        ...

    def alarmed(self, model: str) -> None:
        """There was an alarm."""
        ...

    def unwatched(self, model: str) -> None:
        """A model is watched no more."""
        ...


class Models(Protocol):
    """The models that answer: serving.live.LiveModels."""

    @property
    def champions(self) -> Sequence[LiveModel]:
        """Those that answer for their names now."""
        ...

    def reload(self, model: LiveModel) -> Awaitable[LiveModel]:
        """Load a champion's version once more and let it answer; raises GenserveError where that cannot be done."""
        ...

    def set_unfit(self, name: str, reason: str | None) -> None:
        """Say why a model must not answer here; None: it may."""
        ...


class Patient(NamedTuple):
    """A model under watch."""

    lens: Lens
    watch: Watch


class Monitor:
    """Watches champions whose verdicts have baselines.

    Args:
        batcher: draws.
        inspector: looks at samples.
        models: that answer.
        share: of one core that is spent at most, in (0, 1].
        observer: told of everything.
        clock: seconds, monotonic.
        block_seconds: a block of BLOCK samples of a model that is well takes at least so long; a larger one, longer.
    """

    def __init__(
        self,
        batcher: Batcher,
        inspector: Inspector,
        models: Models,
        *,
        share: float,
        observer: MonitorObserver,
        clock: Callable[[], float] = time.monotonic,
        block_seconds: float = BLOCK_SECONDS,
    ) -> None:
        self._batcher = batcher
        self._inspector = inspector
        self._models = models
        self._share = share
        self._observer = observer
        self._clock = clock
        self._block_seconds = block_seconds
        self._idle = Idle(batcher)
        self._patients: dict[str, tuple[object, Patient | None]] = {}  # by name: of which loaded version, and it
        self._retry: dict[str, float] = {}  # when a failed model is loaded again
        self._next: dict[str, float] = {}  # when a model's next block may begin

    async def run(self) -> None:
        """Watch, until cancelled."""
        while True:
            try:
                if not await self._turn():
                    await asyncio.sleep(min(LOOK_SECONDS, self._block_seconds))
            except Exception:  # whatever it was, it must not end the watch
                log.exception("the monitor failed")
                await asyncio.sleep(FAILED_SECONDS)

    async def _turn(self) -> bool:
        """A block of each model whose turn it is; whether there was any."""
        champions = list(self._models.champions)
        await self._forget({model.version.name for model in champions})
        worked = False
        for model in champions:
            patient = await self._patient(model)
            if patient is None or self._clock() < self._next.get(model.version.name, 0.0):
                continue
            if patient.watch.state is State.FAILED:
                if self._clock() >= self._retry.get(model.version.name, 0.0):
                    await self._reload(model, patient)
                continue
            worked = True
            began = self._clock()
            distance = await self._block(model, patient)
            if distance is not None:
                await self._seen(model, patient, distance)
            if patient.watch.state is State.WELL and patient.watch.shown is not None:
                pause = pace(patient.lens.baseline, suspicious=patient.watch.suspicious, seconds=self._block_seconds)
                self._next[model.version.name] = began + pause
        return worked

    async def _patient(self, model: LiveModel) -> Patient | None:
        """What watches a model; None where it has nothing to be held against."""
        name = model.version.name
        known = self._patients.get(name)
        if known is not None and known[0] is model.generator:
            return known[1]
        await self._idle.wait()
        try:
            lens = await self._inspector.open(model)
        except (GenserveError, OSError) as error:
            log.error("a model cannot be watched", model=str(model.version), reason=str(error))
            lens = None
        patient = None
        self._observer.unwatched(name)
        if lens is not None:
            budget = budget_blocks(lens.baseline, len(self._models.champions), max(self._block_seconds, 1e-3))
            patient = Patient(lens, Watch(lens.baseline, budget, variant=model.variant is not None))
            self._observer.judged(name, State.WELL)
        self._patients[name] = (model.generator, patient)
        self._models.set_unfit(name, None)
        return patient

    async def _forget(self, names: set[str]) -> None:
        """Models that are no champions any more."""
        for name in self._patients.keys() - names:
            del self._patients[name]
            self._observer.unwatched(name)
        used = {one.lens.extractor.digest for _, one in self._patients.values() if one is not None}
        self._inspector.keep(used)

    async def _block(self, model: LiveModel, patient: Patient) -> float | None:
        """The distance of a block of fresh samples; None where the model was replaced meanwhile."""
        lens, rows = patient.lens, list[Features]()
        missing = lens.baseline.block
        while missing:
            await self._idle.wait()
            if not self._present(model):
                return None
            began = self._clock()
            images = min(missing, chunk(model))
            try:
                features = await self._look(model, lens, images)
            except (QueueFull, QueueTooLong, DeadlineExceeded):  # it was not so quiet after all
                await asyncio.sleep(LOOK_SECONDS)
                continue
            except Exception:  # a model that makes nothing, or what is no number, is as bad as can be
                log.exception("fresh samples cannot be drawn or looked at", model=str(model.version))
                return math.nan
            self._observer.monitored(model.version.name, images)
            rows.append(features)
            missing -= images
            if not self._suspicious:
                await asyncio.sleep((self._clock() - began) * (1 / self._share - 1))
        await self._idle.wait()
        return await self._inspector.distance(lens, np.concatenate(rows))

    async def _look(self, model: LiveModel, lens: Lens, images: int) -> Features:
        """The features of a few fresh samples, drawn as for a request of anybody."""
        seeds = [secrets.randbelow(MAX_SEED + 1) for _ in range(images)]
        classes = draw(model.manifest, seeds).class_idx if model.manifest.classes else None
        keys = [
            SampleKey(model.manifest.digest, model.numerics, seed, None if classes is None else int(classes[i]), None)
            for i, seed in enumerate(seeds)
        ]
        deadline = Deadline(time.monotonic() + DRAW_SECONDS)
        made = await self._batcher.generate(model, Latents(model, keys), images, deadline=deadline, background=True)
        return await self._inspector.look(lens, made.samples)

    @property
    def _suspicious(self) -> bool:
        """Whether any model deserves a closer look, which no other is to hold up."""
        return any(one is not None and one.watch.suspicious for _, one in self._patients.values())

    def _present(self, model: LiveModel) -> bool:
        return any(one.generator is model.generator for one in self._models.champions)

    async def _seen(self, model: LiveModel, patient: Patient, distance: float) -> None:
        """A block was measured."""
        name, watch = model.version.name, patient.watch
        event = watch.block(distance)
        shown, expected = watch.shown, watch.baseline.fd_inf
        self._observer.looked(name, expected=expected, shown=shown, evidence=watch.evidence)
        told = {"model": str(model.version), "expected_fd": round(expected, 4)}
        if shown is not None:
            told["fd"] = round(shown.value, 4)
        if event is Event.ALARM:
            log.error("a model's samples have become worse; it is loaded again", **told)
            self._observer.alarmed(name)
            await self._reload(model, patient)
        elif event is Event.FAILED:
            log.error("a model's samples are still worse after loading it again: not ready", **told)
            self._failed(model, f"{model.version}'s samples are worse than those it was promoted for, reloaded or not")
        elif event is Event.RECOVERED:
            log.warning("a model's samples are well again since it was loaded anew", **told)
            self._models.set_unfit(name, None)
        self._observer.judged(name, watch.state)

    async def _reload(self, model: LiveModel, patient: Patient) -> None:
        """Load it again, as at the start; then fresh samples decide."""
        name = model.version.name
        try:
            fresh = await self._models.reload(model)
        except Exception as error:  # whatever is wrong with it
            detail = error.detail if isinstance(error, GenserveError) else f"{type(error).__name__}: {error}"
            log.error("a model that has become worse cannot be loaded again", model=str(model.version), reason=detail)
            patient.watch.fail()
            self._failed(model, f"{model.version}'s samples became worse, and it cannot be loaded again: {detail}")
        else:
            patient.watch.reloaded()
            self._patients[name] = (fresh.generator, patient)
        self._observer.judged(name, patient.watch.state)

    def _failed(self, model: LiveModel, reason: str) -> None:
        self._retry[model.version.name] = self._clock() + RETRY_SECONDS
        self._models.set_unfit(model.version.name, reason)


def pace(baseline: Baseline, *, suspicious: bool, seconds: float = BLOCK_SECONDS) -> float:
    """Seconds from the beginning of a block to that of the next, at least, where BLOCK samples take the given ones."""
    return seconds * max(1.0, baseline.block / BLOCK) / (HASTE if suspicious else 1.0)


def budget_blocks(baseline: Baseline, champions: int, seconds: float = BLOCK_SECONDS) -> float:
    """Blocks between two false alarms of a model, for one a week among all champions, should blocks never pause."""
    return WEEK_SECONDS / pace(baseline, suspicious=True, seconds=seconds) * max(1, champions)


def chunk(model: LiveModel) -> int:
    """Images that take no longer than whoever comes may be made to wait; at least one."""
    images = int((CHUNK_SECONDS - model.speed.overhead) / model.speed.per_image)
    return max(1, min(images, CHUNK_IMAGES))
