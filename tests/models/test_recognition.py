"""What the shipped classifier recognises of faults within classes, on real images."""

import numpy as np
import pytest

from models.datasets import load_dataset
from models.extractors import resolve_extractor
from models.recognition import MAX_DIM, class_shares, worst_class
from models.reference import RealFeatures

SHIRT = 6


class Fashion:
    """6,000 images as a data set of their own, and 2,000 others to make fakes of."""

    def __init__(self, folder):
        whole = load_dataset("fashion-mnist")
        path = folder / "fashion.npz"
        np.savez(path, images=whole.samples[:6000], labels=whole.labels[:6000], class_names=np.array(whole.class_names))
        dataset = load_dataset(str(path))
        self.reals = RealFeatures(dataset, resolve_extractor("fashion-cnn", dataset), cache=folder / "cache")
        self.samples, self.labels = whole.samples[8000:10_000].copy(), whole.labels[8000:10_000]

    def worst(self, samples):
        return worst_class(self.reals.extractor.extract(samples), self.reals, "train")


@pytest.fixture(scope="module")
def fashion(tmp_path_factory):
    return Fashion(tmp_path_factory.mktemp("data"))


def test_the_class_at_fault_is_named(fashion):
    """Without variety in one class, it is named, and its distance stands out from real data's worst class."""
    honest = fashion.worst(fashion.samples)
    samples = fashion.samples.copy()
    shirts = np.flatnonzero(fashion.labels == SHIRT)
    samples[shirts] = samples[shirts[np.arange(len(shirts)) % 5]]
    faulty = fashion.worst(samples)
    assert faulty.name == fashion.reals.dataset.class_names[SHIRT]
    assert faulty.fd_inf > 3 * max(honest.fd_inf, honest.se)
    assert faulty.se < faulty.fd_inf


def test_a_class_without_fakes_cannot_be_measured(fashion):
    """It is the worst, with NaN for its distance, which refuses wherever it is tested."""
    found = fashion.worst(fashion.samples[fashion.labels != 1])  # trousers: no other class looks like them
    assert found.name == fashion.reals.dataset.class_names[1]
    assert np.isnan(found.fd_inf)


def test_wide_features_are_projected(fashion, monkeypatch):
    """Beyond so many dimensions only the reals' leading directions count: part of the distance is kept, never more."""
    darker = (fashion.samples * 0.7).astype(np.uint8)
    whole = fashion.worst(darker)
    monkeypatch.setattr("models.recognition.MAX_DIM", 24)
    part = fashion.worst(darker)
    assert MAX_DIM > 24
    assert 0.3 * whole.fd_inf < part.fd_inf <= 1.05 * whole.fd_inf


def test_other_datas_classes_are_not_known(tmp_path):
    """Neither shares nor a worst class where the labels are others than the extractor's."""
    images = np.random.RandomState(0).randint(0, 256, (200, 28, 28, 1), np.uint8)
    np.savez(tmp_path / "other.npz", images=images, labels=np.arange(200) % 2, class_names=np.array(["a", "b"]))
    dataset = load_dataset(str(tmp_path / "other.npz"))
    reals = RealFeatures(dataset, resolve_extractor("fashion-cnn", dataset))
    extracted = reals.extractor.extract(images)
    assert class_shares(extracted, reals) is None
    assert worst_class(extracted, reals, "train") is None
