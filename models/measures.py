"""The numbers that a generator is judged by, as plain values. Knows neither how they are measured nor thresholds."""

from typing import NamedTuple

import msgspec

from models.binomial import Share
from models.bins import BinTest
from models.bounds import Spread
from models.inception_score import InceptionScore
from models.neighbours import Replay, Scores
from models.overfitting import Overfitting


class WorstClass(NamedTuple):
    """The class whose fakes lie farthest from its reals.

    Args:
        name: of the class.
        fd_inf: Frechet distance within it, without bias; NaN where it has too few fakes to say.
        se: standard error of it, which does not know that it was chosen as the worst.
    """

    name: str
    fd_inf: float
    se: float


class Measures(msgspec.Struct, frozen=True, kw_only=True):
    """Everything measured of one generator on one split; NaN is a value that refuses wherever it is tested.

    Args:
        extractor: label of the extractor that every number but pixel replay was made with.
        num_fake: fakes behind FD.
        num_real: reals of the split.
        num_neighbours: fakes (and at most as many reals) behind KID and the neighbour scores.
        fd: Frechet distance at these numbers of samples.
        fd_inf: the same without bias; may be slightly negative.
        se: standard error of fd_inf.
        fd_spread: its bounds, which are not symmetric near 0; None takes se to either side.
        trace_real: Tr of the reals' covariance, the scale of FD.
        kid: kernel distance, unbiased.
        kid_se: its standard error.
        kid_spread: its bounds; None takes kid_se to either side.
        scores: precision, recall, density, coverage.
        twins: near-duplicates: share of fakes nearer to another fake than all but 0.5 % of reals are to another real.
        bins: NDB, which k-means bins of training samples hold another share of fakes than of reals.
        inception_score: of the extractor's own classes; None where it does not classify.
        class_shares: share of fakes recognised as each class; None where the extractor does not know the data's.
        worst_class: the class whose fakes lie farthest from its reals; None like class_shares.
        conditional: whether classes were asked for.
        class_accuracy: share of fakes recognised as the class asked for; None where that cannot be said.
        region_counts: of vectors: how many lie in each region of the data; None for images.
        replay: in feature space, mirror images too; None for real against real.
        pixel_replay: on the samples themselves.
        duplicates: share of fakes that are exact copies of training samples, as they are or mirrored.
        overfitting: C_T, its AUC and authenticity; None for real against real.
    """

    extractor: str
    num_fake: int
    num_real: int
    num_neighbours: int
    fd: float
    fd_inf: float
    se: float
    trace_real: float
    kid: float
    kid_se: float
    scores: Scores
    fd_spread: Spread | None = None
    kid_spread: Spread | None = None
    twins: Share | None = None
    bins: BinTest | None = None
    inception_score: InceptionScore | None = None
    class_shares: tuple[float, ...] | None = None
    worst_class: WorstClass | None = None
    conditional: bool = False
    class_accuracy: float | None = None
    region_counts: tuple[int, ...] | None = None
    replay: Replay | None = None
    pixel_replay: Replay | None = None
    duplicates: float | None = None
    overfitting: Overfitting | None = None

    def fd_bound(self, z: float) -> float:
        """FD_inf's bound: upper at 1.645 with 95 %, lower and upper at -1.96 and 1.96 together."""
        return self.fd_inf + z * self.se if self.fd_spread is None else self.fd_spread.bound(z)

    def kid_bound(self, z: float) -> float:
        """KID's bound."""
        return self.kid + z * self.kid_se if self.kid_spread is None else self.kid_spread.bound(z)


class Floor(msgspec.Struct, frozen=True, kw_only=True):
    """Real against real: what a perfect generator would measure, from training samples in the fakes' place.

    Args:
        measures: of as many training samples as there are fakes, or of all where they are fewer.
        class_names: what class shares stand for; None without classes.
        class_shares: of the split's reals, as the extractor recognises them.
        class_accuracy: share of the reals that the extractor recognises rightly.
        region_names: of vectors: what the regions of the data are called; None for images.
        region_counts: how many of the split's reals lie in each.
    """

    measures: Measures
    class_names: tuple[str, ...] | None = None
    class_shares: tuple[float, ...] | None = None
    class_accuracy: float | None = None
    region_names: tuple[str, ...] | None = None
    region_counts: tuple[int, ...] | None = None


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate against another version, both measured on the same reals under the same policy.

    Args:
        role: "champion", or "best" for the best version ever promoted.
        version: its number.
        digest: of its model.onnx.
        fd_inf: its own, measured now.
        delta: the candidate's FD_inf less its own.
        se: standard error of delta, paired.
    """

    role: str
    version: int
    digest: str
    fd_inf: float
    delta: float
    se: float


class Parity(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the file makes here the samples that it was published with, in whatever batch they run.

    Args:
        ok: the golden samples agree.
        detail: what was found, for a person.
    """

    ok: bool
    detail: str
