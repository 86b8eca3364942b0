"""The Frechet distance between feature sets, without bias, with its standard error. Knows no samples or extractors.

FD is the squared 2-Wasserstein distance between the Gaussians with the sets' moments:
|mu_g - mu_r|^2 + Tr S + Tr R - 2 Tr (R^1/2 S R^1/2)^1/2, with S the fakes' covariance and R the reals'. All in float64.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
from numpy.typing import NDArray
from scipy.special import chdtri, stdtrit

from models.blas import one_thread
from models.bounds import Spread, spread
from models.halving import Groups, Matrix, Moments, Vector, design

DEAD = 1e-10  # of the largest real variance: directions below carry no cross term
RIDGE = 1e-6  # of the mean real variance, added where a covariance is inverted
ROWS = 4096  # turned into float64 at once
GROUP_ROWS = 32  # of the smaller set, at least, where there are more than 4 groups
WIDE = 512  # dimensions above which a distance costs too much for many parts
FEW = 4_000  # samples of a side that show how the variance grows, where features are wide
CONDITIONED = 1e-8  # reciprocal condition in the 1-norm, as LAPACK estimates it, above which no direction is dead
DISAGREEMENT = 0.999  # confidence beyond which half-samples' spread counts in place of the delta method's
NORMAL_975 = 1.959964


@dataclass(frozen=True, kw_only=True)
class Frechet:
    """FD of fakes against reals.

    Args:
        fd: at the given numbers of samples; biased upwards.
        fd_inf: with the bias extrapolated away; unclipped, so that it may be slightly negative.
        spread: of fd_inf: its bounds.
        trace_real: Tr R, the scale of FD.
        influence_fake: [N_g], the delta method's influence of each fake.
        influence_real: [N_r], of each real.
        bends: [G - 1], the mean FD of each half-split's halves less FD: its own bias, and how much that varies.
    """

    fd: float
    fd_inf: float
    spread: Spread
    trace_real: float
    influence_fake: Vector
    influence_real: Vector
    bends: Vector

    @property
    def se(self) -> float:
        """The standard error of fd_inf."""
        return self.spread.se


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
    """FD by eigenvalues that are clipped at 0: always real, whatever the covariances' ranks."""
    with one_thread(len(real.mean)):
        return _distance(fake, real, 0)


def frechet(fake: NDArray[Any], real: NDArray[Any], *, seed: int = 0) -> Frechet:
    """FD, FD_inf and its standard error, which holds near FD = 0 too.

    With F_n, F_n/2, F_n/4 the mean FD of all, of balanced halves and of quarters of both sets,
    FD_inf = 2 F_n - F_n/2 + (2 F_n - 3 F_n/2 + F_n/4) / 3: of FD_n = FD + a/n + b/n^2 + ... both orders are gone
    (Chong & Forsyth 2020 take off the first). FD of
    samples is FD + L + Q to second order, with L linear and Q quadratic in what their moments are off by. Each
    half-split's bend, its mean FD less F_n, is another Q of the same law, so the bends' variance is Q's.

    Args:
        fake: [N_g, d] features, N_g >= 4.
        real: [N_r, d] features, N_r >= 4.
        seed: of the groups.

    Raises:
        ValueError: fewer than 4 samples, or different d.
    """
    if fake.shape[1] != real.shape[1] or min(len(fake), len(real)) < 4:
        raise ValueError(f"features {fake.shape} and {real.shape}: at least 4 of each, of the same dimension")
    with one_thread(fake.shape[1]):
        return _frechet(fake, real, seed)


