"""Training an extractor: a classifier that learns, exported to ONNX with its accuracy in the manifest."""

import numpy as np
import onnxruntime
import pytest
import torch

from models.datasets import load_dataset
from models.errors import DataError, Invalid
from models.extractors import make_extractor
from trainer.extractor import FeatureNet, export, shift, train_extractor
from trainer.turning import all_turns, turned


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


def test_a_trained_extractor_recognises_its_classes(tmp_path):
    """Six epochs on stripes: above 90 % on the validation split, as the manifest says, from the ONNX file."""
    data = load_dataset(str(write_stripes(tmp_path / "stripes.npz")))
    extractor = make_extractor(*train_extractor(data, "stripes", epochs=6), threads=1)
    assert extractor.name == "stripes"
    assert extractor.classes == ("rows", "columns")
    assert (extractor.manifest.task, extractor.manifest.data_hash) == ("classes", data.content_hash)
    assert extractor.manifest.accuracy > 0.9
    assert (extractor.classify(data.samples) == data.labels).mean() > 0.9


def test_without_labels_it_learns_to_tell_turns(tmp_path):
    """Images lit from above, 14 x 12: above 90 % of the held-out images' four turns told, and features alone."""
    random = np.random.RandomState(0)
    light = np.linspace(200, 50, 14)[None, :, None]
    np.savez(tmp_path / "lit.npz", images=(light + random.randint(0, 50, (1500, 14, 12))).astype(np.uint8))
    data = load_dataset(str(tmp_path / "lit.npz"))
    extractor = make_extractor(*train_extractor(data, "lit", epochs=6), threads=1)
    assert extractor.manifest.task == "rotation"
    assert extractor.manifest.accuracy > 0.9
    assert extractor.classes is None
    assert extractor.extract(data.samples[:3]).features.shape == (3, 128)


def test_turned_images_are_squares_turned_by_quarters():
    """Each is a square cut from its image, turned back it is found there; every turn comes as often."""
    images = np.random.RandomState(0).randint(0, 256, (20, 9, 7, 3), np.uint8)
    made, turns = turned(images, np.random.RandomState(1))
    assert made.shape == (20, 7, 7, 3)
    assert np.bincount(turns).tolist() == [5, 5, 5, 5]
    for image, square, quarters in zip(images, made, turns, strict=True):
        upright = np.rot90(square, -quarters)
        assert any((image[top : top + 7] == upright).all() for top in range(3))
    made, turns = all_turns(images)
    assert (made[turns == 0] == images[:, 1:8]).all()
    assert (made[turns == 1] == np.rot90(images[:, 1:8], axes=(1, 2))).all()


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


def test_data_that_cannot_be_learnt_from_are_refused(tmp_path):
    """No labels for classes, vectors, and images too small to be told turned: the error says what to use instead."""
    bare = load_dataset(str(write_stripes(tmp_path / "bare.npz", labelled=False)))
    with pytest.raises(DataError, match="--task rotation"):
        train_extractor(bare, "bare", task="classes")
    np.savez(tmp_path / "vectors.npz", samples=np.zeros((30, 2), np.float32))
    with pytest.raises(DataError, match="vectors"):
        train_extractor(load_dataset(str(tmp_path / "vectors.npz")), "vectors")
    np.savez(tmp_path / "thin.npz", images=np.zeros((30, 20, 7), np.uint8))
    with pytest.raises(DataError, match="8 pixels"):
        train_extractor(load_dataset(str(tmp_path / "thin.npz")), "thin")


def test_no_epochs_are_refused(tmp_path):
    """At least one pass is needed."""
    with pytest.raises(Invalid, match="at least 1"):
        train_extractor(load_dataset(str(write_stripes(tmp_path / "stripes.npz"))), "stripes", epochs=0)
