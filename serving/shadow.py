"""Runs a share of the load on candidates too, whose samples answer nobody. Knows no HTTP, and no metrics.

The latents of some answered images are kept, run again through the name's candidate when an engine has nothing to do,
and compared. What does not fit into a small queue is dropped, and whatever goes wrong is counted: no answer waits for a
candidate or fails for its sake, and a candidate never becomes one.
"""

import asyncio
import os
import secrets
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Protocol

import structlog

from models.errors import GenserveError, Refused
from models.generator import Samples
from models.latents import MAX_SEED, Drawn, draw
from models.repository import Repository, Version
from serving.batcher import Batcher
from serving.inspection import Inspector, Lens
from serving.loading import LiveModel
from serving.monitor import chunk
from serving.schedule import Deadline
from serving.shadow_pair import Copied, Levels, Pair
from serving.watch import Shown

CHUNK_SECONDS = 0.002  # of an engine, that a request may have to wait for
STALE_SECONDS = 10.0  # after which what waits is dropped
RUN_SECONDS = 60.0  # a run that takes longer is given up
LOOK_SECONDS = 0.005  # an engine is idle if it is so at two looks this far apart
RETRY_SECONDS = 30.0  # before a candidate that could not be loaded is tried again

log = structlog.get_logger("genserve.shadow")


class ShadowObserver(Protocol):
    """Whoever publishes what is seen; called on the event loop."""

    def shadowing(self, model: str, version: int, memory_bytes: float) -> None:
        """A candidate was loaded to shadow a model."""
        ...

    def shadow_ended(self, model: str) -> None:
        """A model has no candidate beside it any more."""
        ...

    def shadowed(self, model: str, images: int, *, seconds: tuple[float, float], levels: tuple[Levels, Levels]) -> None:
        """A candidate ran; seconds of an image and levels of the champion, then of the candidate."""
        ...

    def shadow_fd(self, model: str, shown: Shown) -> None:
        """The candidate's distance to the champion's real samples."""
        ...

    def shadow_dropped(self, model: str, images: int) -> None:
        """Images were not run on a candidate, for want of idle time or because their champion went."""
        ...

    def shadow_failed(self, model: str) -> None:
        """A candidate could not be loaded, or failed."""
        ...


