"""Stacked MNIST: three digits as one colour image, 1000 modes, and how many of them samples cover. Knows no files.

After Metz et al. 2017 and PacGAN (Lin et al. 2018): 26,000 samples, a digit classifier on each channel.
"""

from collections.abc import Callable, Mapping

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.splits import Indices, SplitName, by_position

NUM_MODES = 1000
NUM_SAMPLES = 26_000  # of the published protocol
NUM_STACKS: Mapping[SplitName, int] = {"train": 128_000, "validation": 10_000, "gate": NUM_SAMPLES}
SEED = 0

Images = NDArray[np.uint8]  # [N, H, W, C]
Classify = Callable[[Images], NDArray[np.int64]]  # [N, H, W, 1] -> digits [N]


class ModesCovered(msgspec.Struct, frozen=True, kw_only=True):
    """How samples cover the 1000 modes, by a classifier of digits.

    Args:
        modes: recognised at least once.
        kl: KL(samples || uniform) in nats; a perfect sampler's is about 999 / (2 N), .019 at 26,000.
        num_samples: N.
    """

    modes: int
    kl: float
    num_samples: int


def stack(
    digits: Images, labels: NDArray[np.int64], splits: Mapping[SplitName, Indices]
) -> tuple[Images, NDArray[np.int64], Mapping[SplitName, Indices]]:
    """Stacks of three digits drawn at random, each split's from that split's digits alone; always the same ones.

    Args:
        digits: [N, H, W, 1].
        labels: 0..9, [N].
        splits: of the digits.

    Returns:
        Stacks [M, H, W, 3], their modes 100 a + 10 b + c [M], and the stacks' splits, of NUM_STACKS.
    """
    stream = np.random.RandomState(SEED)
    chosen = [stream.choice(splits[name], (count, 3)) for name, count in NUM_STACKS.items()]
    parts = np.concatenate(chosen)
    stacks = np.empty((len(parts), *digits.shape[1:3], 3), np.uint8)
    for channel in range(3):
        stacks[..., channel] = digits[parts[:, channel], ..., 0]
    return stacks, labels[parts] @ np.array([100, 10, 1]), by_position(*NUM_STACKS.values())


def modes_covered(samples: Images, classify: Classify) -> ModesCovered:
    """The modes that samples [N, H, W, 3] are recognised as, channel by channel."""
    digits = np.stack([classify(np.ascontiguousarray(samples[..., c, None])) for c in range(3)], axis=1)
    counts = np.bincount(digits @ np.array([100, 10, 1]), minlength=NUM_MODES)
    shares = counts[counts > 0] / len(samples)
    return ModesCovered(
        modes=int((counts > 0).sum()),
        kl=float((shares * np.log(shares * NUM_MODES)).sum()),
        num_samples=len(samples),
    )
