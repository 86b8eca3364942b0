"""Extractors: digests, labels, what they take, and which one is the default."""

from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from scipy.ndimage import gaussian_filter

from models import batches, random_features
from models.datasets import load_dataset
from models.errors import DataError, LoadError, NotFound, Unavailable
from models.extractor_manifest import ExtractorManifest
from models.extractor_store import SHIPPED
from models.extractors import (
    default_extractor,
    make_extractor,
    open_extractor,
    resolve_extractor,
    write_extractor,
)
from models.frechet import frechet_distance, moments
from tests.models.realdata import write_blobs


def images(n=5, shape=(12, 10, 3), seed=0):
    return np.random.RandomState(seed).randint(0, 256, (n, *shape), np.uint8)


def random_conv(shape=(12, 10, 3)):
    manifest = ExtractorManifest(
        name="random-conv", dim=random_features.CONV_DIM, shape=shape, architecture="random", seed=0
    )
    return make_extractor(random_features.convolutional(shape), manifest, threads=1)


@pytest.mark.parametrize(("name", "accuracy"), [("fashion-cnn", 0.92), ("mnist-cnn", 0.99)])
def test_the_shipped_ones_recognise_their_data(name, accuracy):
    """Each names its share of its validation split, fits in 2 MB and takes 28 and 32 pixels."""
    extractor = open_extractor(name, threads=1)
    assert extractor.manifest.accuracy >= accuracy
    assert (SHIPPED / name / "model.onnx").stat().st_size < 2_000_000
    for extent in (28, 32):
        found = extractor.extract(images(3, (extent, extent, 1)))
        assert found.features.shape == (3, 128)
        assert found.class_idx.shape == (3,)
    with pytest.raises(DataError, match="any x any x 1"):
        extractor.features(images(1, (28, 28, 3)))


def test_the_shipped_one_measures_what_its_manifest_says():
    """Its accuracy on the first 500 validation images is within sampling error of the manifest's."""
    split = load_dataset("fashion-mnist").split("validation")
    extractor = open_extractor("fashion-cnn", threads=1)
    right = (extractor.classify(split.samples[:500]) == split.labels[:500]).mean()
    assert right == pytest.approx(extractor.manifest.accuracy, abs=4 * np.sqrt(0.93 * 0.07 / 500))


def test_batches_do_not_change_features(monkeypatch):
    """Features are the same to float32 rounding whatever the batch, and progress counts every sample."""
    extractor, seen = random_conv(), []
    whole = extractor.extract(images(7)).features
    monkeypatch.setattr(batches, "BATCH_SIZE", 2)
    pieces = extractor.extract(images(7), seen.append).features
    assert whole == pytest.approx(pieces, rel=1e-4, abs=1e-5)
    assert seen == [2, 2, 2, 1]


def test_random_convolutions_are_what_their_definition_says():
    """The first stage's features equal the convolution computed by hand in float64."""
    model = random_features.convolutional((6, 6, 1))
    weights = {t.name: onnx.numpy_helper.to_array(t).astype(np.float64) for t in model.graph.initializer}
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    weight, bias = weights[conv.input[1]], weights[conv.input[2]]
    image = images(1, (6, 6, 1))
    padded = np.pad(image[0, :, :, 0] / 127.5 - 1, 1)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3))
    by_hand = np.maximum(np.einsum("yxij,oij->oyx", windows, weight[:, 0]) + bias[:, None, None], 0).mean((1, 2))
    assert random_conv((6, 6, 1)).features(image)[0, :32] == pytest.approx(by_hand, rel=1e-4)


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 1), (8, 8, 3), (28, 28, 1), (40, 64, 3)])
def test_random_convolutions_take_any_shape(shape):
    """224 finite features, and another shape is refused."""
    extractor = random_conv(shape)
    assert extractor.features(images(2, shape)).shape == (2, 224)
    with pytest.raises(DataError, match="not images of"):
        extractor.features(images(2, (shape[0] + 1, *shape[1:])))


def test_random_weights_never_change():
    """The digest of random-conv for 28 x 28 grey images is frozen: stored verdicts name it."""
    assert random_conv((28, 28, 1)).digest == random_conv((28, 28, 1)).digest
    assert random_conv((28, 28, 1)).label == "random-conv@0886"


