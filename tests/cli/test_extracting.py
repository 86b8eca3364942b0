"""`genserve extractor`: made, tried on the ladder, set aside or kept, listed, and found by what is published."""

import json
from pathlib import Path

import numpy as np
import pytest

from genserve.cli import main
from models.repository import Repository
from models.testkit import promoted_repository, tiny_model


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """A repository with a promoted tiny generator, which GENSERVE_MODELS points to."""
    repository = promoted_repository(tmp_path / "models")
    monkeypatch.setenv("GENSERVE_MODELS", str(repository.root))
    monkeypatch.setenv("GENSERVE_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return repository


def write_images(count: int) -> str:
    """Grey 8 x 8 noise, lit from above: few of them, so that faint faults are lost in the error."""
    light = np.linspace(150, 50, 8)[None, :, None]
    images = (light + np.random.RandomState(0).randint(0, 100, (count, 8, 8))).astype(np.uint8)
    np.savez("lit.npz", images=images)
    return "lit.npz"


def test_one_that_fails_is_set_aside_and_taken_for_a_reason(
    repository: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    """Refused with what it did not see; accepted it has its place, its reason, and a model that refers to it."""
    data = write_images(1300)
    assert main(["extractor", "train", data, "--name", "lit", "--epochs", "1"]) == 1
    told = capsys.readouterr()
    assert "FAILED" in told.out
    assert "kept aside" in told.err
    (aside,) = (repository.root / "extractors" / "lit").iterdir()
    assert aside.name.endswith(".refused")
    Path("tiny.onnx").write_bytes(tiny_model())
    publish = ["publish", "tiny.onnx", "--name", "other", "--data", data, "--extractor"]
    assert main([*publish, "lit"]) == 2
    assert main([*publish, str(aside)]) == 1
    assert "failed the ladder" in capsys.readouterr().err
    assert main(["extractor", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[-1]["ladder"] == "refused"
    assert main(["extractor", "ladder", str(aside), data, "--keep", "--accept", "so few samples"]) == 0
    (folder,) = (repository.root / "extractors" / "lit").iterdir()
    assert str(folder) in capsys.readouterr().out
    assert main([*publish, "lit"]) == 0
    reference = repository.reference("other")
    assert reference is not None
    assert reference.extractor_digest[:12] == folder.name
    capsys.readouterr()
    assert main(["extractor", "show", f"lit@{folder.name[:4]}"]) == 0
    told_of = capsys.readouterr().out
    assert "so few samples" in told_of
    assert "rotation" in told_of
    assert "20% copies" in told_of


def test_too_few_samples_are_told_before_training(repository: Repository, capsys: pytest.CaptureFixture[str]) -> None:
    """Without --accept nothing is trained; with it the extractor is untried, and goes where -o says."""
    data = write_images(200)
    assert main(["extractor", "train", data]) == 2
    told = capsys.readouterr().err
    assert "the ladder needs 100" in told
    assert "epoch" not in told
    assert main(["extractor", "train", data, "--accept", " "]) == 2
    assert main(["extractor", "train", data, "--name", "Not this"]) == 2
    assert main(["extractor", "train", data, "--epochs", "1", "--accept", "a try", "-o", "here"]) == 0
    manifest = json.loads(Path("here/manifest.json").read_text())
    assert (manifest["name"], manifest["ladder"], manifest["accepted"]) == ("lit-rotation", None, "a try")
    assert not (repository.root / "extractors").exists()


def test_built_in_ones_are_tried_but_keep_nothing(repository: Repository, capsys: pytest.CaptureFixture[str]) -> None:
    """The table and an exit status; there is no manifest that could keep the outcome."""
    data = write_images(1300)
    assert main(["extractor", "ladder", "random-conv", data, "--json"]) in (0, 1)
    rungs = json.loads(capsys.readouterr().out)["rungs"]
    assert {rung["ladder"] for rung in rungs} == {"noise", "blur", "dropped", "replay"}
    assert main(["extractor", "ladder", "random-conv", data, "--keep"]) == 2
    assert main(["extractor", "ladder", "lit", data]) == 2
    assert main(["extractor", "ladder", "random-conv", data, "--accept", "why not"]) == 2


def test_weights_that_are_not_the_published_ones_are_refused(
    repository: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error names both digests and the way to import them under another name."""
    Path("weights.pth").write_bytes(b"nothing")
    assert main(["extractor", "import-inception", "weights.pth"]) == 1
    assert "--name NAME" in capsys.readouterr().err
    assert main(["extractor", "import-inception", "missing.pth"]) == 2