class Shadow:
    """Tries candidates.

    Args:
        batcher: runs them.
        repository: says what is a candidate.
        loader: makes a LiveModel of a version, judged or not; blocking.
        champions: the models that answer now, by name.
        share: of the load, in (0, 1].
        names: models whose candidates are tried; empty for all.
        max_loaded: candidates in memory.
        observer: told of everything.
        inspector: looks at samples; None to compare levels only.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        batcher: Batcher,
        repository: Repository,
        *,
        loader: Callable[[Version], LiveModel],
        champions: Callable[[], Mapping[str, LiveModel]],
        share: float,
        names: Collection[str] = (),
        max_loaded: int,
        observer: ShadowObserver,
        inspector: Inspector | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._batcher = batcher
        self._repository = repository
        self._loader = loader
        self._champions = champions
        self._share = share
        self._names = frozenset(names)
        self._max_loaded = max_loaded
        self._observer = observer
        self._inspector = inspector
        self._clock = clock
        self._pairs: dict[str, Pair] = {}
        self._failures: dict[Version, float] = {}  # when to try again
        self._changed = asyncio.Event()
        self._copied = asyncio.Event()

    def champions_changed(self) -> None:
        """What is served, or what is a candidate, may have changed."""
        self._changed.set()

    def tap(self, network: Any, drawn: Drawn, samples: Samples, seconds: float) -> None:  # noqa: ANN401 see Tap
        """Images were made for somebody: keep a share of them. Called on the event loop for all that is answered.

        Args:
            network: that made them.
            drawn: their latents.
            samples: they.
            seconds: that each took.
        """
        pair = self._pairs.get(network.version.name)
        if pair is None or pair.champion.generator is not network.generator:
            return
        due = pair.due(len(samples), self._share)
        images = min(due, chunk(pair.candidate, CHUNK_SECONDS), pair.room)
        if images:
            z, class_idx = drawn
            kept = Drawn(z[:images].copy(), None if class_idx is None else class_idx[:images].copy())
            pair.copy(Copied(kept, samples[:images].copy(), seconds, self._clock()))
            self._copied.set()
        if due > images:
            self._observer.shadow_dropped(network.version.name, due - images)

    async def run(self) -> None:
        """Follow candidates and run them, until cancelled."""
        following = asyncio.get_running_loop().create_task(self._follow())
        try:
            while True:
                await self._copied.wait()
                self._copied.clear()
                for name, pair in list(self._pairs.items()):
                    await self._run_queue(name, pair)
        finally:
            following.cancel()

    async def _run_queue(self, name: str, pair: Pair) -> None:
        while pair.queue:
            await self._spare()
            if self._pairs.get(name) is not pair:  # what waited was counted as dropped
                return
            copied = pair.next()
            if self._clock() - copied.since > STALE_SECONDS:
                self._observer.shadow_dropped(name, len(copied.samples))
                continue
            try:
                await self._run(name, pair, copied)
            except Exception:  # whatever it was, nobody waits for it
                log.warning("a candidate failed", model=str(pair.candidate.version), exc_info=True)
                self._observer.shadow_failed(name)

    async def _spare(self) -> None:
        """Until an engine is idle and nothing waits, at two looks."""
        looks = 0
        while looks < 2:
            await asyncio.sleep(LOOK_SECONDS)
            looks = looks + 1 if self._batcher.spare else 0

    async def _run(self, name: str, pair: Pair, copied: Copied) -> None:
        """The same images, or as many where the candidate takes other latents."""
        images = len(copied.samples)
        drawn = copied.drawn
        if not pair.takes_same_latents:
            drawn = draw(pair.candidate.manifest, [secrets.randbelow(MAX_SEED + 1) for _ in range(images)])

        def source(start: int, stop: int) -> Drawn:
            return Drawn(drawn.z[start:stop], None if drawn.class_idx is None else drawn.class_idx[start:stop])

        deadline = Deadline(time.monotonic() + RUN_SECONDS)
        made = await self._batcher.generate(pair.candidate, source, images, deadline=deadline, purpose="background")
        if self._pairs.get(name) is not pair:  # promoted, or replaced, meanwhile
            self._observer.shadow_dropped(name, images)
            return
        for spread, samples in zip(pair.spreads, (copied.samples, made.samples), strict=True):
            spread.add(samples)
        seconds = (copied.seconds, made.inference_seconds / images)
        self._observer.shadowed(name, images, seconds=seconds, levels=pair.levels)
        if pair.lens is not None and self._inspector is not None:
            await self._spare()
            block = pair.block(await self._inspector.look(pair.lens, made.samples))
            if block is not None:
                pair.distances.append(await self._inspector.distance(pair.lens, [block]))
                if pair.shown is not None:
                    self._observer.shadow_fd(name, pair.shown)

    # Following the repository.

    async def _follow(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self._refresh()
            except Exception:  # whatever it was, the next promotion must still be noticed
                log.exception("looking for candidates failed")

    async def _refresh(self) -> None:
        """Pair each champion with its candidate, and let go of pairs that are none any more."""
        champions = {name: model for name, model in self._champions().items() if not self._names or name in self._names}
        for name in self._pairs.keys() - champions.keys():
            self._end(name)
        for name, champion in champions.items():
            candidate = await asyncio.to_thread(self._candidate, name, champion)
            pair = self._pairs.get(name)
            if pair is not None and pair.candidate.version == candidate:
                if pair.champion.generator is not champion.generator:  # numbers of two champions do not mix
                    fresh = Pair(champion, pair.candidate, await self._lens(champion))
                    self._observer.shadow_dropped(name, pair.waiting)
                    self._pairs[name] = fresh
                continue
            if pair is not None:
                self._end(name)
            if candidate is not None and len(self._pairs) < self._max_loaded:
                await self._begin(name, champion, candidate)

    def _candidate(self, name: str, champion: LiveModel) -> Version | None:
        """The candidate of a name; None where there is none, or none that can be told now."""
        try:
            number = self._repository.aliases(name).candidate
            if number is None or number == champion.version.number:
                return None
            return self._repository.resolve(f"{name}@{number}")
        except (GenserveError, OSError):
            return None

    async def _begin(self, name: str, champion: LiveModel, candidate: Version) -> None:
        if self._failures.get(candidate, 0.0) > self._clock():
            return
        before = resident_bytes()
        try:
            model = await asyncio.to_thread(self._loader, candidate)
            if model.form != champion.form:
                raise Refused(f"{candidate} makes other samples than {champion.version}")
            lens = await self._lens(champion)
        except Exception as error:  # whatever is wrong with a candidate, nobody waits for it
            self._failures[candidate] = self._clock() + RETRY_SECONDS
            log.warning("a candidate cannot be tried", model=str(candidate), reason=str(error))
            self._observer.shadow_failed(name)
            return
        size = await asyncio.to_thread(lambda: candidate.model_path.stat().st_size)
        self._pairs[name] = Pair(champion, model, lens)
        self._observer.shadowing(name, candidate.number, float(max(size, resident_bytes() - before)))
        log.info("candidate shadows its champion", model=str(candidate), champion=str(champion.version))

    async def _lens(self, champion: LiveModel) -> Lens | None:
        return None if self._inspector is None else await self._inspector.open(champion)

    def _end(self, name: str) -> None:
        self._observer.shadow_dropped(name, self._pairs.pop(name).waiting)
        self._observer.shadow_ended(name)


def resident_bytes() -> int:
    """Memory of this process; 0 where that cannot be told."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
