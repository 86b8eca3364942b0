"""The gate of vectors sees a mode that is lost or thin and a wrong shape with the right moments; the truth passes."""

import math
from collections.abc import Callable

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from models.datasets import load_dataset
from models.extractors import resolve_extractor
from models.gate import Decision, gate, thinnest
from models.generator import Generator
from models.measures import Floor, Measures, Parity
from models.measuring import draw_fakes, measure_distance, measure_fakes, measure_floor
from models.mixtures import GRID, RING, Mixture
from models.neighbours import Replay, neighbour_scores
from models.policy import Policy
from models.reference import RealFeatures
from models.regions import Regions
from models.testkit import tiny_model, tiny_signature

POLICY = Policy()
PARITY = Parity(ok=True, detail="")
UNSEEN = Replay(0.004, 0.005, 1.0)  # of an honest generator: what is looked at here is what it leaves out
NUM_NEIGHBOURS = 500
Rows = NDArray[np.float32]


class Judged:
    """A mixture's gate split, and what the default thresholds say of samples."""

    def __init__(self, name: str, mixture: Mixture) -> None:
        dataset = load_dataset(name)
        self.mixture = mixture
        self.reals = RealFeatures(dataset, resolve_extractor(None, dataset))
        floor = measure_floor(self.reals, "gate", Policy(num_neighbours=NUM_NEIGHBOURS))
        self.floor = msgspec.structs.replace(floor, measures=honest(floor.measures))

    def decide(self, samples: Rows) -> Decision:
        """What the gate says of samples."""
        assert self.reals.regions is not None
        features = self.reals.extractor.features(samples)
        real = self.reals.extracted("gate").features
        distance = measure_distance(features, self.reals, "gate")
        measures = msgspec.structs.replace(
            self.floor.measures,
            fd=distance.fd,
            fd_inf=distance.fd_inf,
            se=distance.se,
            fd_spread=distance.spread,
            scores=neighbour_scores(features[:NUM_NEIGHBOURS], real[:NUM_NEIGHBOURS]),
            region_counts=tuple(self.reals.regions.counts(samples).tolist()),
        )
        return gate(measures, self.floor, (), POLICY, PARITY)

    def reasons(self, samples: Rows) -> list[str]:
        """What refuses samples, by gate and measure."""
        return [reason.partition("[")[0] for reason in self.decide(samples).reasons]

    def thinned(self, mode: int, share: float) -> Rows:
        """25,000 true samples but for one mode, which has a share of its samples."""
        samples = self.mixture.draw(30_000, seed=7)
        nearest = np.square(samples[:, None] - np.array(self.mixture.centres)).sum(2).argmin(1)
        keep = (nearest != mode) | (np.random.RandomState(1).random_sample(len(samples)) < share)
        return samples[keep][:25_000]


def honest(measures: Measures) -> Measures:
    """The same, without any sign of replay."""
    return msgspec.structs.replace(measures, replay=UNSEEN, pixel_replay=UNSEEN)


@pytest.fixture(scope="module", params=[("ring", RING), ("grid", GRID)], ids=["ring", "grid"])
def judged(request: pytest.FixtureRequest) -> Judged:
    return Judged(*request.param)


def test_the_true_mixture_passes(judged: Judged) -> None:
    """Samples of the mixture itself pass every default threshold, and so does one with a mode at 0.7 of its share."""
    assert judged.reasons(judged.mixture.draw(25_000, seed=7)) == []
    assert not any("region" in reason for reason in judged.reasons(judged.thinned(3, 0.7)))


@pytest.mark.parametrize("mode", [0, 5])
def test_a_lost_mode_is_refused_by_its_region(judged: Judged, mode: int) -> None:
    """Whichever of the modes is lost, or has 0.3 of its share: G4 refuses. For one of 25, nothing else does."""
    for share in (0.0, 0.3):
        reasons = judged.reasons(judged.thinned(mode, share))
        assert "G4 thinnest region" in reasons
        if judged.mixture is GRID:
            assert reasons == ["G4 thinnest region"]


