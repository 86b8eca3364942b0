"""The ladder: which faults an extractor must rank by their strength, and that blind ones are found out."""

import dataclasses

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from models.datasets import load_dataset
from models.errors import DataError
from models.extractor_manifest import ExtractorManifest
from models.extractors import make_extractor, open_extractor, resolve_extractor
from models.ladder import climb, clusters
from models.report import format_ladder

SPLITS = {"train": (0, 2000), "validation": (2000, 4400), "gate": (4400, 4500)}


@pytest.fixture(scope="module")
def bars(tmp_path_factory):
    """Bars of ten places, widths and brightnesses on mid-grey 12 x 12 images; the place is the class."""
    random = np.random.RandomState(0)
    labels = random.randint(0, 10, 4500)
    columns = np.arange(12)[None, :]
    places, widths = labels[:, None] + random.normal(1, 0.3, (4500, 1)), random.uniform(1, 2, (4500, 1))
    near = np.exp(-(((columns - places) / widths) ** 2))
    images = 90 + random.uniform(40, 100, (4500, 1, 1)) * near[:, None, :] + random.normal(0, 3, (4500, 12, 12))
    path = tmp_path_factory.mktemp("bars") / "bars.npz"
    np.savez(path, images=np.clip(images, 0, 255).astype(np.uint8), labels=labels)
    return in_order(load_dataset(str(path)))


@pytest.fixture(scope="module")
def tried(bars):
    return climb(resolve_extractor("random-conv", bars), bars)


def in_order(dataset):
    return dataclasses.replace(dataset, indices={name: np.arange(*rows) for name, rows in SPLITS.items()})


def brightness_alone():
    """An extractor of one feature, an image's mean value."""
    nodes = [
        helper.make_node("Cast", ["images"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["x", "axes"], ["features"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes, "brightness",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", 12, 12, 1])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", 1])],
        [numpy_helper.from_array(np.array([1, 2]), "axes")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    manifest = ExtractorManifest(name="brightness", dim=1, shape=(12, 12, 1), architecture="mean", seed=0)
    return make_extractor(model, manifest, threads=1)


def unseen(test):
    return {rung.ladder for rung in test.rungs if not rung.seen}


def test_an_extractor_that_sees_every_fault_passes(bars, tried):
    """Random convolutions rank noise, blur, missing classes and copies, each rung above the one before."""
    test = tried
    assert test.passed, format_ladder(test)
    assert (test.num_real, test.num_fake, test.data_hash) == (1200, 1200, bars.content_hash)
    assert abs(test.clean_fd) < 0.02
    assert [rung.ladder for rung in test.rungs] == ["noise"] * 4 + ["blur"] * 3 + ["dropped"] * 3 + ["replay"] * 3
    assert "PASSED" in format_ladder(test)


def test_a_blind_extractor_is_found_out(bars):
    """One that sees brightness alone does not see blur, and the table says so."""
    test = climb(brightness_alone(), bars)
    assert not test.passed
    assert "blur" in unseen(test)
    assert any("blur at sd 0.5 pixels does not rise" in reason for reason in test.reasons)
    assert "FAILED" in format_ladder(test)


def test_copies_of_training_samples_are_counted(tried):
    """A share of copies is found as that share, on top of what honest samples have."""
    for rung, share in zip([rung for rung in tried.rungs if rung.ladder == "replay"], (0.05, 0.1, 0.2), strict=True):
        assert rung.value == pytest.approx(share + tried.clean_replay * (1 - share), abs=0.01)


def test_the_same_data_give_the_same_outcome(bars):
    """Halves, noise, clusters and copies are drawn from fixed seeds."""
    assert climb(brightness_alone(), bars) == climb(brightness_alone(), bars)


def test_without_labels_clusters_are_dropped(bars):
    """Groups by k-means on pixels stand in for classes: most of a cluster of bars is one place or its neighbour."""
    groups = clusters(bars.samples[:1000])
    spread = [np.ptp(np.quantile(bars.labels[:1000][groups == group], (0.1, 0.9))) for group in set(groups)]
    assert len(spread) == 10
    assert np.median(spread) <= 3
    bare = dataclasses.replace(bars, labels=None, class_names=None)
    test = climb(brightness_alone(), bare)
    assert next(rung.strength for rung in test.rungs if rung.ladder == "dropped") == "10% of the clusters"


def test_vectors_have_a_ladder_too(tmp_path):
    """Noise, clusters and copies; there is nothing to blur."""
    np.savez(tmp_path / "v.npz", samples=np.random.RandomState(0).standard_normal((4500, 3)).astype(np.float32))
    vectors = in_order(load_dataset(str(tmp_path / "v.npz")))
    vectors = dataclasses.replace(vectors, indices={**vectors.indices, "validation": np.arange(2000, 2600)})
    test = climb(resolve_extractor(None, vectors), vectors)
    assert {rung.ladder for rung in test.rungs} == {"noise", "dropped", "replay"}
    assert "replay" not in unseen(test)


def test_too_few_samples_are_an_error(bars):
    """Two halves of 50 are the least."""
    few = dataclasses.replace(bars, indices={**bars.indices, "validation": np.arange(99)})
    with pytest.raises(DataError, match="has 99 samples, the ladder needs 100"):
        climb(open_extractor("fashion-cnn"), few)