def _frechet(fake: NDArray[Any], real: NDArray[Any], seed: int) -> Frechet:
    k, num_quarterings = _size(min(len(fake), len(real)), fake.shape[1])
    everything = np.ones((1, 1 << k), bool)
    r = Groups(real, None, 1 << k, seed=seed)
    basis, dead = _basis(next(r.moments(everything)).covariance)
    if basis is not None:
        r = Groups(real, basis, 1 << k, seed=seed)
    g = Groups(fake, basis, 1 << k, seed=seed + 1)
    all_g, all_r = (next(side.moments(everything)) for side in (g, r))
    fd = _distance(all_g, all_r, dead)

    def distances(parts: NDArray[np.bool_]) -> NDArray[np.float64]:  # [..., G] -> [...]
        flat = parts.reshape(-1, 1 << k)
        pairs = zip(g.moments(flat), r.moments(flat), strict=True)
        return np.reshape([_distance(*pair, dead) for pair in pairs], parts.shape[:-1])

    plan = design(k, num_quarterings)
    halves = distances(plan.halves)
    bends = halves.mean(1) - fd
    second = 0.0
    if num_quarterings:
        quarters = distances(plan.quarters).mean(1)
        second = float((quarters + 2 * fd - 3 * halves.mean(1)[plan.halvings].mean(1)).mean())
    influence_g, influence_r = _influences(fake, real, all_g, all_r, basis, dead)
    first_order = influence_g.var() / len(fake) + influence_r.var() / len(real)
    growth = _growth(fake, real, influence_g, influence_r, basis, dead)
    between = float(np.mean((halves[:, 0] - halves[:, 1]) ** 2) / 4)
    if between > first_order * chdtri(len(bends), 1 - DISAGREEMENT) / len(bends):
        growth *= between / first_order if first_order > 0 else 1.0
        first_order = between
    fd_inf = fd - float(bends.mean()) + second / 3
    quadratic, freedom = float(bends.var(ddof=1)) * (1 + 1 / len(bends)), len(bends) - 1
    inflation = float(stdtrit(freedom, 0.975) / NORMAL_975) ** 2
    return Frechet(
        fd=fd,
        fd_inf=fd_inf,
        spread=spread(
            fd_inf, biased=fd, linear=float(first_order), quadratic=quadratic, inflation=inflation, growth=growth
        ),
        trace_real=float(np.trace(all_r.covariance)),
        influence_fake=influence_g,
        influence_real=influence_r,
        bends=bends,
    )


def difference(candidate: Frechet, other: Frechet) -> Difference:
    """FD_inf of the candidate less the other's, both measured on the same reals in the same order.

    SE^2 = Var(IF_g,c) / N_c + Var(IF_g,o) / N_o + Var(IF_r,c - IF_r,o) / N_r: what the reals have in common cancels,
    also in how the half-splits bend.

    Raises:
        ValueError: they were measured on different numbers of reals.
    """
    if len(candidate.influence_real) != len(other.influence_real):
        raise ValueError("paired differences need the same reals")
    common = (candidate.influence_real - other.influence_real).var() / len(candidate.influence_real)
    own = sum(side.influence_fake.var() / len(side.influence_fake) for side in (candidate, other))
    if len(candidate.bends) == len(other.bends):
        bends = candidate.bends - other.bends
    else:  # so few fakes of one that their groups differ: the smaller set's bends vary more
        bends = max((candidate.bends, other.bends), key=lambda side: float(side.var()))
    return Difference(candidate.fd_inf - other.fd_inf, _standard_error(own + common, bends))


def _standard_error(first_order: float, bends: Vector) -> float:
    """The standard error of a difference: first order as the delta method has it, and the bends' variance V.

    The delta method takes the influences at the samples' moments, not the true ones, and so finds 2 V too much. Near
    0 few bends are all that is known, so it is scaled for 1.96 of it to be Student's 97.5 % quantile.
    """
    bend = float(bends.var(ddof=1))
    quadratic = bend * (1 + 1 / len(bends))
    variance = max(first_order - 2 * bend, 0.0) + quadratic
    if not quadratic > 0:
        return float(np.sqrt(variance))
    freedom = (len(bends) - 1) * (variance / quadratic) ** 2  # Satterthwaite 1946
    return float(np.sqrt(variance) * stdtrit(min(freedom, 1e6), 0.975) / NORMAL_975)


