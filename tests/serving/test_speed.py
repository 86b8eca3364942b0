"""The estimate of an engine's speed, alone."""

import random

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from serving.speed import Speed


def taught(overhead, per_image, sizes, *, prior=None, noise=0.0, seed=0):
    """A speed that has seen batches of these sizes on an engine that follows a line."""
    speed, random_ = prior or Speed(), random.Random(seed)
    for images in sizes:
        speed.observe(images, (overhead + per_image * images) * random_.uniform(1 - noise, 1 + noise))
    return speed


@pytest.mark.parametrize(("overhead", "per_image"), [(0.0002, 0.0003), (0.0, 0.004), (0.003, 0.00005), (0.05, 0.2)])
def test_a_line_is_found(overhead, per_image):
    """Within 5 % at every size, whatever was assumed, with 10 % of noise and batches of mixed sizes."""
    speed = taught(overhead, per_image, [1, 16, 3, 7, 2, 12, 5, 1, 9] * 20, noise=0.1)
    for images in (1, 4, 16):
        assert speed.seconds(images) == pytest.approx(overhead + per_image * images, rel=0.05)


def test_where_all_batches_have_one_size_the_shape_is_kept():
    """The engine is half as fast as measured at load, and only batches of 16 run: a single image is slower too."""
    speed = taught(0.002, 0.001, [16] * 100, prior=Speed(0.001, 0.0005))
    assert speed.seconds(16) == pytest.approx(0.018, rel=0.01)
    assert speed.seconds(1) == pytest.approx(0.003, rel=0.05)


def test_a_stall_poisons_nothing():
    """One batch that took ten times as long moves the estimate by less than 10 %, and is forgotten."""
    speed = taught(0.0002, 0.0003, [1, 8, 4, 16] * 20)
    before = speed.seconds(8)
    speed.observe(8, 10 * before)
    assert before <= speed.seconds(8) < 1.1 * before
    taught(0.0002, 0.0003, [1, 8, 4, 16] * 20, prior=speed)
    assert speed.seconds(8) == pytest.approx(before, rel=0.01)


def test_a_machine_that_became_slower_is_followed():
    """Ten times slower for good: within 5 % after 100 batches."""
    speed = taught(0.0002, 0.0003, [1, 8, 4, 16] * 20)
    taught(0.002, 0.003, [1, 8, 4, 16] * 25, prior=speed)
    assert speed.seconds(8) == pytest.approx(0.026, rel=0.05)


def test_an_assumption_goes_with_the_first_batch():
    """A measurement at load does not."""
    assert taught(0, 0.1, [4]).seconds(4) == pytest.approx(0.4)
    assert taught(0, 0.1, [4], prior=Speed(0.0, 0.001)).seconds(4) < 0.01


def test_two_times_at_load_make_a_line():
    """A batch of 1 and one of 8; noise that would make an image cost nothing, or the first one less, is bent."""
    speed = Speed.measured(0.001, 8, 0.0045)
    assert (speed.overhead, speed.per_image) == (pytest.approx(0.0005), pytest.approx(0.0005))
    assert Speed.measured(0.002, 8, 0.0015).per_image > 0
    assert Speed.measured(0.001, 8, 0.016).overhead == 0


@pytest.mark.parametrize(
    ("overhead", "per_image", "chunk"),
    [
        (0.0, 0.0038, 2),  # two single images' time, to the last bit of the float
        (0.0, 0.3, 2),
        (0.0001, 0.0003, 16),  # 5 ms: 4.9 / 0.3
        (0.006, 0.0001, 62),  # 12.2 ms
    ],
)
def test_a_chunk_takes_two_single_images_time_or_five_milliseconds(overhead, per_image, chunk):
    """Whichever is more."""
    assert Speed(overhead, per_image).chunk == chunk


def test_the_fastest_time_uses_all_engines():
    """Nine images on two engines are five on one, in chunks of two; or one, where batches are no larger."""
    speed = Speed(0.001, 0.004)
    assert speed.fastest(9, 2, 16) == pytest.approx(0.023)
    assert speed.fastest(9, 2, 1) == pytest.approx(0.025)
    assert speed.fastest(1, 2, 16) == pytest.approx(0.005)


def test_doubt_ends():
    """An estimate that refuses everything shrinks until something is tried, and what is tried is learned again."""
    speed = taught(0.0, 1.0, [1] * 50)
    for _ in range(20):
        speed.doubt(0.2)
    assert speed.seconds(1) < 0.13
    taught(0.0, 0.12, [1], prior=speed)
    assert speed.seconds(1) < 0.13
    taught(0.0, 1.0, [1] * 100, prior=speed)
    assert speed.seconds(1) > 0.9


def test_who_doubts_without_reason_is_soon_found_out():
    """Ten thousand refusals leave hundredths of what was measured, and chunks as they were. A batch mends it."""
    speed = taught(0.001, 0.001, [1, 8] * 20)
    before, chunk = speed.seconds(8), speed.chunk
    for _ in range(10_000):
        speed.doubt(0.5)
    assert before / 65 < speed.seconds(8) < before / 30
    assert speed.chunk == chunk
    speed.observe(8, before)
    assert speed.seconds(8) == pytest.approx(before, rel=0.1)


@pytest.mark.parametrize("share", [-1.0, 0.0, 1e-9, 0.01])
def test_the_impossible_makes_nobody_doubt(share):
    """Work that has a hundredth of the time, or none, would be refused by any sensible estimate."""
    speed = taught(0.001, 0.001, [1, 8] * 20)
    before = speed.seconds(8)
    for _ in range(100):
        speed.doubt(share)
    assert speed.seconds(8) == before


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.one_of(st.none(), st.floats(0, 1)),
    st.floats(1e-6, 1),
    st.lists(st.tuples(st.integers(1, 64), st.floats(1e-6, 100), st.integers(0, 2)), max_size=60),
)
@example(0.0, 1e-6, [(64, 100.0, 0)] * 30 + [(1, 1e-6, 0)] * 30)
@example(None, 1e-6, [(1, 1e-6, 2000)] * 3)
def test_whatever_was_seen_the_line_makes_sense(overhead, per_image, seen):
    """No batch costs less for having more images, none costs nothing, and a chunk is as long as promised.

    However much it was doubted in between.
    """
    speed = Speed(overhead, per_image)
    for images, seconds, doubts in seen:
        for _ in range(doubts):
            speed.doubt(0.5)
        speed.observe(images, seconds)
        assert speed.overhead >= 0
        assert speed.per_image > 0
        assert speed.chunk >= 1
        bound = max(2 * speed.seconds(1), 0.005) * (1 + 1e-6)
        assert speed.chunk == 1 or speed.seconds(speed.chunk) <= bound < speed.seconds(speed.chunk + 1) * (1 + 1e-5)
