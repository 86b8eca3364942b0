"""`genserve publish` of what the trainer exported: where a version comes from is never lost."""

from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from PIL import Image

from genserve.cli import main
from models.datasets import load_dataset
from models.export_record import ExportRecord, record_path
from models.generator import sha256
from models.repository import Repository
from models.testkit import tiny_model, tiny_signature


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """An empty repository, in a folder with 100 images of the tiny generator's size in data.npz."""
    (tmp_path / "models").mkdir()
    monkeypatch.setenv("GENSERVE_MODELS", str(tmp_path / "models"))
    monkeypatch.chdir(tmp_path)
    np.savez("data.npz", images=np.random.RandomState(0).randint(0, 40, (100, 8, 8, 1)).astype(np.uint8))
    return Repository(tmp_path / "models")


def export(
    path: Path,
    *,
    digest: str | None = None,
    data: str = "data.npz",
    data_hash: str | None = None,
    configuration: dict[str, object] | None = None,
) -> Path:
    """A generator and the record that an export of seed 7 leaves beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tiny_model())
    record = ExportRecord(
        digest=digest or sha256(tiny_model()),
        checkpoint_kimg=2.5,
        chosen_by="a person",
        reason="sharper",
        data=data,
        data_hash=data_hash or load_dataset("data.npz").content_hash,
        licence="MIT",
        seed=7,
        kimg=4.0,
        configuration=configuration or {"lr": 0.1},
        code_version="0.0.1",
    )
    record_path(path).write_bytes(msgspec.json.encode(record))
    return path


@pytest.mark.parametrize("file", ["run/export/model.onnx", "a.onnx"])
def test_an_exported_file_keeps_its_record(repository: Repository, file: str) -> None:
    """Published as a file, it is as well described as when its run is: training, licence, data to be judged against."""
    path = export(Path(file))
    assert main(["publish", str(path), "--name", "file"]) == 0
    provenance = repository.resolve("file@1").manifest().provenance
    assert (provenance.source, provenance.seed, provenance.kimg, provenance.licence) == ("trained", 7, 2.5, "MIT")
    reference = repository.reference("file")
    assert reference is not None
    assert reference.data == str(Path("data.npz").resolve())
    assert repository.history("file")[0].why == "checkpoint chosen by a person: sharper"


def test_a_run_and_its_file_are_published_alike(repository: Repository) -> None:
    """The run's folder and the file in it lead to the same manifest and the same reference."""
    export(Path("run/export/model.onnx"))
    assert main(["publish", "run", "--name", "run"]) == 0
    assert main(["publish", "run/export/model.onnx", "--name", "file"]) == 0
    of_run, of_file = (repository.resolve(f"{name}@1").manifest() for name in ("run", "file"))
    assert of_run.provenance == of_file.provenance
    assert repository.reference("run") == repository.reference("file")


def test_a_run_at_a_resolution_is_judged_at_it(repository: Repository, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder of 12-pixel images that was trained on at 8 is read at 8 again, by publishing and by judging."""
    Path("images").mkdir()
    for i, image in enumerate(np.random.RandomState(0).randint(0, 256, (40, 12, 12), np.uint8)):
        Image.fromarray(image).save(f"images/{i}.png")
    export(
        Path("run/export/model.onnx"),
        data="images",
        configuration={"resolution": 8},
        data_hash=load_dataset("images", resolution=8).content_hash,
    )
    assert main(["publish", "run", "--name", "run"]) == 0
    reference = repository.reference("run")
    assert reference is not None
    assert reference.resolution == 8
    capsys.readouterr()
    assert main(["gate", "run@candidate"]) == 2
    assert "samples, at least 20 are needed" in capsys.readouterr().err


def test_a_record_of_another_file_is_not_this_ones(repository: Repository, capsys: pytest.CaptureFixture[str]) -> None:
    """A file beside it says nothing of this one; in a run's folder, where it must belong to it, it is refused."""
    export(Path("run/export/model.onnx"), digest="0" * 64)
    assert main(["publish", "run/export/model.onnx", "--name", "file"]) == 0
    assert repository.resolve("file@1").manifest().provenance.source == "foreign"
    assert repository.reference("file") is None
    capsys.readouterr()
    assert main(["publish", "run", "--name", "run"]) == 1
    assert "export the run again" in capsys.readouterr().err


def test_data_that_changed_since_training_is_refused(
    repository: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    """The record would be wrong; whoever means the new data names it."""
    export(Path("run/export/model.onnx"), data_hash="0" * 64)
    assert main(["publish", "run", "--name", "a"]) == 1
    assert "has changed since" in capsys.readouterr().err
    assert main(["publish", "run", "--name", "a", "--data", "data.npz"]) == 0


def foreign(classes: int = 0) -> Path:
    """A tiny generator as users bring them: without our signature."""
    model = onnx.load_model_from_string(tiny_model(tiny_signature(classes=classes)))
    del model.metadata_props[:]
    path = Path("foreign.onnx")
    path.write_bytes(model.SerializeToString())
    return path


def test_a_foreign_file_takes_its_classes_from_labelled_data(repository: Repository) -> None:
    """Names and frequencies of the training split; nothing more has to be said."""
    images = np.zeros((100, 8, 8, 1), np.uint8)
    images[:, 0, 0, 0] = np.arange(100)
    np.savez("labelled.npz", images=images, labels=np.arange(100) % 2, class_names=["cat", "dog"])
    assert main(["publish", str(foreign(2)), "--name", "c", "--prior", "normal", "--data", "labelled.npz"]) == 0
    classes = repository.resolve("c@1").manifest().classes
    assert classes is not None
    assert classes.names == ("cat", "dog")
    assert sum(classes.frequencies) == pytest.approx(1)


@pytest.mark.parametrize(
    ("classes", "arguments", "status", "complaint"),
    [
        (3, [], 2, "classes: it takes a class input: say --classes K"),
        (3, ["--classes", "0"], 2, "classes: it takes a class input"),
        (3, ["--classes", "4"], 1, "cannot run it"),
        (0, ["--classes", "3"], 2, "classes: only a foreign file with a class input"),
        (0, ["--extractor", "random-conv"], 2, "extractor: there is nothing to judge"),
        (0, ["--data", "larger.npz"], 1, "data: the generator makes images of 8 x 8 x 1"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(
    repository: Repository,
    capsys: pytest.CaptureFixture[str],
    classes: int,
    arguments: list[str],
    status: int,
    complaint: str,
) -> None:
    """No version, and no reference that would be in the way of the right one."""
    np.savez("larger.npz", images=np.random.RandomState(0).randint(0, 40, (100, 16, 16, 1)).astype(np.uint8))
    assert main(["publish", str(foreign(classes)), "--name", "w", "--prior", "normal", *arguments]) == status
    assert complaint in capsys.readouterr().err
    assert repository.names() == []
    assert repository.reference("w") is None
