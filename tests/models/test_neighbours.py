"""Neighbour measures against their definitions, written out ball by ball."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from models import blocks, neighbours
from models.binomial import share_of
from models.neighbours import (
    exact_duplicates,
    nearest,
    nearest_distances,
    neighbour_scores,
    neighbourhood,
    replay,
    twins,
)


def by_definition(fake, real):
    """Precision, recall, density, coverage by loops over balls."""

    def radius(points, i, k):
        return sorted(np.linalg.norm(points[i] - points[j]) for j in range(len(points)) if j != i)[k - 1]

    def inside(y, points, i, k):
        return np.linalg.norm(points[i] - y) < radius(points, i, k)

    precision = np.mean([any(inside(y, real, i, 3) for i in range(len(real))) for y in fake])
    recall = np.mean([any(inside(x, fake, j, 3) for j in range(len(fake))) for x in real])
    density = sum(inside(y, real, i, 5) for y in fake for i in range(len(real))) / (5 * len(fake))
    coverage = np.mean([any(inside(y, real, i, 5) for y in fake) for i in range(len(real))])
    return precision, recall, density, coverage


def points(seed, n, shift=0.0):
    return np.random.RandomState(seed).standard_normal((n, 3)) + shift


@pytest.mark.parametrize("block_bytes", [1, 64 << 20])
def test_scores_agree_with_their_definitions(monkeypatch, block_bytes):
    """All four scores equal loops over balls, whatever the size of a block."""
    monkeypatch.setattr(blocks, "BLOCK_BYTES", block_bytes)
    fake, real = points(1, 14, 0.8), points(2, 17)
    scores = neighbour_scores(fake, real)
    assert scores == pytest.approx(by_definition(fake, real), abs=1e-12)
    assert 0 < scores.precision < 1


def test_mode_collapse_shows_in_recall_and_coverage_alone():
    """Fakes in a corner of the reals are precise, but recall and coverage fall."""
    real = points(0, 400)
    scores = neighbour_scores(points(1, 400) * 0.1, real)
    assert scores.precision > 0.95
    assert scores.recall < 0.2
    assert scores.coverage < 0.4


def test_too_few_samples_are_refused():
    """A fifth neighbour needs six samples."""
    with pytest.raises(ValueError, match="more than 5"):
        neighbour_scores(points(0, 5), points(1, 10))


@pytest.mark.parametrize("base_rows", [7, 8192])
def test_nearest_distances_agree_with_all_distances(monkeypatch, base_rows):
    """Block by block the nearest is found, its distance to float64; a copy with no near-equal neighbour is at 0."""
    monkeypatch.setattr(neighbours, "BASE_ROWS", base_rows)
    base = points(0, 50, shift=200.0)
    queries = np.concatenate([points(1, 20, shift=200.0), base[[3, 49]]])
    distances = nearest_distances(queries, base)
    assert distances[:20] == pytest.approx(cdist(queries[:20], base).min(1), rel=1e-6)
    assert (distances[20:] == 0).all()


def test_replayed_samples_are_counted():
    """Honest fakes read about 0.5 %; with every tenth a training sample the share is at least 10 %."""
    train, held_out, fake = points(0, 3000), points(1, 2000), points(2, 2000)
    limit = nearest_distances(held_out, train)
    assert replay(nearest_distances(fake, train), limit).upper < 0.02
    fake[::10] = train[:200]
    found = replay(nearest_distances(fake, train), limit)
    assert 0.10 <= found.share < found.upper


def test_replay_is_seen_where_reals_repeat_themselves():
    """Where held-out samples are copies of training ones the limit is 0, and copies still count."""
    found = replay(np.array([0.0, 1.0, 2.0, 3.0]), np.zeros(100))
    assert (found.share, found.distance) == (0.25, 0.0)


def test_exact_duplicates_are_counted_by_content():
    """Only byte-equal samples count."""
    train = np.arange(60, dtype=np.uint8).reshape(5, 2, 2, 3)
    fake = np.concatenate([train[:1], train[:3] + np.uint8(100)])
    assert list(exact_duplicates(fake, train)) == [True, False, False, False]


def test_each_sample_finds_its_nearest_other():
    """A set against itself, each row left out for its own query, agrees with all distances; rows are named too."""
    x = points(0, 60)
    apart = cdist(x, x) + np.diag(np.full(60, np.inf))
    found = nearest(x, x, besides=np.arange(60))
    assert found.distances == pytest.approx(apart.min(1), rel=1e-6)
    assert (found.rows == apart.argmin(1)).all()


def test_near_duplicates_of_honest_fakes_are_as_rare_as_reals():
    """Half a percent of either, within the binomial interval; all of them where 50 images come again and again."""
    real, honest = points(0, 4000), points(1, 4000)
    share = neighbourhood(honest, real).twins
    assert share.low <= 0.005 <= share.high
    assert share.value < 0.01
    repeated = honest[np.random.RandomState(2).randint(0, 50, 1000)]
    assert neighbourhood(repeated + 1e-6 * points(3, 1000), real[:1000]).twins.value > 0.99


def test_near_duplicates_count_pairs():
    """Two fakes that are each other's twin are one finding: the interval is that of half as many trials."""
    nearest_other = np.concatenate([np.zeros(40), np.ones(960)])
    share = twins(nearest_other, np.linspace(0.5, 2, 1000))
    assert share.value == 0.04
    assert share[1:] == pytest.approx(share_of(20, 500)[1:])


def test_float32_decides_as_float64():
    """On wide features far from 0 the scores are those of float64 distances, to one sample in a thousand."""
    random = np.random.RandomState(0)
    spread = np.arange(1, 301) ** -0.8
    fake, real = (random.standard_normal((500, 300)) * spread * scale + 7 for scale in (0.9, 1.0))
    gaps, among, own = cdist(fake, real), cdist(real, real), cdist(fake, fake)
    real_3, real_5 = np.sort(among)[:, [3, 5]].T
    expected = (
        (gaps < real_3).any(1).mean(), (gaps < np.sort(own)[:, [3]]).any(0).mean(),
        (gaps < real_5).sum() / (5 * 500), (gaps < real_5).any(0).mean(),
    )  # fmt: skip
    assert neighbour_scores(fake, real) == pytest.approx(expected, abs=0.001)
