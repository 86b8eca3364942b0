"""Stacked MNIST: made of digits without mixing splits, and its modes counted as published."""

from pathlib import Path

import numpy as np
import pytest

from models.datasets import load_dataset
from models.splits import by_position
from models.stacked import NUM_SAMPLES, modes_covered, stack

MNIST = Path(__file__).parents[3] / "shared" / "data" / "mnist"


def digits(count: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """Images [N, 2, 2, 1] whose first pixel is their number's place, and second their digit."""
    labels = np.arange(count) % 10
    images = np.zeros((count, 2, 2, 1), np.uint8)
    images[:, 0, 0, 0] = np.arange(count) // 2
    images[:, 0, 1, 0] = labels
    return images, labels


def read_digit(images: np.ndarray) -> np.ndarray:
    return images[:, 0, 1, 0].astype(np.int64)


def test_stacks_are_three_digits_of_their_own_split() -> None:
    """128,000 stacks to train on, 10,000 and 26,000: channels are digits, no digit is in two splits, twice the same."""
    images, labels = digits()
    splits = by_position(200, 40, 60)
    stacks, modes, stacked = stack(images, labels, splits)
    assert {name: len(indices) for name, indices in stacked.items()} == {
        "train": 128_000,
        "validation": 10_000,
        "gate": 26_000,
    }
    for name, indices in stacked.items():
        places = np.unique(stacks[indices][:, 0, 0])
        assert set(places.tolist()) == set((splits[name] // 2).tolist())
    np.testing.assert_array_equal(modes, stacks[:, 0, 1].astype(int) @ [100, 10, 1])
    np.testing.assert_array_equal(stack(images, labels, splits)[0], stacks)


def test_real_stacks_cover_all_modes() -> None:
    """1000 of 1000, and a KL of 999 / (2 N) within 4 standard errors; half the modes have a KL of log 2 more."""
    images, labels = digits()
    stacks, modes, stacked = stack(images, labels, by_position(200, 40, 60))
    gate = stacks[stacked["gate"]]
    found = modes_covered(gate, read_digit)
    assert (found.modes, found.num_samples) == (1000, NUM_SAMPLES)
    assert found.kl == pytest.approx(999 / (2 * NUM_SAMPLES), abs=4 * np.sqrt(999 / 2) / NUM_SAMPLES)
    half = modes_covered(gate[modes[stacked["gate"]] < 500], read_digit)
    assert half.modes == 500
    assert half.kl == pytest.approx(np.log(2) + 499 / NUM_SAMPLES, abs=0.01)


def test_a_collapsed_generator_has_one_mode() -> None:
    """And the largest KL, log 1000."""
    images, labels = digits()
    stacks, _, _ = stack(images, labels, by_position(200, 40, 60))
    found = modes_covered(np.repeat(stacks[:1], 100, axis=0), read_digit)
    assert (found.modes, found.kl) == (1, pytest.approx(np.log(1000)))


@pytest.mark.skipif(not MNIST.is_dir(), reason="no MNIST files beside the repository")
def test_stacked_mnist_is_built_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its name, 28 x 28 in colour and without labels; its channels are MNIST's own images, its licence MNIST's."""
    monkeypatch.setenv("GENSERVE_DATA", str(tmp_path))
    (tmp_path / "mnist").symlink_to(MNIST)
    data = load_dataset("stacked-mnist")
    assert (data.shape, data.labels, data.licence) == ((28, 28, 3), None, "CC-BY-SA-3.0")
    single = load_dataset("mnist")
    known = {image.tobytes() for image in single.split("gate").samples}
    assert all(image[..., c].tobytes() in known for image in data.split("gate").samples[:200] for c in range(3))
