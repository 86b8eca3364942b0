"""The Frechet distance between feature sets, without bias, with its standard error. Knows no samples or extractors.

FD is the squared 2-Wasserstein distance between the Gaussians with the sets' moments:
|mu_g - mu_r|^2 + Tr S + Tr R - 2 Tr (R^1/2 S R^1/2)^1/2, with S the fakes' covariance and R the reals'. All in float64.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]  # [N, d] or [d, d]
Vector = NDArray[np.float64]  # [N] or [d]

DEAD = 1e-10  # of the largest real variance: directions below carry no cross term
RIDGE = 1e-6  # of the mean real variance, added where a covariance is inverted
NUM_SPLITS = 8  # complementary half-splits for FD_inf
NUM_GROUPS = 20  # of the grouped jackknife
DISAGREEMENT = 0.25  # between delta method and jackknife, above which the larger one counts


class Moments(NamedTuple):
    """Of a set of n features: mean [d], unbiased covariance [d, d]."""

    n: int
    mean: Vector
    covariance: Matrix


@dataclass(frozen=True, kw_only=True)
class Frechet:
    """FD of fakes against reals.

    Args:
        fd: at the given numbers of samples; biased upwards.
        fd_inf: with the bias extrapolated away; unclipped, so that it may be slightly negative.
        se: standard error of both.
        trace_real: Tr R, the scale of FD.
        influence_fake: [N_g], the delta method's influence of each fake.
        influence_real: [N_r], of each real.
    """

    fd: float
    fd_inf: float
    se: float
    trace_real: float
    influence_fake: Vector
    influence_real: Vector


class Difference(NamedTuple):
    """FD_inf of one generator less that of another on the same reals, with its standard error."""

    delta: float
    se: float


def moments(features: NDArray[Any]) -> Moments:  # [N, d], N >= 2
    """Mean and unbiased covariance in float64."""
    x = np.asarray(features, np.float64)
    mean = x.mean(0)
    x = x - mean
    return Moments(len(x), mean, x.T @ x / (len(x) - 1))


def frechet_distance(fake: Moments, real: Moments) -> float:
    """FD by eigenvalues of R^1/2 S R^1/2, clipped at 0: always real, whatever the covariances' ranks."""
    return _distance(fake, real, _root(real.covariance))


def frechet(fake: NDArray[Any], real: NDArray[Any], *, seed: int = 0) -> Frechet:
    """FD, FD_inf and their standard error.

    FD_inf = mean over complementary half-splits of 2 FD_n - mean(FD_n/2), halving both sets (after Chong & Forsyth
    2020, whose FD_N is a + b / N). SE^2 = Var(IF_g) / N_g + Var(IF_r) / N_r, or the grouped jackknife's where the two
    differ by more than 25 % and it is larger.

    Args:
        fake: [N_g, d] features, N_g >= 4.
        real: [N_r, d] features, N_r >= 4.
        seed: of the half-splits and groups.

    Raises:
        ValueError: fewer than 4 samples, or different d.
    """
    g, r = np.asarray(fake, np.float64), np.asarray(real, np.float64)
    if g.shape[1] != r.shape[1] or min(len(g), len(r)) < 4:
        raise ValueError(f"features {g.shape} and {r.shape}: at least 4 of each, of the same dimension")
    moments_g, moments_r = moments(g), moments(r)
    fd = frechet_distance(moments_g, moments_r)
    influence_g, influence_r = _influences(g, r, moments_g, moments_r)
    delta_method = float(np.sqrt(influence_g.var() / len(g) + influence_r.var() / len(r)))
    jackknife = _jackknife(g, r, moments_g, moments_r, np.random.RandomState(seed))
    return Frechet(
        fd=fd,
        fd_inf=2 * fd - _half_distance(g, r, np.random.RandomState(seed)),
        se=jackknife if jackknife > (1 + DISAGREEMENT) * delta_method else delta_method,
        trace_real=float(np.trace(moments_r.covariance)),
        influence_fake=influence_g,
        influence_real=influence_r,
    )


def difference(candidate: Frechet, other: Frechet) -> Difference:
    """FD_inf of the candidate less the other's, both measured on the same reals in the same order.

    SE^2 = Var(IF_g,c) / N_c + Var(IF_g,o) / N_o + Var(IF_r,c - IF_r,o) / N_r: what the reals have in common cancels.

    Raises:
        ValueError: they were measured on different numbers of reals.
    """
    if len(candidate.influence_real) != len(other.influence_real):
        raise ValueError("paired differences need the same reals")
    common = (candidate.influence_real - other.influence_real).var() / len(candidate.influence_real)
    own = sum(side.influence_fake.var() / len(side.influence_fake) for side in (candidate, other))
    return Difference(candidate.fd_inf - other.fd_inf, float(np.sqrt(own + common)))


