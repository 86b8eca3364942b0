"""Training an extractor: a classifier that learns, exported to ONNX with its accuracy in the manifest."""

import argparse

import numpy as np
import onnxruntime
import pytest
import torch

from models.errors import DataError, Invalid
from models.extractors import open_extractor
from trainer.extractor import FeatureNet, export, shift, train_extractor
from trainer.extractor_arguments import add_extractor_arguments


def arguments(*given):
    parser = argparse.ArgumentParser()
    add_extractor_arguments(parser)
    return parser.parse_args([*map(str, given)])


def write_stripes(path, count=700, labelled=True):
    """Noisy 12 x 12 images of horizontal or vertical stripes."""
    random = np.random.RandomState(0)
    labels = random.randint(0, 2, count)
    rows, columns = np.indices((12, 12))
    stripes = np.where(labels[:, None, None] == 0, rows // 2 % 2, columns // 2 % 2) * 120
    images = (stripes + random.randint(0, 60, (count, 12, 12))).astype(np.uint8)
    named = {"labels": labels, "class_names": np.array(["rows", "columns"])} if labelled else {}
    np.savez(path, images=images, **named)
    return path


def test_a_trained_extractor_recognises_its_classes(tmp_path, capsys):
    """Six epochs on stripes: above 90 % on the validation split, as the manifest says, from the ONNX file."""
    data = write_stripes(tmp_path / "stripes.npz")
    assert train_extractor(arguments(data, "--name", "stripes", "-o", tmp_path / "out", "--epochs", 6)) == 0
    extractor = open_extractor(tmp_path / "out", threads=1)
    assert extractor.name == "stripes"
    assert extractor.classes == ("rows", "columns")
    assert extractor.manifest.accuracy > 0.9
    assert "validation split" in capsys.readouterr().out
    with np.load(data) as archive:
        images, labels = archive["images"][..., None], archive["labels"]
    assert (extractor.classify(images) == labels).mean() > 0.9


def test_the_exported_graph_is_the_network(tmp_path):
    """ONNX Runtime gives torch's features and logits to 1e-4, at several batch sizes and image sizes."""
    torch.manual_seed(0)
    network = FeatureNet((12, 12, 1), 3).fold()
    model = export(network, (12, 12, 1)).SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    for shape in ((1, 12, 12, 1), (2, 12, 12, 1), (5, 16, 14, 1)):
        images = np.random.RandomState(0).randint(0, 256, shape, np.uint8)
        with torch.inference_mode():
            expected = network(torch.from_numpy(images))
        for ours, theirs in zip(session.run(["features", "logits"], {"images": images}), expected, strict=True):
            assert ours == pytest.approx(theirs.numpy(), abs=1e-4)


def test_folding_batchnorm_changes_nothing():
    """The folded network computes what the trained one did in evaluation."""
    torch.manual_seed(0)
    network = FeatureNet((12, 12, 1), 3)
    images = torch.randint(0, 256, (64, 12, 12, 1), dtype=torch.uint8)
    network(images)  # gives the BatchNorms statistics
    with torch.inference_mode():
        before = network.eval()(images)[0]
    with torch.inference_mode():
        after = network.fold()(images)[0]
    assert after.numpy() == pytest.approx(before.numpy(), abs=1e-5)


def test_the_file_names_no_path_of_this_machine():
    """The exporter's stack traces are removed."""
    model = export(FeatureNet((12, 12, 1), 3).fold(), (12, 12, 1))
    assert b"extractor.py" not in model.SerializeToString()


def test_shifts_move_by_whole_pixels():
    """Every shifted image is a window of the image with its border repeated."""
    images = np.random.RandomState(0).randint(0, 256, (20, 9, 7, 3), np.uint8)
    moved = shift(images, np.random.RandomState(1))
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="edge")
    found = {
        next((y, x) for y in range(5) for x in range(5) if (padded[i, y : y + 9, x : x + 7] == moved[i]).all())
        for i in range(20)
    }
    assert len(found) > 5


def test_data_without_labels_and_vectors_are_refused(tmp_path):
    """The error names what to use in their place."""
    with pytest.raises(DataError, match="random-conv"):
        train_extractor(arguments(write_stripes(tmp_path / "bare.npz", labelled=False)))
    np.savez(tmp_path / "vectors.npz", samples=np.zeros((30, 2), np.float32))
    with pytest.raises(DataError, match="vectors"):
        train_extractor(arguments(tmp_path / "vectors.npz"))


def test_no_epochs_are_refused(tmp_path):
    """At least one pass is needed."""
    with pytest.raises(Invalid, match="at least 1"):
        train_extractor(arguments(write_stripes(tmp_path / "stripes.npz"), "--epochs", 0))
