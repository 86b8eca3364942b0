"""Scores snapshots on the validation split, so that the best can be exported. Never looks at the gate split.

The score is FD between averaged G's samples and the validation images, in the features that the data set's extractor
gives. It has FD's bias for its number of samples: good for ranking snapshots of one run, not for the gate.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.datasets import Dataset
from models.extractors import resolve_extractor
from models.frechet import frechet_distance, moments
from models.generator import DTYPES
from models.latents import draw
from models.manifest import Signature
from models.splits import Samples
from trainer.network_parts import Generator
from trainer.signals import Score

NUM_FAKES = 5000
FIRST_SEED = 2**31  # far from the seeds that people look at
MIN_REALS = 4  # fewer have no useful covariance
MAX_BATCH_VALUES = 64 * 64 * 64 * 3  # of samples in one batch: whole ones up to 64 pixels in colour, fewer beyond


class Scorer:
    """Holds the validation split's moments for a run.

    Args:
        data: the run's data set.
        num_fakes: samples for each score, the same seeds for every snapshot.
    """

    def __init__(self, data: Dataset, num_fakes: int = NUM_FAKES) -> None:
        self.extractor = resolve_extractor(None, data)
        self.reals = moments(self.extractor.features(data.split("validation").samples))
        self.total_variance = float(np.trace(self.reals.covariance))
        self.seeds = np.arange(num_fakes) + FIRST_SEED

    def score(self, G_ema: Generator, signature: Signature) -> Score:
        """FD of a generator in eval mode, and FD as a share of the real features' total variance."""
        return self.score_samples(sample(G_ema, signature, self.seeds))

    def score_samples(self, samples: Samples) -> Score:
        """The same of samples that are drawn already, of the scorer's seeds."""
        fakes = moments(self.extractor.features(samples))
        fd = frechet_distance(fakes, self.reals)
        return Score(fd=fd, share=fd / self.total_variance, extractor=self.extractor.label)


def make_scorer(data: Dataset, num_fakes: int = NUM_FAKES) -> Scorer | None:
    """A scorer, or None where the validation split is too small, or too uniform, to measure anything."""
    if len(data.indices["validation"]) < MIN_REALS:
        return None
    scorer = Scorer(data, num_fakes)
    return scorer if scorer.total_variance > 0 else None  # FD as a share of nothing says nothing


@torch.no_grad()
def sample(
    G: Generator,
    signature: Signature,
    seeds: NDArray[np.int64],
    class_idx: Sequence[int] | None = None,
    batch_size: int = 64,
) -> Samples:
    """What is served of these seeds, of a generator in eval mode, each of its class or of the one it draws.

    uint8 [N, H, W, C], or float32 [N, d] in the data's units. Large ones are made in smaller batches than `batch_size`,
    since what G holds of each grows with its extent. They are the same in any batch, but for rounding: of a few pixels
    in 100,000, by one level.
    """
    drawn = draw(signature, seeds, class_idx=class_idx)
    device = next(G.parameters()).device
    batch_size = max(1, min(batch_size, MAX_BATCH_VALUES // math.prod(signature.shape)))
    z = torch.split(torch.from_numpy(drawn.z).to(device), batch_size)
    classes: Sequence[Tensor | None] = [None] * len(z)
    if drawn.class_idx is not None:
        classes = torch.split(torch.from_numpy(drawn.class_idx).to(device), batch_size)
    samples: Samples = np.empty((len(seeds), *signature.shape), DTYPES[signature.kind])
    for rows, part in enumerate(zip(z, classes, strict=True)):
        samples[rows * batch_size : (rows + 1) * batch_size] = G.finish(G(*part)).cpu().numpy()
    return samples
