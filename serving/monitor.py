"""Watches in idle time whether models still make what they were promoted for. Knows no HTTP, and no statistics.

Fresh samples are drawn as they are for requests: same latents, same session, through the batcher; a few at a time, and
only where nobody has asked an engine for anything for a moment: answers that are kept or made ahead ask none. So while
engines have work the monitor does nothing at all. What it sees is decided by serving.watch; here is what follows:
loading a model again, and saying that this server is not ready.
"""

import asyncio
import math
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import structlog

from models.baseline import BLOCK, Baseline
from models.errors import GenserveError
from models.extractors import Features
from models.latents import MAX_SEED, draw
from models.records import Verdict
from serving.batcher import Batcher
from serving.cache import SampleKey
from serving.errors import DeadlineExceeded, QueueFull, QueueTooLong
from serving.idle import Idle
from serving.inspection import Inspector, Lens
from serving.loading import LiveModel
from serving.sampler import Latents
from serving.schedule import Deadline
from serving.watch import Event, Shown, State, Watch

CHUNK_SECONDS = 0.005  # of an engine: whoever comes first in a while waits for no more than that, or for one image
CHUNK_IMAGES = 16  # at most
DRAW_SECONDS = 60.0  # a chunk that takes longer is given up
BLOCK_SECONDS = 10.0  # BLOCK samples take at least so long, where nothing may be wrong
WEEK_SECONDS = 7 * 86_400.0
FAILED_SECONDS = 5.0  # before the next try, where the monitor itself fails
RETRY_SECONDS = 600.0  # before a model that failed is loaded again, or one that cannot be watched is opened again
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


@dataclass
class Case:
    """A champion, as it was loaded and judged, and whatever watches it.

    Args:
        generator: that runs.
        verdict: whose baseline it is held against.
        patient: None where there is no baseline, or it cannot be opened.
        next: when something may be done again: the next block, the next try.
    """

    generator: object
    verdict: Verdict | None
    patient: Patient | None = None
    next: float = 0.0

    def is_of(self, model: LiveModel) -> bool:
        """Whether this is the very session, judged by the very verdict."""
        return self.generator is model.generator and self.verdict == model.verdict


