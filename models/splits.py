"""The training, validation and gate splits of a data set, as values. Knows no files.

Training sees "train", the choice of a checkpoint sees "validation", and only the gate opens "gate".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

SplitName = Literal["train", "validation", "gate"]
SPLIT_NAMES: tuple[SplitName, ...] = get_args(SplitName)
Samples = NDArray[np.uint8] | NDArray[np.float32]  # [N, H, W, C] or [N, d]
Indices = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Split:
    """A part of a data set.

    Args:
        samples: uint8 [N, H, W, C], or float32 [N, d].
        labels: int64 [N], None without labels.
        indices: int64 [N], the position of each sample in the whole data set.
    """

    samples: Samples
    labels: NDArray[np.int64] | None
    indices: Indices


def by_position(num_train: int, num_validation: int, num_gate: int) -> Mapping[SplitName, Indices]:
    """Consecutive splits: for data sets whose test part is agreed on in the field."""
    first, second = num_train, num_train + num_validation
    everything = np.arange(second + num_gate, dtype=np.int64)
    return {"train": everything[:first], "validation": everything[first:second], "gate": everything[second:]}
