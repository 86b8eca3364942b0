"""Copies of training images are found as they are, mirrored and with noise; what follows from reals alone is kept."""

import numpy as np
import pytest

from models.datasets import load_dataset
from models.extractors import resolve_extractor
from models.memorising import find_copies, held_out_distances, pixels
from models.reference import RealFeatures

COUNT = 300


def images(seed, count):
    """Smooth random images that are not like their mirror images: [N, 8, 8, 1]."""
    coarse = np.random.RandomState(seed).randint(0, 256, (count, 4, 4, 1))
    return coarse.repeat(2, 1).repeat(2, 2).astype(np.uint8)


class Reals:
    def __init__(self, folder):
        np.savez(folder / "images.npz", images=images(0, 3000))
        dataset = load_dataset(str(folder / "images.npz"))
        self.reals = RealFeatures(dataset, resolve_extractor(None, dataset), cache=folder / "cache")
        self.train = self.reals.split("train").samples

    def copies(self, fakes):
        return find_copies(fakes, self.reals.extractor.features(fakes), self.reals, "gate", COUNT, None)


@pytest.fixture(scope="module")
def reals(tmp_path_factory):
    return Reals(tmp_path_factory.mktemp("reals"))


@pytest.mark.parametrize("how", ["as they are", "mirrored", "noisy", "mirrored and noisy"])
def test_a_tenth_of_copies_is_found(reals, how):
    """Honest fakes read below 3 % in both spaces; with every tenth a training image in whatever guise, at least 10."""
    honest = images(1, COUNT)
    found = reals.copies(honest)
    assert max(found.replay.share, found.pixel_replay.share) < 0.03
    fakes = honest.copy()
    copied = reals.train[: COUNT // 10]
    fakes[::10] = copied[:, :, ::-1] if "mirrored" in how else copied
    if "noisy" in how:
        noise = np.random.RandomState(2).randint(-4, 5, fakes[::10].shape)
        fakes[::10] = np.clip(fakes[::10].astype(int) + noise, 0, 255).astype(np.uint8)
    found = reals.copies(fakes)
    assert found.pixel_replay.share >= 0.1
    assert found.pixel_replay.upper > 0.1
    if "noisy" not in how:
        assert found.replay.share >= 0.1
        assert found.duplicates == pytest.approx(0.1)


def test_overfitting_turns_with_the_share_of_copies(reals):
    """Honest fakes have an AUC of one half within its interval; copies of half the set are near, and not authentic."""
    honest = images(3, COUNT)
    before = reals.copies(honest).overfitting
    assert before.auc.low <= 0.5 <= before.auc.high
    honest[::2] = reals.train[: COUNT // 2]
    after = reals.copies(honest).overfitting
    assert after.auc.high < 0.35
    assert after.c_t < -3
    assert after.authentic.high < before.authentic.low


def test_held_out_distances_are_made_once(reals, monkeypatch):
    """The second time they are read, the same to the bit."""
    made = held_out_distances(reals.reals, "validation", COUNT)
    monkeypatch.setattr("models.memorising.nearest_distances", None)
    read = held_out_distances(reals.reals, "validation", COUNT)
    assert all((read[key] == made[key]).all() for key in ("plain", "nearer", "pixels"))
    assert (made["nearer"] <= made["plain"]).all()


def test_large_images_are_averaged_down():
    """70 x 66 pixels in blocks of 3 x 3, the rest cut off."""
    image = np.arange(70 * 66).reshape(1, 70, 66, 1).astype(np.float32)
    rows = pixels(image)
    assert rows.shape == (1, 23 * 22)
    assert rows[0, 0] == pytest.approx(image[0, :3, :3].mean())
