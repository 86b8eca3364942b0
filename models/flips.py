"""Which training images are shown mirrored: a fixed half of all showings. Knows no batches and no networks."""

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.uint8]  # [N, H, W, C]

STREAM = 0x666C6970  # "flip": apart from whatever else is drawn from the run's seed


def mirrored(images: Images) -> Images:
    """Every image, left and right exchanged; a view."""
    return images[:, :, ::-1]


def flip_half(images: Images, *, seed: int, position: int) -> Images:
    """Mirror about half of a batch, at random, the same half whenever and wherever the batch is asked for.

    Args:
        images: [N, H, W, C] of consecutive positions.
        seed: of the run.
        position: of the first image, in showings since the run began: on several devices the global one.

    Returns:
        A copy [N, H, W, C].
    """
    chosen = chosen_half(len(images), seed=seed, position=position)
    flipped = images.copy()
    flipped[chosen] = mirrored(images[chosen])
    return flipped


def chosen_half(count: int, *, seed: int, position: int) -> NDArray[np.bool_]:  # [count]
    """Which of so many consecutive showings are mirrored; arguments as of `flip_half`."""
    return _bits(seed, position + np.arange(count, dtype=np.uint64))


def _bits(seed: int, positions: NDArray[np.uint64]) -> NDArray[np.bool_]:  # [N] -> [N]
    """A fair coin for each position: the top bit of SplitMix64 (Steele et al. 2014), which needs no stream to go on."""
    with np.errstate(over="ignore"):
        z = (
            positions * np.uint64(0x9E3779B97F4A7C15)
            + np.uint64(seed) * np.uint64(0xD1342543DE82EF95)
            + np.uint64(STREAM)
        )
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
        coins: NDArray[np.bool_] = (z ^ (z >> np.uint64(31))) >> np.uint64(63) == 1
    return coins
