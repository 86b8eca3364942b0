"""Measures what losses do not show: D on unseen data, and what the samples of a snapshot are like. Judges nothing.

Nothing here touches a run's own random numbers: latents come from fixed seeds, rows from fixed streams, and D and G
are frozen and keep every bit.
"""

from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.bins import ROWS_PER_BIN, share_left_out
from models.blocks import rows_per_block
from models.clusters import k_means, nearest_centre
from models.extractors import Extractor
from models.latents import draw
from models.neighbours import K_DENSITY, neighbour_scores
from models.splits import Samples
from models.standardising import Standardisation
from trainer.freezing import frozen
from trainer.network_parts import Generator
from trainer.objectives import Objective
from trainer.retraining import MIN_HELD_OUT, Reals, accuracy, retrained_accuracy
from trainer.signals import Checkup, Probe
from trainer.state import State

NUM_PROBED = 128  # real and generated samples each that a tick's probe shows D
MIN_PROBED = 16  # fewer held-out samples say nothing of D
NUM_COMPARED = 500  # samples, and real ones, of a checkup
FIRST_SEED = 3 * 2**30  # of the probe's latents: far from those of scores and of people
MAX_EXTENT = 16  # pixels a side: larger images are averaged down before they are compared
MAX_SEARCHED = 60_000  # training samples that copies are looked for in
COPY = 0.5  # a copy is nearer than this share of the distance to the second nearest training sample
DUPLICATE = 0.1  # likewise, of the reals' median distance to one another's nearest
STREAM = 2014  # of the training rows that are compared

Rows = NDArray[np.float32]  # [N, d]


