"""What a report draws anew from a run's snapshot: how sure its score is, neighbours, a walk. Knows no HTML."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from models.datasets import Dataset
from models.flips import mirrored
from models.frechet import frechet
from models.latents import draw, draw_untruncated, walk
from models.manifest import Signature
from models.neighbours import Replay, nearest_distances, replay
from models.pictures import Images, grid
from trainer.network_parts import Generator
from trainer.pixels import to_uint8
from trainer.selection import make_scorer, sample

NUM_COMPARED = 500  # samples, and held-out images, whose nearest training image is looked for
NUM_SHOWN = 8  # of them: the nearest
NUM_NEIGHBOURS = 3
WALKS = ((0, 1), (2, 3), (4, 5))  # seeds
STEPS = 8  # of a walk
BLOCK_ROWS = 4096


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


class Neighbour(NamedTuple):
    """A sample over its nearest training images, [rows * H, W, C] uint8.

    Args:
        seed: of the sample.
        column: the pictures.
        distance: to the nearest, root mean square over the pixels, in levels of 0 .. 255.
    """

    seed: int
    column: Images
    distance: float


class Neighbours(NamedTuple):
    """How near samples are to training images, held against how near unseen images are.

    Args:
        shown: those of all compared samples that are nearest.
        compared: how many samples.
        held_out: how many validation images.
        median: distance of samples, in levels.
        median_held_out: of validation images.
        replay: of the samples, by the validation images' distances.
    """

    shown: list[Neighbour]
    compared: int
    held_out: int
    median: float
    median_held_out: float
    replay: Replay


def certainty(G: Generator, signature: Signature, data: Dataset) -> Certainty | None:
    """How sure a snapshot's score is; None where the validation split is too small to measure."""
    scorer = make_scorer(data)
    if scorer is None:
        return None
    reals = scorer.extractor.features(data.split("validation").samples)
    found = frechet(scorer.extractor.features(sample(G, signature, scorer.seeds)), reals)
    return Certainty(*(value / found.trace_real for value in (found.fd, found.fd_inf, found.se)))


def neighbours(G: Generator, signature: Signature, data: Dataset, *, flip: bool) -> Neighbours:
    """The nearest training images of samples, by pixels; of 500 samples those that are nearest are shown.

    Of a run that showed D mirrored images these are training images too.
    """
    train = np.asarray(data.split("train").samples, np.uint8)
    if flip:
        train = np.concatenate([train, mirrored(train)])
    held_out = np.asarray(data.split("validation").samples[:NUM_COMPARED], np.uint8)
    samples = np.asarray(sample(G, signature, np.arange(NUM_COMPARED)), np.uint8)
    levels = float(np.sqrt(samples[0].size))  # from a Euclidean distance to a root mean square
    flat = train.reshape(len(train), -1)
    distances = nearest_distances(samples.reshape(len(samples), -1), flat) / levels
    others = nearest_distances(held_out.reshape(len(held_out), -1), flat) / levels
    shown = []
    for seed in np.argsort(distances, kind="stable")[:NUM_SHOWN]:
        near = train[_nearest_rows(samples[seed], train)]
        column = grid(np.concatenate([samples[seed][None], near]), columns=1)
        shown.append(Neighbour(int(seed), column, float(distances[seed])))
    return Neighbours(
        shown=shown,
        compared=len(distances),
        held_out=len(others),
        median=float(np.median(distances)),
        median_held_out=float(np.median(others)),
        replay=replay(distances, others),
    )


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


def _nearest_rows(image: Images, train: Images) -> NDArray[np.intp]:  # [H, W, C], [N, H, W, C] -> [K]
    """The rows of the nearest training images, nearest first."""
    target = image.reshape(-1).astype(np.float32)
    squares = np.empty(len(train), np.float32)
    for start in range(0, len(train), BLOCK_ROWS):
        block = train[start : start + BLOCK_ROWS].reshape(-1, target.size).astype(np.float32)
        squares[start : start + BLOCK_ROWS] = ((block - target) ** 2).sum(1)
    return np.argsort(squares, kind="stable")[:NUM_NEIGHBOURS]