def _size(count: int, dim: int) -> tuple[int, int]:
    """How many groups, as a power of 2, and quarterings: more groups tell the variance better, each part costs d^3.

    What varies at distance 0 is the smaller a share of the bias the more dimensions there are: where a part costs
    seconds few will do.
    """
    if count < 16 * GROUP_ROWS:
        return 2, 0
    if dim > WIDE:
        return 2, 1
    return (5, 5) if count >= 32 * GROUP_ROWS else (4, 5)


def _basis(covariance: Matrix) -> tuple[Matrix | None, int]:
    """An orthonormal basis that begins with the directions in which the reals do not vary, and their number.

    None where there are none: the features' own basis does.
    """
    if _well_conditioned(covariance):
        return None, 0
    values = np.linalg.eigvalsh(covariance)
    dead = int((values <= DEAD * max(values[-1], 0)).sum())
    return (np.linalg.eigh(covariance)[1], dead) if dead else (None, 0)


def _well_conditioned(covariance: Matrix) -> bool:
    """Seen at a sixth of the time that eigenvalues take; no is no answer."""
    factor, failed = scipy.linalg.lapack.dpotrf(covariance, lower=1)
    if failed:
        return False
    norm = np.abs(covariance).sum(0).max()
    return bool(scipy.linalg.lapack.dpocon(factor, norm, uplo="L")[0] > CONDITIONED)


def _distance(fake: Moments, real: Moments, dead: int) -> float:
    """FD where the first `dead` directions have no cross term.

    Tr (R^1/2 S R^1/2)^1/2 is the sum of the roots of the eigenvalues of F^T S F for any F with F F^T = R, and the same
    with S and R exchanged; the larger set's covariance has a Cholesky factor more likely.
    """
    shift = fake.mean - real.mean
    small, large = sorted((fake, real), key=lambda side: side.n)
    eigenvalues = np.linalg.eigvalsh(_product(large.covariance[dead:, dead:], small.covariance[dead:, dead:]))
    cross = np.sqrt(np.maximum(eigenvalues, 0)).sum()
    return float(shift @ shift + np.trace(fake.covariance) + np.trace(real.covariance) - 2 * cross)


def _product(large: Matrix, small: Matrix) -> Matrix:  # [d, d], [d, d] -> [r, r]
    """F^T S F for an F with F F^T = R of rank r; its lower triangle alone counts. F is Cholesky's, with complete
    pivoting where R is singular (LAPACK's dpstrf, a sixth of the time that eigenvectors take, and without the roots of
    what rounding leaves of the zeros).
    """
    try:
        return _within(np.asarray(np.linalg.cholesky(large)), small)
    except np.linalg.LinAlgError:
        lower, pivots, rank, _ = scipy.linalg.lapack.dpstrf(large, lower=1)
        factor = np.empty((len(large), rank))
        factor[pivots - 1] = np.tril(lower)[:, :rank]
        return np.asarray(factor.T @ small @ factor)


def _within(factor: Matrix, covariance: Matrix) -> Matrix:  # [d, d], [d, d] -> [d, d]
    """The lower triangle of F^T C F for a lower triangular F: half the time of two products."""
    if not len(factor):  # no direction in which the reals vary; LAPACK's wrapper takes no empty matrix
        return covariance
    return np.asarray(scipy.linalg.lapack.dsygst(covariance, factor, itype=2, lower=1)[0])