class Examiner:
    """Probes D at ticks and examines samples at snapshots.

    Args:
        train: the training split, as D's batches come from it.
        held_out: the validation split, likewise.
        reference: real samples as they are served, [N, ...]: what samples are to cover.
        extractor: of the features that this is compared in.
        standard: of vectors, from the data's units to those of the splits; None for images.
    """

    def __init__(
        self,
        train: Reals,
        held_out: Reals,
        reference: Samples,
        extractor: Extractor,
        standard: Standardisation | None = None,
    ) -> None:
        self.train, self.held_out, self.extractor, self.standard = train, held_out, extractor, standard
        self.reference = extractor.features(_some(reference, NUM_COMPARED))
        searched = _some(train.samples, MAX_SEARCHED)
        self._rows = _averaged(searched) if standard is None else np.asarray(searched, np.float32)

    @cached_property
    def _known(self) -> Rows:
        """Some training rows."""
        return np.asarray(_some(self._rows, NUM_COMPARED), np.float32)

    @cached_property
    def _apart(self) -> float:
        """The median distance of a training row to the nearest other of as many as are compared."""
        return float(np.median(_nearest_two(self._known, self._known, apart_from_itself=True)[:, 0]))

    @cached_property
    def _kinds(self) -> Rows:
        """Centres of the real samples' clusters."""
        return k_means(self.reference, max(2, len(self.reference) // ROWS_PER_BIN))

    @cached_property
    def _copies_by_chance(self) -> float:
        return _copies(_nearest_two(self._known, self._rows, apart_from_itself=True))

    def probe(self, state: State) -> Probe | None:
        """Show D some of both; None where too few samples are held out, and with BatchNorm over several processes."""
        count = min(NUM_PROBED, len(self.held_out.samples), len(self.train.samples))
        if count < MIN_PROBED or _waits(state):
            return None
        held_out, seen = self.held_out.some(count), self.train.some(count)
        device = next(state.D.parameters()).device
        classes = None if held_out.labels is None else held_out.labels.tolist()
        drawn = draw(state.signature, np.arange(count) + FIRST_SEED, class_idx=classes)
        z, class_idx = torch.from_numpy(drawn.z).to(device), held_out.classes(device)
        autocast = torch.autocast(device.type, dtype=torch.bfloat16, enabled=state.config.precision == "bf16")
        with frozen(state.G), frozen(state.D), torch.no_grad(), autocast:
            fake = state.D(state.G(z, class_idx), class_idx).float()
            real, known = (state.D(part.tensor(device), part.classes(device)).float() for part in (held_out, seen))
        return Probe(accuracy(real, fake), accuracy(known, fake), _pull(state.objective, real, fake))

    def examine(self, samples: Samples, G_ema: Generator, state: State, *, retrain: bool) -> Checkup | None:
        """What samples of the averaged generator are like; None where there are too few to say.

        Args:
            samples: of G_ema, as they are served, [N, ...].
            G_ema: in eval mode.
            state: gives configuration and signature.
            retrain: whether to train a fresh D against it, which takes as long as some hundred steps of D.
        """
        samples = samples[:NUM_COMPARED]
        count = min(len(samples), len(self.reference), len(self._rows))
        if count <= K_DENSITY:
            return None
        features = self.extractor.features(samples[:count])
        scores = neighbour_scores(features, self.reference[:count])
        rows = _averaged(samples) if self.standard is None else self.standard.apply(np.asarray(samples, np.float32))
        between = _nearest_two(rows[:count], rows[:count], apart_from_itself=True)[:, 0]
        retrained = None
        if retrain and len(self.held_out.samples) >= MIN_HELD_OUT:
            retrained = retrained_accuracy(G_ema, state.config, state.signature, self.train, self.held_out)
        return Checkup(
            precision=scores.precision,
            recall=scores.recall,
            coverage=scores.coverage,
            spread=_variance(features) / (_variance(self.reference) or 1.0),
            duplicates=float((between < DUPLICATE * self._apart).mean()),
            copies=_copies(_nearest_two(rows, self._rows)),
            copies_by_chance=self._copies_by_chance,
            left_out=self._left_out(features),
            retrained=retrained,
            compared=count,
        )

    def _left_out(self, features: Rows) -> float:
        real, fake = (nearest_centre(side, self._kinds) for side in (self.reference, features))
        return share_left_out(fake, real, len(self._kinds))


def _waits(state: State) -> bool:
    """Whether a network of this process alone would wait for the others to show theirs a batch too."""
    return any(isinstance(module, nn.SyncBatchNorm) for network in (state.G, state.D) for module in network.modules())


def _pull(objective: Objective, real: Tensor, fake: Tensor) -> float:  # [N], [N] -> []
    """The mean of |dL_G / dD(G(z))|, each sample's own: what of D's judgement reaches G."""
    fake = fake.detach().requires_grad_(True)
    (slopes,) = torch.autograd.grad(objective.g_loss(real.detach(), fake), fake)
    return float(slopes.abs().sum())


def _copies(nearest: NDArray[np.float64]) -> float:  # [N, 2] -> []
    """The share of rows whose nearest training row is less than half as far as the second nearest.

    For rows drawn as the training rows were that is about 0.5^d in d effective dimensions; no scale and no held-out
    data are needed. Training rows that have near-duplicates are never counted: copies of those are missed.
    """
    return float((nearest[:, 0] < COPY * nearest[:, 1]).mean())


def _nearest_two(queries: Rows, base: Rows, *, apart_from_itself: bool = False) -> NDArray[np.float64]:
    """Distances to the nearest and second nearest row of base: [N, d], [M, d] -> [N, 2].

    Args:
        queries: rows.
        base: rows.
        apart_from_itself: queries are rows of base, and one row at distance 0 is passed over.
    """
    first = int(apart_from_itself)
    ranks = [first, min(first + 1, len(base) - 1)]
    centre = base.mean(0)
    y = base - centre
    norms = (y * y).sum(1)
    found = np.empty((len(queries), 2))
    step = rows_per_block(len(base), 4)
    for start in range(0, len(queries), step):
        x = queries[start : start + step] - centre
        squares = norms - 2 * (x @ y.T) + (x * x).sum(1)[:, None]
        found[start : start + step] = np.sqrt(np.maximum(np.partition(squares, ranks, axis=1)[:, ranks], 0))
    return found


def _averaged(images: Samples) -> Rows:  # [N, H, W, C] uint8 -> [N, d]
    """Images of at most 16 pixels a side, as rows."""
    height, width = images.shape[1:3]
    step = -(-max(height, width) // MAX_EXTENT)
    rows = []
    for start in range(0, len(images), 4096):
        block = images[start : start + 4096].astype(np.float32)
        for axis in (1, 2):
            edges = np.arange(0, block.shape[axis], step)
            block = np.add.reduceat(block, edges, axis=axis)
        rows.append(block.reshape(len(block), -1) / step**2)
    return np.concatenate(rows)


def _some(samples: Samples, count: int) -> Samples:
    """At most so many, always the same ones."""
    if len(samples) <= count:
        return samples
    return samples[np.sort(np.random.RandomState(STREAM).permutation(len(samples))[:count])]


def _variance(features: NDArray[np.float32]) -> float:  # [N, D] -> []
    """The trace of the covariance."""
    return float(features.var(0, dtype=np.float64).sum())
