"""Watches a run: has it probed and examined, keeps its lines, and asks for the diagnosis. Knows no thresholds."""

from collections.abc import Sequence
from statistics import mean

import msgspec
import numpy as np

from models.datasets import Dataset
from models.extractors import resolve_extractor
from models.splits import Samples
from models.standardising import Standardisation
from trainer.checkups import FIRST_SEED, NUM_COMPARED, Examiner
from trainer.diagnosis import Verdict, diagnose
from trainer.network_parts import Generator
from trainer.retraining import Reals
from trainer.selection import Scorer, sample
from trainer.signals import Stats
from trainer.state import State

ENOUGH_HELD_OUT = 200  # a smaller validation split leaves it to the training split what samples must cover
RECENT = 5  # probes
DOUBTFUL = 0.75  # mean accuracy of D on held-out samples: above, no fresh D is needed to see that they differ
BATCHES_BETWEEN = 8_000  # of D, from one retraining to the next: some 2 % of the time


class Watch:
    """The lines of a run so far, and what they come to.

    Args:
        state: of the run.
        examiner: None leaves only losses and gradients to speak.
        lines: of the run before, where it is resumed.
    """

    def __init__(self, state: State, examiner: Examiner | None, lines: Sequence[Stats] = ()) -> None:
        self.state, self.examiner = state, examiner
        self.lines = list(lines)
        self.verdicts: tuple[Verdict, ...] = ()

    def tick(self, stats: Stats) -> Stats:
        """A line of means, with the probe and the verdicts."""
        probe = self.examiner.probe(self.state) if self.examiner else None
        return self._judged(stats if probe is None else msgspec.structs.replace(stats, **probe._asdict()))

    def snapshot(self, stats: Stats, samples: Samples | None, G_ema: Generator) -> Stats:
        """A snapshot's line, with the verdicts and the checkup of samples [N, ...], where some are drawn already."""
        if self.examiner is None:
            return self._judged(stats)
        if samples is None:
            samples = sample(G_ema, self.state.signature, np.arange(NUM_COMPARED) + FIRST_SEED)
        checkup = self.examiner.examine(samples, G_ema, self.state, retrain=self._retrains(stats.kimg))
        return self._judged(msgspec.structs.replace(stats, checkup=checkup))

    def fault(self, kimg: float, what: str) -> Stats:
        """The last line of a run that cannot go on."""
        return self._judged(Stats(kimg=kimg, fault=what))

    def _retrains(self, kimg: float) -> bool:
        """Whether to train a fresh D now: where D hardly tells the two apart, seldom before the run's end."""
        last = max((line.kimg for line in self.lines if line.checkup and line.checkup.retrained is not None), default=0)
        batches = (kimg - last) * 1000 / self.state.config.batch_size
        probed = [line.d_accuracy for line in self.lines if line.d_accuracy is not None][-RECENT:]
        doubtful = bool(probed) and mean(probed) <= DOUBTFUL
        return doubtful and (self.state.done or batches >= BATCHES_BETWEEN)

    def _judged(self, stats: Stats) -> Stats:
        self.lines.append(stats)
        self.verdicts = diagnose(self.lines, self.state.config.loss)
        return msgspec.structs.replace(stats, verdicts=tuple(verdict.name for verdict in self.verdicts))


def make_examiner(data: Dataset, train: Reals, scorer: Scorer | None, standard: Standardisation | None) -> Examiner:
    """An examiner for a run's data.

    Args:
        data: the run's data set.
        train: its training split, as D's batches come from it.
        scorer: whose extractor it looks through; without one, the data's own.
        standard: of vectors.
    """
    held_out = data.split("validation")
    seen = held_out.samples if standard is None else standard.apply(np.asarray(held_out.samples, np.float32))
    enough = len(held_out.samples) >= ENOUGH_HELD_OUT
    return Examiner(
        train,
        Reals(seen, None if train.labels is None else held_out.labels),
        held_out.samples if enough else data.split("train").samples,
        scorer.extractor if scorer else resolve_extractor(None, data),
        standard,
    )