class Monitor:
    """Watches champions whose verdicts have baselines.

    Args:
        batcher: draws.
        inspector: looks at samples.
        models: that answer.
        share: of one core that is spent at most, in (0, 1], but while a model looks wrong.
        observer: told of everything.
        clock: seconds, monotonic.
        block_seconds: > 0; a block of BLOCK samples takes at least so long, a larger one longer; a share of it, which
            serving.watch says, for the first few and where something may be wrong.
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
        self._cases: dict[str, Case] = {}  # by name

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
        self._forget({model.version.name for model in champions})
        worked = False
        for model in champions:
            case = await self._case(model)
            if case.patient is None or self._clock() < case.next:
                continue
            try:
                worked = await self._attend(model, case, case.patient) or worked
            except Exception:  # what one model does must not end the watch over others
                log.exception("the monitor failed", model=str(model.version))
                case.next = max(case.next, self._clock() + FAILED_SECONDS)
        return worked

    async def _attend(self, model: LiveModel, case: Case, patient: Patient) -> bool:
        """One block, or one more try with a model that failed; whether it was a block."""
        lens, watch = patient
        if not self._present(model):
            return False
        if watch.state is State.FAILED:
            await self._reload(model, patient)
            return False
        watch.set_budget(budget_blocks(lens.baseline, len(self._models.champions), self._block_seconds))
        began = self._clock()
        distance = await self._block(model, patient)
        if distance is not None and self._present(model):
            event = watch.block(distance)
            case.next = max(case.next, began + watch.pace * block_time(lens.baseline, self._block_seconds))
            await self._seen(model, patient, event)
        return True

    async def _case(self, model: LiveModel) -> Case:
        """What is known of a model; opened anew where it was loaded or judged anew, or could not be opened."""
        name = model.version.name
        known = self._cases.get(name)
        if known is not None and known.is_of(model) and (known.patient is not None or self._clock() < known.next):
            return known
        await self._idle.wait()
        case = self._cases[name] = Case(model.generator, model.verdict, next=math.inf)
        self._observer.unwatched(name)
        self._models.set_unfit(name, None)
        try:
            lens = await self._inspector.open(model)
        except Exception as error:  # whatever is wrong with its files, or with reading them
            log.error("a model cannot be watched", model=str(model.version), reason=str(error))
            case.next = self._clock() + RETRY_SECONDS
        else:
            if lens is not None:
                budget = budget_blocks(lens.baseline, len(self._models.champions), self._block_seconds)
                case.patient = Patient(lens, Watch(lens.baseline, budget, loss=lens.loss))
                case.next = 0.0
                self._observer.judged(name, State.WELL)
        return case

    def _forget(self, names: set[str]) -> None:
        """Models that are no champions any more."""
        for name in self._cases.keys() - names:
            del self._cases[name]
            self._observer.unwatched(name)
        self._inspector.keep(one.patient.lens.extractor.digest for one in self._cases.values() if one.patient)

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
        return await self._inspector.distance(lens, rows)

    async def _look(self, model: LiveModel, lens: Lens, images: int) -> Features:
        """The features of a few fresh samples, drawn as for a request of anybody."""
        seeds = [secrets.randbelow(MAX_SEED + 1) for _ in range(images)]
        classes = draw(model.manifest, seeds).class_idx if model.manifest.classes else None
        keys = [
            SampleKey(model.manifest.digest, model.numerics, seed, None if classes is None else int(classes[i]), None)
            for i, seed in enumerate(seeds)
        ]
        deadline = Deadline(time.monotonic() + DRAW_SECONDS)
        source = Latents(model, keys)
        made = await self._batcher.generate(model, source, images, deadline=deadline, purpose="background")
        return await self._inspector.look(lens, made.samples)

    @property
    def _suspicious(self) -> bool:
        """Whether any model deserves a closer look, which no other is to hold up."""
        return any(one.patient is not None and one.patient.watch.suspicious for one in self._cases.values())

    def _present(self, model: LiveModel) -> bool:
        return any(one.generator is model.generator for one in self._models.champions)

    async def _seen(self, model: LiveModel, patient: Patient, event: Event | None) -> None:
        """A block was measured."""
        name, watch = model.version.name, patient.watch
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
            if (fresh.verdict, fresh.variant) != (model.verdict, model.variant):
                del self._cases[name]  # judged anew, or not the same file: whatever comes next, it is not a probation
                return
            patient.watch.reloaded()
            self._cases[name] = Case(fresh.generator, fresh.verdict, patient)
        self._observer.judged(name, patient.watch.state)

    def _failed(self, model: LiveModel, reason: str) -> None:
        if self._present(model):  # another version may answer for the name by now
            self._cases[model.version.name].next = self._clock() + RETRY_SECONDS
            self._models.set_unfit(model.version.name, reason)


def block_time(baseline: Baseline, seconds: float = BLOCK_SECONDS) -> float:
    """Seconds from the beginning of a block to that of the next, at least, where BLOCK samples take the given ones."""
    return seconds * max(1.0, baseline.block / BLOCK)


def budget_blocks(baseline: Baseline, champions: int, seconds: float = BLOCK_SECONDS) -> float:
    """Blocks in the time between two false alarms of a model, for one a week among all champions."""
    return WEEK_SECONDS / block_time(baseline, seconds) * max(1, champions)


def chunk(model: LiveModel, seconds: float = CHUNK_SECONDS) -> int:
    """Images that an engine makes in so many seconds; at least one."""
    images = int((seconds - model.speed.overhead) / model.speed.per_image)
    return max(1, min(images, CHUNK_IMAGES))