def _distance(fake: Moments, real: Moments, root: Matrix) -> float:
    """FD with R^1/2 at hand."""
    shift = fake.mean - real.mean
    eigenvalues = np.linalg.eigvalsh(root @ fake.covariance @ root)
    cross = np.sqrt(np.maximum(eigenvalues, 0)).sum()
    return float(shift @ shift + np.trace(fake.covariance) + np.trace(real.covariance) - 2 * cross)


def _root(covariance: Matrix) -> Matrix:
    """The symmetric square root of a positive semidefinite matrix."""
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T)


def _influences(g: Matrix, r: Matrix, fake: Moments, real: Moments) -> tuple[Vector, Vector]:  # [N_g], [N_r]
    """The influence of each sample on FD.

    IF_g(x) = 2 (mu_g - mu_r).(x - mu_g) + (x - mu_g)^T (I - M)(x - mu_g), less its mean, with
    M = R^1/2 (R^1/2 S R^1/2)^-1/2 R^1/2 is the optimal map's gradient; IF_r swaps the sides. Directions that are dead
    in the reals have no cross term, so M is 0 there: a fake that lights one up still counts with its whole variance.
    """
    values, vectors = np.linalg.eigh(real.covariance)
    alive = vectors[:, values > DEAD * max(values[-1], 0)]
    ridge = RIDGE * np.trace(real.covariance) / len(real.mean) * np.eye(alive.shape[1])
    S, R = (alive.T @ side.covariance @ alive + ridge for side in (fake, real))
    root = _root(R)
    middle_values, middle_vectors = np.linalg.eigh(root @ S @ root)
    inverse_root = (middle_vectors / np.sqrt(np.maximum(middle_values, np.finfo(float).tiny))) @ middle_vectors.T
    to_real = root @ inverse_root @ root
    to_fake = np.linalg.inv(to_real)
    shift = fake.mean - real.mean
    return (
        _influence(g - fake.mean, shift, alive, to_real),
        _influence(r - real.mean, -shift, alive, to_fake),
    )


def _influence(x: Matrix, shift: Vector, alive: Matrix, transport: Matrix) -> Vector:  # [N, d] -> [N]
    inner = x @ alive
    influence = 2 * x @ shift + (x**2).sum(1) - ((inner @ transport) * inner).sum(1)
    return np.asarray(influence - influence.mean())


def _half_distance(g: Matrix, r: Matrix, random: np.random.RandomState) -> float:
    """The mean FD at half the samples, over complementary half-splits of both sets."""
    total = 0.0
    for _ in range(NUM_SPLITS):
        order_g, order_r = random.permutation(len(g)), random.permutation(len(r))
        for half_g, half_r in zip(np.array_split(order_g, 2), np.array_split(order_r, 2), strict=True):
            total += frechet_distance(moments(g[half_g]), moments(r[half_r]))
    return total / (2 * NUM_SPLITS)


def _jackknife(g: Matrix, r: Matrix, fake: Moments, real: Moments, random: np.random.RandomState) -> float:
    """Standard error of FD by leaving out one of 20 groups of fakes, then of reals, at a time."""
    root = _root(real.covariance)
    root_fake = _root(fake.covariance)  # FD is symmetric, so each side's root serves while the other side varies
    left_out_g = [_distance(rest, real, root) for rest in _leave_group_out(g, fake, random)]
    left_out_r = [_distance(rest, fake, root_fake) for rest in _leave_group_out(r, real, random)]
    return float(np.sqrt(sum((len(side) - 1) * np.var(side) for side in (left_out_g, left_out_r))))


def _leave_group_out(x: Matrix, whole: Moments, random: np.random.RandomState) -> list[Moments]:
    """The moments without each group, from the whole scatter less the group's."""
    centred = x - whole.mean
    scatter = whole.covariance * (len(x) - 1)
    rests = []
    for group in np.array_split(random.permutation(len(x)), min(NUM_GROUPS, len(x) // 2)):
        part = centred[group]
        count = len(x) - len(part)
        shift = -part.sum(0) / count  # the rest's mean, seen from the whole's
        rest = (scatter - part.T @ part - count * np.outer(shift, shift)) / (count - 1)
        rests.append(Moments(count, whole.mean + shift, rest))
    return rests
