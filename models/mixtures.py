"""The plane's mixtures of Gaussians that GANs are tried on, and how well samples cover them. Knows no generators.

`ring` and `grid` are those of VEEGAN (Srivastava et al. 2017) and PacGAN (Lin et al. 2018): a generator that loses
modes shows it here in minutes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

HIGH_QUALITY = 3.0  # standard deviations: a sample is good within this distance of a mode
CEILING = 1 - math.exp(-(HIGH_QUALITY**2) / 2)  # the share of a perfect sampler's that are: 98.9 %, chi-square of 2
# The variance of a Gaussian cut off there, as a share of the whole one's: 1 - (r^2/2) e^(-r^2/2) / (1 - e^(-r^2/2)).
CUT_VARIANCE = 1 - HIGH_QUALITY**2 / 2 * (1 - CEILING) / CEILING
SEED = 0

Points = NDArray[np.float32]  # [N, 2]


class Coverage(msgspec.Struct, frozen=True, kw_only=True):
    """How samples cover a mixture.

    Args:
        modes: with at least one high-quality sample.
        of: modes that there are.
        high_quality: share of samples within 3 standard deviations of a mode; a perfect sampler has 98.9 %.
        shares: of each mode in the high-quality samples, times the number of modes: 1 is just, 0 lost.
        spreads: of each mode's high-quality samples about their own mean, over the true one: 1 is just, 0 a point. NaN
            for modes with fewer than two.
    """

    modes: int
    of: int
    high_quality: float
    shares: tuple[float, ...]
    spreads: tuple[float, ...]

    def __str__(self) -> str:
        known = [spread for spread in self.spreads if not math.isnan(spread)] or [math.nan]
        return (
            f"{self.modes} of {self.of} modes, {self.high_quality:.1%} high quality (ceiling {CEILING:.1%}), "
            f"shares of modes {min(self.shares):.2f} .. {max(self.shares):.2f}, "
            f"spread within modes {min(known):.2f} .. {max(known):.2f}"
        )


@dataclass(frozen=True)
class Mixture:
    """Equally frequent, equally wide round Gaussians in the plane.

    Args:
        centres: of the modes.
        variance: of each coordinate within a mode.
    """

    centres: tuple[tuple[float, float], ...]
    variance: float

    def draw(self, count: int, seed: int = SEED) -> Points:
        """Independent samples [N, 2]: for one seed always the same."""
        stream = np.random.RandomState(seed)
        chosen = stream.randint(len(self.centres), size=count)
        noise = stream.standard_normal((count, 2)) * math.sqrt(self.variance)
        return (np.array(self.centres)[chosen] + noise).astype(np.float32)

    def density(self, points: NDArray[np.float64]) -> NDArray[np.float64]:  # [N, 2] -> [N]
        """p_data at points."""
        squares = _square_distances(points, self.centres)
        scale = 2 * math.pi * self.variance * len(self.centres)
        total: NDArray[np.float64] = np.exp(-squares / (2 * self.variance)).sum(1) / scale
        return total

    def coverage(self, samples: Points) -> Coverage:
        """How samples [N, 2] cover the modes; each belongs to the nearest.

        Raises:
            ValueError: there are none.
        """
        if not len(samples):
            raise ValueError("no samples")
        squares = _square_distances(np.asarray(samples, np.float64), self.centres)
        nearest, good = squares.argmin(1), squares.min(1) <= HIGH_QUALITY**2 * self.variance
        counts = np.bincount(nearest[good], minlength=len(self.centres))
        true = math.sqrt(2 * self.variance * CUT_VARIANCE)
        groups = (samples[good & (nearest == mode)] for mode in range(len(self.centres)))
        spreads = tuple(
            float(np.sqrt(np.var(group, axis=0, ddof=1, dtype=np.float64).sum())) / true if len(group) > 1 else math.nan
            for group in groups
        )
        return Coverage(
            modes=int((counts > 0).sum()),
            of=len(self.centres),
            high_quality=float(good.mean()),
            shares=tuple((counts * len(self.centres) / max(1, counts.sum())).tolist()),
            spreads=spreads,
        )


def _square_distances(
    points: NDArray[np.float64], centres: Sequence[tuple[float, float]]
) -> NDArray[np.float64]:  # [N, 2] -> [N, modes]
    squares: NDArray[np.float64] = ((points[:, None, :] - np.array(centres)) ** 2).sum(2)
    return squares


RING = Mixture(tuple((math.cos(math.tau * i / 8), math.sin(math.tau * i / 8)) for i in range(8)), 1e-4)
GRID = Mixture(tuple((-4.0 + 2 * i, -4.0 + 2 * j) for i in range(5) for j in range(5)), 0.0025)
