"""The training loop: steps, ticks, snapshots, stopping. Knows nothing of the command line."""

import copy
import time
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from models import png
from models.files import replace_file
from models.labels import distance
from models.manifest import Signature
from models.pictures import grid
from models.splits import Samples
from trainer.ema import reestimate_statistics
from trainer.finite import Diverged, require_finite_weights, require_sane_samples
from trainer.forecast import Forecast
from trainer.network_parts import Generator
from trainer.networks_vector import MlpGenerator
from trainer.pixels import Images
from trainer.progress import Meter, duration
from trainer.run_dir import RunDir
from trainer.scatter import scatter
from trainer.selection import Scorer, sample
from trainer.signals import Stats
from trainer.state import DStep, State
from trainer.steps import Steps
from trainer.watching import Watch

if TYPE_CHECKING:
    from trainer.events import EventLog

TICK_KIMG = 2.0  # between lines of stats.jsonl, and more where snapshots are far apart:
MAX_TICKS = 25  # from one snapshot to the next
GRID_SEEDS = np.arange(64)
MAX_COLUMNS = 16  # of classes


class Trainer:
    """Trains until the run is done or is asked to stop, and keeps it: the first process's part of a run.

    Args:
        state: fresh, or loaded from a checkpoint.
        samples: the training split, uint8 [N, H, W, C], or float32 [N, d] in standard units.
        labels: of them, int64 [N], for a conditional run; else None.
        run_dir: where everything is kept.
        meter: shows how it goes.
        scorer: measures snapshots on the validation split; None for data too small to measure.
        events: for TensorBoard; None for none.
        watch: diagnoses the run; without one only its losses and gradients are looked at.
    """

    def __init__(
        self,
        state: State,
        samples: Samples,
        labels: NDArray[np.int64] | None,
        run_dir: RunDir,
        meter: Meter,
        scorer: Scorer | None,
        events: "EventLog | None" = None,
        watch: Watch | None = None,
    ) -> None:
        self.state, self.steps = state, Steps(state, samples, labels)
        self.run_dir, self.meter, self.scorer, self.events = run_dir, meter, scorer, events
        self.watch = watch or Watch(state, None, run_dir.stats())
        self.stopping = False
        self.snapshot_seconds = 0.0

    def stop(self) -> None:
        """Ask for an end after the step at hand; safe in a signal handler."""
        self.stopping = True

    def run(self) -> bool:
        """Train; says whether the run is done (and not stopped). Everything is saved either way.

        Raises:
            Diverged: a value is not finite; the last checkpoint is kept, and nothing after it but a line that says so.
            Gone: another process of this run is gone; likewise.
        """
        try:
            return self._run()
        except Diverged as error:
            if self.meter.counting:
                self._record(self.meter.report(self._kimg))
            self._record(self.watch.fault(self._kimg, error.detail))
            raise

    def _run(self) -> bool:
        config, crew = self.state.config, self.state.crew
        began = time.monotonic()
        forecast = Forecast(self.state, self.steps.d_steps, self.steps.g_steps, self.run_dir.path)
        self.meter.begin(self._kimg)
        tick = max(TICK_KIMG, config.snapshot_kimg / MAX_TICKS)
        next_tick = _next(self._kimg, tick)
        next_snapshot = _next(self._kimg, config.snapshot_kimg)
        while not self.state.done and not crew.any(self.stopping):
            self._step()
            with crew.awaited():
                self.meter.show(self._kimg)
                if text := forecast.after_step():
                    self.meter.say(text)
                if self._kimg >= next_tick:
                    self._tick()
                    next_tick = _next(self._kimg, tick)
                if self._kimg >= next_snapshot and not self.state.done:
                    if text := forecast.after_snapshot(self._snapshot()):
                        self.meter.say(text)
                    next_snapshot = _next(self._kimg, config.snapshot_kimg)
        with crew.awaited():
            self._tick()
            if self.state.done:
                self._snapshot()
            else:
                self._save()
        crew.wait()
        self.meter.end()
        self.meter.say(self._shares(time.monotonic() - began))
        return self.state.done

    @property
    def _kimg(self) -> float:
        return self.state.num_images / 1000

    def _shares(self, seconds: float) -> str:
        share = self.snapshot_seconds / seconds if seconds else 0.0
        return f"{duration(seconds)}, {share:.1%} of them for snapshots, scores and the diagnosis"

    def _step(self) -> None:
        step = self.steps.take()
        if isinstance(step, DStep):
            self.meter.add_d(step)
        else:
            self.meter.add_g(step)

    def _tick(self) -> None:
        """Means since the last tick, and a look at D, which changes nothing."""
        self.state.lookout.settle()
        if self.meter.counting:
            began = time.monotonic()
            self._record(self.watch.tick(self.meter.report(self._kimg)))
            self.snapshot_seconds += time.monotonic() - began

    def _snapshot(self) -> float:
        """Checkpoint, averaged generator, sample grid, validation FD: none of them changes the state. Its seconds."""
        began = time.monotonic()
        self._require_finite()
        state, signature = self.state, self.state.signature
        G_ema = copy.deepcopy(state.G_ema)
        reestimate_statistics(G_ema, signature, state.config.batch_size, state.config.precision)
        samples = None if self.scorer is None else sample(G_ema, signature, self.scorer.seeds)
        if samples is not None:
            require_sane_samples(state.step, G_ema.reach(samples))
        self.run_dir.save_snapshot(self._kimg, G_ema.state_dict())
        if (picture := _picture(G_ema, signature)) is not None:
            replace_file(self.run_dir.grid_path(self._kimg), png.encode(picture, level=9))
            if self.events is not None:
                self.events.show(self._kimg, picture)
        stats = Stats(kimg=self._kimg)
        if self.scorer is not None and samples is not None:
            score = self.scorer.score_samples(samples)
            stats = Stats(kimg=self._kimg, score=score)
            self.meter.note = f"{distance('FD/Tr', score.extractor)} {score.share:.4f} at {self._kimg:.0f}"
        stats = self.watch.snapshot(stats, samples, G_ema)
        self._record(msgspec.structs.replace(stats, snapshot_seconds=time.monotonic() - began))
        self._save()
        seconds = time.monotonic() - began
        self.snapshot_seconds += seconds
        self.meter.begin(self._kimg)
        return seconds

    def _record(self, stats: Stats) -> None:
        self.run_dir.append_stats(stats)
        self.meter.tell(self.watch.verdicts)
        if self.events is not None:
            self.events.record(stats)

    def _save(self) -> None:
        self._require_finite()
        self.run_dir.save_checkpoint(self.state.state_dict())

    def _require_finite(self) -> None:
        self.state.lookout.settle()
        require_finite_weights(self.state.step, self.state.G, self.state.D, self.state.G_ema)


def _picture(G_ema: Generator, signature: Signature) -> Images | None:  # [H, W, C]
    """A grid of images, or a scatter of vectors of two; None of longer ones."""
    if isinstance(G_ema, MlpGenerator):
        return scatter(G_ema, signature) if signature.shape == (2,) else None
    return grid(np.asarray(sample(G_ema, signature, *_shown(signature)), np.uint8))


def _shown(signature: Signature) -> tuple[NDArray[np.int64], list[int] | None]:
    """Seeds of the sample grid, and their classes: one column a class where so many columns are not too many."""
    count = signature.num_classes
    if not 2 <= count <= MAX_COLUMNS:
        return GRID_SEEDS, None
    return np.arange(count**2), list(range(count)) * count


def _next(kimg: float, interval: float) -> float:
    """The first multiple of an interval that is still to come."""
    return (kimg // interval + 1) * interval
