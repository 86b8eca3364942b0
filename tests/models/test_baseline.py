"""Baselines: what blocks of fresh samples are held against, and what follows when they are."""

import msgspec
import numpy as np
import pytest

from models.baseline import STANDING_OUT, Meter, decode, encode, make_baseline
from models.errors import LoadError
from models.extractor_manifest import ExtractorManifest
from models.frechet import frechet, frechet_distance, moments

DIM, REALS, FAKES = 12, 3000, 8000


class Eye:
    """Stands for an extractor: features come from a random stream here."""

    made_of = b"graph"
    manifest = ExtractorManifest(name="eye", dim=DIM, shape=(8, 8, 1), digest="e" * 64, architecture="none", seed=0)


def draw(count, *, shift=0.0, seed=0, dim=DIM):
    """Skewed features with correlations."""
    random = np.random.RandomState(seed)
    mixing = np.random.RandomState(99).standard_normal((dim, dim)) / np.sqrt(dim)
    return (np.abs(random.standard_normal((count, dim))) @ mixing + shift).astype(np.float32)


@pytest.fixture(scope="module")
def baseline():
    reals, fakes = draw(REALS, seed=1), draw(FAKES, shift=0.08, seed=2)
    return make_baseline(fakes, reals, frechet(fakes, reals), extractor=Eye(), extractor_name="eye")


def test_blocks_of_the_same_generator_surprise_nobody(baseline):
    """Mean 0 and variance 1, about, over 200 fresh blocks."""
    meter = Meter(baseline)
    found = [baseline.surprise(meter.distance(draw(baseline.block, shift=0.08, seed=100 + i))) for i in range(200)]
    assert abs(np.mean(found)) < 0.35
    assert 0.7 < np.var(found) < 1.4


def test_the_bias_of_small_blocks_cancels(baseline):
    """Less the bias, the mean distance of fresh blocks is the verdict's own FD_inf."""
    meter = Meter(baseline)
    distances = [meter.distance(draw(baseline.block, shift=0.08, seed=500 + i)) for i in range(200)]
    error = np.std(distances) / np.sqrt(200) + baseline.block_deviation * np.sqrt(baseline.block / FAKES)
    assert abs(np.mean(distances) - baseline.bias - baseline.fd_inf) < 3 * error
    assert baseline.bias > 0


def test_a_fault_of_fifty_percent_is_well_outside_the_slack(baseline):
    """And what is tolerated is less than half of it, the baseline's own error aside."""
    assert baseline.rise == pytest.approx(max(0.5 * baseline.fd_inf, 0.0005 * baseline.trace_real))
    assert baseline.slack() < baseline.rise / baseline.block_deviation
    more = 0.001 * baseline.trace_real / baseline.block_deviation
    assert baseline.slack(0.001) == pytest.approx(baseline.slack() + more)


@pytest.mark.parametrize(
    ("shift", "fakes", "block"),
    [(0.3, 20_000, 1000), (0.06, 20_000, 2000), (0.045, 48_000, 4000), (0.02, 48_000, 8000), (0.03, 9_999, 999)],
)
def test_the_nearer_to_the_reals_the_larger_the_block(shift, fakes, block):
    """As large as a fault needs to stand out of one, or as the samples allow."""
    reals, samples = draw(REALS, seed=1), draw(fakes, shift=shift, seed=2)
    made = make_baseline(samples, reals, frechet(samples, reals), extractor=Eye(), extractor_name="eye")
    assert made.block == block
    if 1000 < block < 8000:
        assert made.rise >= STANDING_OUT * made.block_deviation
        meter = Meter(made)
        small = [meter.distance(draw(1000, shift=shift, seed=900 + i)) for i in range(60)]
        assert made.rise < STANDING_OUT * np.std(small)


@pytest.mark.parametrize("dim", [6, 80], ids=["more samples than features", "fewer"])
def test_a_block_has_the_distance_that_frechet_gives(dim):
    """By either Gram matrix, to rounding."""
    reals, block = draw(500, seed=3, dim=dim), draw(40, shift=0.2, seed=4, dim=dim)
    made = make_baseline(
        draw(400, seed=5, dim=dim), reals, frechet(block, reals), extractor=Eye(), extractor_name="eye"
    )
    expected = frechet_distance(moments(block), moments(reals))
    assert Meter(made).distance(block) == pytest.approx(expected, rel=1e-6)
    assert Meter(made).distance(block[:7], block[7:30], block[30:]) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("sizes", [[2500], [1800, 700], [5] * 500, [999, 1, 1500]])
def test_however_a_block_is_cut_its_distance_is_the_same(baseline, sizes):
    """Large pieces are cut and small ones joined: no row is lost, none is counted twice."""
    block = draw(2500, shift=0.2, seed=8)
    pieces = np.split(block, np.cumsum(sizes)[:-1])
    expected = frechet_distance(moments(block), baseline.real)
    assert Meter(baseline).distance(*pieces) == pytest.approx(expected, rel=1e-6)


def test_a_baseline_survives_its_file(baseline):
    """Bytes are the same each time, and give the same numbers."""
    data = encode(baseline)
    assert data == encode(baseline)
    again = decode(data)
    assert encode(again) == data
    block = draw(baseline.block, seed=7)
    assert Meter(again).distance(block) == Meter(baseline).distance(block)
    assert msgspec.structs.asdict(again.extractor_manifest) == msgspec.structs.asdict(Eye.manifest)


@pytest.mark.parametrize("cut", [0, 10, 500])
def test_a_damaged_file_is_refused(baseline, cut):
    """Whatever is left of it."""
    with pytest.raises(LoadError, match="baseline"):
        decode(encode(baseline)[:cut])


def test_a_feature_that_is_not_finite_gives_no_number(baseline):
    """NaN, which is an alarm."""
    block = draw(baseline.block)
    block[3, 4] = np.inf
    assert np.isnan(Meter(baseline).distance(block))


@pytest.mark.parametrize("shift", [0.0, 0.3], ids=["near", "far"])
def test_fresh_blocks_vary_no_more_than_foretold(shift):
    """On average over sets of fakes: near the reals by squares, blocks of a sixth of them; far off, of a twelfth."""
    reals, fakes, foretold = draw(REALS, seed=1), 12_000, []
    for seed in range(8):
        samples = draw(fakes, shift=shift, seed=30 + seed)
        made = make_baseline(samples, reals, frechet(samples, reals), extractor=Eye(), extractor_name="eye")
        foretold.append(made.block_deviation**2)
    meter = Meter(made)
    fresh = np.var([meter.distance(draw(made.block, shift=shift, seed=5000 + i)) for i in range(400)])
    assert 0.55 < fresh / np.mean(foretold) < 1.1


def test_too_few_samples_give_no_baseline():
    """Nor do samples that are all the same."""
    reals = draw(100)
    few, same = draw(15), np.zeros((100, DIM), np.float32)
    for fakes in (few, same):
        distance = frechet(fakes, reals)
        assert make_baseline(fakes, reals, distance, extractor=Eye(), extractor_name="eye") is None
