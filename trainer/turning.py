"""Turns images by quarters, for a network that learns to tell by how much (Gidaris et al. 2018). Knows no networks.

An image that is not square is cut to its shorter side first: its outline would give the answer away.
"""

import numpy as np
from numpy.typing import NDArray

TURNS = 4

Images = NDArray[np.uint8]  # [N, H, W, C]
Turns = NDArray[np.int64]  # [N], in quarters, counter-clockwise


def turned(images: Images, random: np.random.RandomState) -> tuple[Images, Turns]:
    """Each image cut at a random place to [S, S, C] and turned at random, each turn as often as the others."""
    count, height, width, _ = images.shape
    side = min(height, width)
    turns = random.permutation(np.arange(count, dtype=np.int64) % TURNS)
    top, left = random.randint(0, height - side + 1, count), random.randint(0, width - side + 1, count)
    return _turn(_cut(images, top, left, side), turns), turns


def all_turns(images: Images) -> tuple[Images, Turns]:
    """The middle square of each image in all four turns: [4 N, S, S, C], first all upright, then all by a quarter."""
    count, height, width, _ = images.shape
    side = min(height, width)
    top, left = np.full(count, (height - side) // 2), np.full(count, (width - side) // 2)
    turns = np.repeat(np.arange(TURNS, dtype=np.int64), count)
    return _turn(np.tile(_cut(images, top, left, side), (TURNS, 1, 1, 1)), turns), turns


def _cut(images: Images, top: NDArray[np.int64], left: NDArray[np.int64], side: int) -> Images:
    rows, columns = top[:, None] + np.arange(side), left[:, None] + np.arange(side)
    cut: Images = images[np.arange(len(images))[:, None, None], rows[:, :, None], columns[:, None, :]]
    return cut


def _turn(squares: Images, turns: Turns) -> Images:
    out = np.empty_like(squares)
    for quarters in range(TURNS):
        chosen = turns == quarters
        out[chosen] = np.rot90(squares[chosen], quarters, axes=(1, 2))
    return out
