"""What is drawn and counted, on real Fashion-MNIST images: classes, classes asked for, pixels."""

import numpy as np
import pytest

from models.datasets import load_dataset
from models.errors import DataError
from models.extractors import Extracted, resolve_extractor
from models.gate import gate
from models.generator import Generator
from models.measures import Parity
from models.measuring import Fakes, draw_fakes, measure, measure_fakes, measure_floor
from models.policy import Policy
from models.reference import RealFeatures
from models.testkit import tiny_model, tiny_signature

POLICY = Policy(num_fake=1000, num_neighbours=200, allow_small=True, max_replay=1.0, max_fd=0.3)
BAG = 8


class Fashion:
    """3,000 images as a data set of their own, seen by the shipped classifier, and 1,200 others as perfect fakes."""

    def __init__(self, folder):
        whole = load_dataset("fashion-mnist")
        self.names = whole.class_names
        path = folder / "fashion.npz"
        np.savez(path, images=whole.samples[:3000], labels=whole.labels[:3000], class_names=np.array(self.names))
        dataset = load_dataset(str(path))
        self.reals = RealFeatures(dataset, resolve_extractor("fashion-cnn", dataset))
        self.samples, self.labels = whole.samples[4000:5200], whole.labels[4000:5200]
        self.extracted = self.reals.extractor.extract(self.samples)
        self.floor = measure_floor(self.reals, "gate", POLICY)

    def fakes(self, kept=slice(None), asked=None):
        extracted = Extracted(self.extracted.features[kept], self.extracted.class_idx[kept])
        return Fakes(extracted, asked, None if asked is None else self.names, self.samples[kept][:200])

    def failures(self, fakes):
        """The measures, and gate and measure of each failed check."""
        measures = measure_fakes(fakes, self.reals, "gate", POLICY).measures
        decision = gate(measures, self.floor, (), POLICY, Parity(ok=True, detail=""))
        return measures, [reason.partition("[")[0] for reason in decision.reasons]


@pytest.fixture(scope="module")
def fashion(tmp_path_factory):
    return Fashion(tmp_path_factory.mktemp("data"))


def test_a_missing_class_is_refused_by_its_share(fashion):
    """Without bags only the share of bags fails; with all classes nothing does."""
    measures, reasons = fashion.failures(fashion.fakes())
    assert reasons == []
    assert sum(measures.class_shares) == pytest.approx(1)
    _, reasons = fashion.failures(fashion.fakes(fashion.labels != BAG))
    assert reasons == ["G4 share of Bag"]


def test_a_class_input_that_is_ignored_is_refused(fashion):
    """Samples of the classes asked for pass; samples of others are recognised and refused."""
    right, reasons = fashion.failures(fashion.fakes(asked=fashion.labels))
    assert reasons == []
    assert right.class_accuracy > 0.85
    wrong, reasons = fashion.failures(fashion.fakes(asked=(fashion.labels + 1) % 10))
    assert reasons == ["G4 class accuracy"]
    assert wrong.class_accuracy < 0.1


def test_classes_that_are_not_the_datas_are_refused(fashion):
    """Classes named otherwise cannot be checked, which is no reason to pass."""
    fakes = fashion.fakes(asked=fashion.labels)._replace(class_names=tuple("0123456789"))
    measures, reasons = fashion.failures(fakes)
    assert measures.conditional
    assert measures.class_accuracy is None
    assert reasons == ["G4 class accuracy"]


def test_the_floor_does_not_depend_on_the_order_of_the_data(tmp_path):
    """A folder of images comes sorted by class: real against real scores the same as on shuffled data."""
    labels = np.sort(np.random.RandomState(0).randint(0, 10, 4000))
    samples = (np.random.RandomState(1).standard_normal((4000, 2)) + labels[:, None] * 20).astype(np.float32)
    floors = []
    for name, order in (("sorted", slice(None)), ("shuffled", np.random.RandomState(2).permutation(4000))):
        np.savez(tmp_path / f"{name}.npz", samples=samples[order], labels=labels[order])
        dataset = load_dataset(str(tmp_path / f"{name}.npz"))
        reals = RealFeatures(dataset, resolve_extractor(None, dataset))
        floors.append(measure_floor(reals, "gate", POLICY).measures.scores)
    assert floors[0].recall > 0.5
    assert floors[0] == pytest.approx(floors[1], abs=0.15)


def test_drawing_keeps_the_first_samples_and_all_features(fashion):
    """Features of every fake, pixels of the first ones, classes where the generator has them."""
    signature = tiny_signature(shape=(28, 28, 1), classes=10)
    generator = Generator.from_bytes(tiny_model(signature))
    fakes = draw_fakes(generator, fashion.reals.extractor, POLICY, salt="s")
    assert fakes.extracted.features.shape == (1000, 128)
    assert fakes.samples.shape == (200, 28, 28, 1)
    assert fashion.reals.extractor.features(fakes.samples) == pytest.approx(fakes.extracted.features[:200], abs=1e-3)
    assert sorted(set(fakes.asked)) == list(range(10))


def test_a_split_of_a_few_samples_is_refused(tmp_path):
    """The error names the split and how many are needed."""
    images = np.random.RandomState(0).randint(0, 256, (60, 8, 8, 1), np.uint8)
    np.savez(tmp_path / "few.npz", images=images)
    dataset = load_dataset(str(tmp_path / "few.npz"))
    reals = RealFeatures(dataset, resolve_extractor(None, dataset))
    with pytest.raises(DataError, match=r"gate split has .* at least 20"):
        measure_floor(reals, "gate", POLICY)
    with pytest.raises(DataError, match="at least 20"):
        measure(Unused(), reals, "gate", POLICY, salt="s")


class Unused:
    """A generator that must not be asked for anything: the data are refused first."""
