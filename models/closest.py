"""The samples that lie nearest to training images, and those images. Knows no generators and no files."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.neighbours import Replay, nearest_distances, replay
from models.pictures import Images, grid

NUM_COMPARED = 500  # samples, and held-out images, whose nearest training image is looked for
NUM_SHOWN = 8  # of them: the nearest
NUM_NEIGHBOURS = 3
BLOCK_ROWS = 4096


class Neighbour(NamedTuple):
    """A sample over its nearest training images, [rows * H, W, C] uint8.

    Args:
        number: of the sample, among those compared.
        column: the pictures.
        distance: to the nearest, root mean square over the pixels, in levels of 0 .. 255.
    """

    number: int
    column: Images
    distance: float


class Neighbours(NamedTuple):
    """How near samples are to training images, held against how near unseen images are.

    Args:
        shown: those of all compared samples that are nearest.
        compared: how many samples.
        held_out: how many unseen images.
        median: distance of samples, in levels.
        median_held_out: of unseen images.
        replay: of the samples, by the unseen images' distances.
    """

    shown: list[Neighbour]
    compared: int
    held_out: int
    median: float
    median_held_out: float
    replay: Replay

    @property
    def picture(self) -> Images:  # [(1 + NUM_NEIGHBOURS) * H, NUM_SHOWN * W, C]
        """All columns side by side: samples in the first row."""
        return np.concatenate([neighbour.column for neighbour in self.shown], axis=1)


def closest(samples: Images, train: Images, held_out: Images) -> Neighbours:
    """The nearest training images of samples, by pixels.

    Args:
        samples: [N, H, W, C].
        train: [M, H, W, C], mirrored ones too where training showed them.
        held_out: [K, H, W, C] that training never saw.
    """
    levels = float(np.sqrt(samples[0].size))  # from a Euclidean distance to a root mean square
    flat = train.reshape(len(train), -1)
    distances = nearest_distances(samples.reshape(len(samples), -1), flat) / levels
    others = nearest_distances(held_out.reshape(len(held_out), -1), flat) / levels
    shown = []
    for index in np.argsort(distances, kind="stable")[:NUM_SHOWN]:
        near = train[_nearest_rows(samples[index], train)]
        column = grid(np.concatenate([samples[index][None], near]), columns=1)
        shown.append(Neighbour(int(index), column, float(distances[index])))
    return Neighbours(
        shown=shown,
        compared=len(distances),
        held_out=len(others),
        median=float(np.median(distances)),
        median_held_out=float(np.median(others)),
        replay=replay(distances, others),
    )


def _nearest_rows(image: Images, train: Images) -> NDArray[np.intp]:  # [H, W, C], [N, H, W, C] -> [K]
    """The rows of the nearest training images, nearest first."""
    target = image.reshape(-1).astype(np.float32)
    squares = np.empty(len(train), np.float32)
    for start in range(0, len(train), BLOCK_ROWS):
        block = train[start : start + BLOCK_ROWS].reshape(-1, target.size).astype(np.float32)
        squares[start : start + BLOCK_ROWS] = ((block - target) ** 2).sum(1)
    return np.argsort(squares, kind="stable")[:NUM_NEIGHBOURS]
