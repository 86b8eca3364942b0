"""Vectors on one scale: mean 0 and standard deviation 1 in every coordinate, and back. Knows no networks or files.

Networks see standardised vectors; what is exported adds scale and mean back, so that samples are in the data's units.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]  # [N, d]


class Standardisation(NamedTuple):
    """x -> (x - mean) / scale.

    Args:
        mean: [d] float32.
        scale: [d] float32, never 0.
    """

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]

    def apply(self, samples: Vectors) -> Vectors:
        """Data's units to standard ones: [N, d] float32."""
        return (samples - self.mean) / self.scale

    def undo(self, samples: Vectors) -> Vectors:
        """Standard units to the data's: what the exported graph computes, as one product and one sum."""
        return samples * self.scale + self.mean


def standardisation(samples: Vectors) -> Standardisation:
    """Of a training split [N, d]; a coordinate that never changes has scale 1.

    Sums are in float64; results are rounded to float32, which is what a graph holds.
    """
    mean = samples.mean(0, dtype=np.float64)
    scale = samples.std(0, dtype=np.float64)
    scale[scale <= 1e-7 * np.abs(mean)] = 1.0  # no more than what float32 rounds off
    scale[scale == 0] = 1.0
    return Standardisation(mean.astype(np.float32), scale.astype(np.float32))