def _growth(
    fake: NDArray[Any], real: NDArray[Any], influence_g: Vector, influence_r: Vector, basis: Matrix | None, dead: int
) -> float:
    """How fast the first-order variance grows with FD, between the samples as they are and weighted along their
    influences so that FD is a standard error larger; 0 where it does not grow.

    How much larger FD is then is the mean of what the influences before and after say. Of wide features every row
    counts in the weighted moments, and FEW of each side show what follows.
    """
    before = influence_g, influence_r
    variance = sum(float(own.var()) / len(own) for own in before)
    if not variance > 0:
        return 0.0
    weights = [np.maximum(1 + own / (len(own) * np.sqrt(variance)), 0) for own in before]
    tilted = [_weighted_moments(rows, own / own.mean(), basis) for rows, own in zip((fake, real), weights, strict=True)]
    shown = [_few(len(own), fake.shape[1]) for own in before]
    after = _influences(fake[shown[0]], real[shown[1]], tilted[0], tilted[1], basis, dead)
    moved = grown = 0.0
    for all_first, then, all_own, some in zip(before, after, weights, shown, strict=True):
        first, own = all_first[some], all_own[some] / all_own[some].mean()
        moved += float(((own - 1) * (first + then)).mean()) / 2
        varied = float((own * (then - (own * then).mean()) ** 2).mean())
        grown += (varied - float(first.var())) / len(all_first)
    return max(0.0, grown / moved) if moved > 0 else 0.0


def _few(count: int, dim: int) -> slice | NDArray[np.int64]:
    """Which rows show how the variance grows."""
    if dim <= WIDE or count <= FEW:
        return slice(None)
    return np.sort(np.random.RandomState(0).permutation(count)[:FEW])


def _weighted_moments(rows: NDArray[Any], weights: Vector, basis: Matrix | None) -> Moments:  # weights of mean 1
    blocks = [slice(start, start + ROWS) for start in range(0, len(rows), ROWS)]
    mean = np.zeros(rows.shape[1])
    for block in blocks:
        mean += weights[block] @ np.asarray(rows[block], np.float64) / len(rows)
    covariance = np.zeros((len(mean), len(mean)))
    for block in blocks:
        x = (np.asarray(rows[block], np.float64) - mean) * np.sqrt(weights[block, None])
        covariance += x.T @ x
    covariance /= len(rows) - 1
    if basis is None:
        return Moments(len(rows), mean, covariance)
    return Moments(len(rows), mean @ basis, basis.T @ covariance @ basis)


def _influences(
    g: NDArray[Any], r: NDArray[Any], fake: Moments, real: Moments, basis: Matrix | None, dead: int
) -> tuple[Vector, Vector]:  # [N_g], [N_r]
    """The influence of each sample on FD.

    IF_g(x) = 2 (mu_g - mu_r).(x - mu_g) + (x - mu_g)^T (I - M)(x - mu_g), less its mean, with
    M = F (F^T S F)^-1/2 F^T, F F^T = R, the optimal map's gradient; IF_r swaps the sides. Directions that are dead in
    the reals have no cross term, so M is 0 there: a fake that lights one up still counts with its whole variance.
    """
    ridge = RIDGE * np.trace(real.covariance) / len(real.mean)
    S, R = (side.covariance[dead:, dead:] + ridge * np.eye(len(side.mean) - dead) for side in (fake, real))
    F = np.linalg.cholesky(R)
    values, vectors = np.linalg.eigh(_within(F, S))
    values = np.maximum(values, max(ridge**2, np.finfo(float).tiny))  # S and R are at least the ridge
    forward = (F @ vectors) * values**-0.25  # M = forward forward^T
    backward = scipy.linalg.solve_triangular(F, vectors, trans="T", lower=True) * values**0.25  # of M^-1
    shift = fake.mean - real.mean
    return (
        _influence(g, fake.mean, shift, basis, dead, forward),
        _influence(r, real.mean, -shift, basis, dead, backward),
    )


def _influence(
    rows: NDArray[Any], mean: Vector, shift: Vector, basis: Matrix | None, dead: int, half_map: Matrix
) -> Vector:  # [N, d] -> [N]
    influence = np.empty(len(rows))
    for start in range(0, len(rows), ROWS):
        x = np.asarray(rows[start : start + ROWS], np.float64)
        x = (x if basis is None else x @ basis) - mean
        carried = ((x[:, dead:] @ half_map) ** 2).sum(1)
        influence[start : start + ROWS] = 2 * x @ shift + (x**2).sum(1) - carried
    return np.asarray(influence - influence.mean())
