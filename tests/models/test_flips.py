"""Mirrored training images: which, and that it never depends on how the run was cut into batches."""

import numpy as np

from models.flips import flip_half, mirrored


def images(count: int) -> np.ndarray:
    return np.random.RandomState(0).randint(0, 256, (count, 4, 6, 3), dtype=np.uint8)


def flips(count: int, seed: int = 0, position: int = 0) -> np.ndarray:
    """Which of so many showings are mirrored."""
    shown = np.tile(np.arange(2, dtype=np.uint8), (count, 1))[:, None, :, None]
    return flip_half(shown, seed=seed, position=position)[:, 0, 0, 0] == 1


def test_mirrored_twice_is_the_image() -> None:
    """Columns are exchanged, rows and channels are not."""
    x = images(3)
    np.testing.assert_array_equal(mirrored(x)[:, :, 0], x[:, :, -1])
    np.testing.assert_array_equal(mirrored(mirrored(x)), x)


def test_half_of_a_batch_is_mirrored_and_the_rest_is_as_it_was() -> None:
    """Each image is itself or its mirror image; the batch that was given stays."""
    x = images(64)
    before = x.copy()
    y = flip_half(x, seed=3, position=1000)
    changed = flips(64, 3, 1000)
    np.testing.assert_array_equal(y[changed], mirrored(x[changed]))
    np.testing.assert_array_equal(y[~changed], x[~changed])
    np.testing.assert_array_equal(x, before)


def test_about_half_in_no_pattern() -> None:
    """Of 100,000 showings half within 4 standard deviations; neighbours, and other seeds, agree half the time."""
    chosen, other = flips(100_000), flips(100_000, seed=1)
    limit = 4 * 0.5 / np.sqrt(100_000)
    assert abs(chosen.mean() - 0.5) < limit
    for lag in (1, 2, 64, 1000):
        assert abs((chosen[lag:] == chosen[:-lag]).mean() - 0.5) < limit
    assert abs((chosen == other).mean() - 0.5) < limit


def test_batches_of_any_size_and_resumed_runs_agree() -> None:
    """A showing is mirrored or not by its position alone."""
    whole = flips(1000, seed=2**32 - 1, position=7)
    parts = [flips(size, 2**32 - 1, 7 + start) for start, size in ((0, 64), (64, 436), (500, 500))]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