def test_random_convolutions_rank_a_ladder_of_faults():
    """On Fashion-MNIST noise, blur and a missing class are each further from the reals than other reals are."""
    split = load_dataset("fashion-mnist").split("validation")
    real, other, labels = split.samples[:1500], split.samples[1500:3000], split.labels[1500:3000]
    noise = np.random.RandomState(0).normal(0, 20, other.shape)
    extractor = random_conv((28, 28, 1))
    reals = moments(extractor.features(real))

    def distance(samples):
        return frechet_distance(moments(extractor.features(samples.round().astype(np.uint8))), reals)

    honest = distance(other)
    assert distance(other[labels != 3]) > 1.5 * honest
    assert distance(np.clip(other + noise, 0, 255)) > 20 * honest
    assert distance(gaussian_filter(other.astype(float), (0, 0.8, 0.8, 0))) > 20 * honest


def test_fourier_features_see_what_two_moments_do_not():
    """A ring and the Gaussian with its moments have features whose means differ by far more than chance."""
    random = np.random.RandomState(0)
    angle = random.uniform(0, 2 * np.pi, 4000)
    ring = np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32)
    blob = (random.standard_normal((4000, 2)) * ring.std(0)).astype(np.float32)
    manifest = ExtractorManifest(name="rff", kind="vector", dim=256, shape=(2,), architecture="random", seed=0)
    extractor = make_extractor(random_features.fourier(ring), manifest, threads=1)

    def gap(a, b):
        return ((extractor.features(a).mean(0) - extractor.features(b).mean(0)) ** 2).sum()

    assert gap(ring[:2000], blob[:2000]) > 20 * gap(ring[:2000], ring[2000:])


def test_the_default_suits_the_data(tmp_path):
    """Random features for any data set; the shipped classifier only for the very data that it was trained on."""
    blobs = load_dataset(str(write_blobs(tmp_path / "blobs.npz")))
    assert default_extractor(blobs) == "random-conv"
    assert resolve_extractor(None, blobs).name == "random-conv"
    np.savez(tmp_path / "vectors.npz", samples=np.random.RandomState(0).standard_normal((50, 3)).astype(np.float32))
    vectors = load_dataset(str(tmp_path / "vectors.npz"))
    assert resolve_extractor(None, vectors).name == "random-fourier"
    assert default_extractor(load_dataset("fashion-mnist")) == "fashion-cnn"
    assert resolve_extractor("fashion-cnn", blobs).name == "fashion-cnn"
    with pytest.raises(DataError, match="not vectors"):
        resolve_extractor("fashion-cnn", vectors)


def test_mnist_is_seen_by_the_classifier_trained_on_it():
    """The default for MNIST is mnist-cnn, which names its first 500 validation images as its manifest says."""
    try:
        dataset = load_dataset("mnist")
    except Unavailable as error:
        pytest.skip(str(error))
    split, extractor = dataset.split("validation"), resolve_extractor(None, dataset)
    assert extractor.name == "mnist-cnn"
    assert (extractor.classify(split.samples[:500]) == split.labels[:500]).mean() > 0.98


def test_an_unknown_extractor_lists_the_known_ones(tmp_path):
    """The error names what is shipped."""
    with pytest.raises(NotFound, match="fashion-cnn, mnist-cnn, random-conv"):
        open_extractor("inception")


def test_a_written_extractor_opens_by_its_folder_and_refuses_changes(tmp_path):
    """What is written is read again; a changed byte or manifest is refused."""
    original = random_conv()
    model = random_features.convolutional((12, 10, 3))
    folder = write_extractor(tmp_path / "mine", model, msgspec.structs.replace(original.manifest, digest=""))
    assert open_extractor(folder, threads=1).digest == open_extractor(folder / "model.onnx", threads=1).digest
    data = bytearray((folder / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    Path(folder / "model.onnx").write_bytes(data)
    with pytest.raises(LoadError, match="sha256"):
        open_extractor(folder)
    (folder / "manifest.json").write_text("{}")
    with pytest.raises(LoadError, match="damaged"):
        open_extractor(folder)


def test_features_that_are_not_finite_are_refused():
    """A network that divides by zero gives an error, not a distance."""
    manifest = ExtractorManifest(name="rff", kind="vector", dim=256, shape=(1,), architecture="random", seed=0)
    extractor = make_extractor(random_features.fourier(np.zeros((3, 1), np.float32)), manifest, threads=1)
    with pytest.raises(DataError, match="not finite"):
        extractor.features(np.full((2, 1), np.inf, np.float32))