@pytest.mark.parametrize("share", [1.0, 0.5, 0.2])
def test_right_moments_but_a_wrong_distribution_are_refused(judged: Judged, share: float) -> None:
    """So much of the samples is one Gaussian of the mixture's mean and covariance: quality or coverage refuses."""
    samples, random = judged.mixture.draw(25_000, seed=7), np.random.RandomState(1)
    mean, covariance = samples.mean(0), np.cov(samples, rowvar=False)
    wrong = random.random_sample(len(samples)) < share
    samples[wrong] = random.multivariate_normal(mean, covariance, int(wrong.sum()))
    np.testing.assert_allclose(samples.mean(0), mean, atol=0.05)
    np.testing.assert_allclose(np.cov(samples, rowvar=False), covariance, atol=0.05 * covariance.max())
    assert {reason.split()[0] for reason in judged.reasons(samples)} & {"G1", "G3"}


def test_a_reason_names_the_region(judged: Judged) -> None:
    """By where it lies in the data's units."""
    reason = judged.decide(judged.thinned(2, 0.0)).reasons[-1]
    place = np.array(reason.partition("round (")[2].partition(")")[0].split(","), float)
    deviation = math.sqrt(judged.mixture.variance)
    assert np.linalg.norm(place - judged.mixture.centres[2]) < 3 * deviation
    assert "has 0.00 of its real share" in reason


def test_every_mode_has_a_region_of_its_own() -> None:
    """No region of ring or grid holds two modes, so that none hides behind another; the same rows, the same regions."""
    for mixture in (RING, GRID):
        samples = mixture.draw(80_000)
        regions = Regions(samples)
        assert regions.names == Regions(samples).names
        held = [regions.counts(np.array([centre], np.float32)).argmax() for centre in mixture.centres]
        assert len(set(held)) == len(mixture.centres)


@pytest.mark.parametrize(
    ("make", "regions"),
    [
        (lambda stream: stream.standard_normal((300, 6)), 1),  # too few for more
        (lambda stream: stream.randint(0, 3, (8000, 1)), 3),  # three values
        (lambda stream: np.ones((8000, 2)), 1),
        (lambda stream: stream.standard_cauchy((8000, 2)), 5),
    ],
)
def test_regions_suit_the_data(make: Callable[[np.random.RandomState], Rows], regions: int) -> None:
    """No more than there are rows or values for; every row is in one, and what is not finite in none."""
    rows = make(np.random.RandomState(0)).astype(np.float32)
    found = Regions(rows)
    counts = found.counts(np.vstack([rows, np.full((1, rows.shape[1]), np.nan, np.float32)]))
    assert (len(counts), counts.sum()) == (regions, len(rows))
    assert len(found.names) == regions
    assert (counts > 0).all()


def test_only_what_is_sure_is_thin() -> None:
    """The same ratio of many samples is below the limit surely, of few it is not; no counts at all are NaN."""
    assert thinnest([30, 970], [100, 900], 1.645).upper == pytest.approx(0.3 * math.exp(1.645 * math.sqrt(13 / 300)))
    assert thinnest([3, 97], [10, 90], 1.645).upper > 0.4 > thinnest([300, 9700], [1000, 9000], 1.645).upper
    assert thinnest([5, 0, 5], [50, 0, 50], 1.645).share == 1
    assert math.isnan(thinnest(None, [1, 2], 1.645).upper)


def test_what_is_drawn_is_counted() -> None:
    """Of 1,200 samples of a generator of vectors all are counted, though neighbours are looked for in 100 only."""
    dataset = load_dataset("ring")
    reals = RealFeatures(dataset, resolve_extractor(None, dataset))
    policy = Policy(num_fake=1200, num_neighbours=100)
    generator = Generator.from_bytes(tiny_model(tiny_signature(kind="vector", z_dim=2, shape=(2,))))
    fakes = draw_fakes(generator, reals.extractor, policy, salt="")
    measures = measure_fakes(fakes, reals, "gate", policy).measures
    assert measures.region_counts is not None
    assert sum(measures.region_counts) == 1200
    floor = measure_floor(reals, "gate", policy)
    assert (floor.region_counts is not None and sum(floor.region_counts)) == 10_000
    assert gate(measures, floor, (), policy, PARITY).numbers[f"thinnest region[{measures.extractor}]"].passed is False


def test_regions_that_were_not_counted_refuse(judged: Judged) -> None:
    """A number that is missing where it is needed is no reason to pass; images have no regions."""
    without = msgspec.structs.replace(judged.floor.measures, region_counts=None)
    assert any("thinnest region" in reason for reason in gate(without, judged.floor, (), POLICY, PARITY).reasons)
    plain: Floor = msgspec.structs.replace(judged.floor, region_counts=None, region_names=None)
    assert not any("region" in check.name for check in gate(without, plain, (), POLICY, PARITY).checks)
