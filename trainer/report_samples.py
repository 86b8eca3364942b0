"""What a report draws anew from a run's snapshot: how sure its score is, neighbours, a walk. Knows no HTML."""

from typing import NamedTuple

import numpy as np
import torch

from models.closest import NUM_COMPARED, Neighbours, closest
from models.datasets import Dataset
from models.flips import mirrored
from models.frechet import frechet
from models.latents import draw, draw_untruncated, walk
from models.manifest import Signature
from models.pictures import Images, grid
from trainer.network_parts import Generator
from trainer.pixels import to_uint8
from trainer.selection import make_scorer, sample

WALKS = ((0, 1), (2, 3), (4, 5))  # seeds
STEPS = 8  # of a walk


class Certainty(NamedTuple):
    """Of a snapshot's score on the validation split.

    Args:
        share: FD, as a share of the real features' variance, with the bias of its number of samples.
        unbiased: FD_inf, likewise.
        error: standard error of both.
    """

    share: float
    unbiased: float
    error: float


def certainty(G: Generator, signature: Signature, data: Dataset) -> Certainty | None:
    """How sure a snapshot's score is; None where the validation split is too small to measure."""
    scorer = make_scorer(data)
    if scorer is None:
        return None
    reals = scorer.extractor.features(data.split("validation").samples)
    found = frechet(scorer.extractor.features(sample(G, signature, scorer.seeds)), reals)
    return Certainty(*(value / found.trace_real for value in (found.fd, found.fd_inf, found.se)))


def neighbours(G: Generator, signature: Signature, data: Dataset, *, flip: bool) -> Neighbours:
    """The nearest training images of samples, by pixels; of the samples of seeds 0 .. 499 the nearest are shown.

    Of a run that showed D mirrored images these are training images too.
    """
    train = np.asarray(data.split("train").samples, np.uint8)
    if flip:
        train = np.concatenate([train, mirrored(train)])
    held_out = np.asarray(data.split("validation").samples[:NUM_COMPARED], np.uint8)
    samples = np.asarray(sample(G, signature, np.arange(NUM_COMPARED)), np.uint8)
    return closest(samples, train, held_out)


@torch.no_grad()
def walks(G: Generator, signature: Signature) -> Images:  # [len(WALKS) * H, (STEPS + 1) * W, C]
    """Walks between pairs of seeds, one in each row; of a conditional generator each in its first seed's class."""
    z = [
        walk(draw_untruncated(signature, seeds), STEPS, loop=False, method="auto", prior=signature.prior)
        for seeds in WALKS
    ]
    firsts = draw(signature, [first for first, _ in WALKS]).class_idx
    classes = None if firsts is None else torch.from_numpy(np.repeat(firsts, STEPS + 1))
    samples = to_uint8(G(torch.from_numpy(np.concatenate(z).astype(np.float32)), classes))
    return grid(samples, columns=STEPS + 1)
