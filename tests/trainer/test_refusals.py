"""New runs that would do less than was asked, or take no notice of it, are refused before anything is made."""

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest

from genserve.cli import main
from models.datasets import load_dataset
from models.errors import Invalid
from tests.models.test_datasets import idx
from tests.trainer.conftest import SHAPE
from trainer.config import Config
from trainer.run_dir import RunDir
from trainer.run_records import RunRecord
from trainer.training import make_run

TINY = {
    "kimg": 0.064, "batch-size": 16, "z-dim": 4, "g-channels": 4, "d-channels": 4, "d-hidden": 8, "threads": 1,
    "snapshot-kimg": 0.064,
}  # fmt: skip


def words(**settings: object) -> list[str]:
    """Options of a tiny run."""
    return [f"--{name}={value}" for name, value in {**TINY, **settings}.items()]


# A run in which G has no turn.


@pytest.mark.parametrize(
    ("periods", "steps"),
    [({"d-period": 4}, 4), ({"d-period": 2, "period-unit": "epochs"}, 2 * 7), ({"d-period": 4, "g-period": 9}, 4)],
)
def test_a_run_that_ends_before_gs_turn_is_refused(
    tmp_path: Path, blobs: Path, capsys: pytest.CaptureFixture[str], periods: dict[str, object], steps: int
) -> None:
    """It would be done, and export what G was at first. The least length is named, and with it G has a whole period."""
    assert len(load_dataset(str(blobs)).indices["train"]) // 16 == 7
    command = ["train", str(blobs), "--run-dir", str(tmp_path / "r")]
    images = steps * 16
    for kimg in (images / 2000, images / 1000):
        assert main([*command, *words(**periods, kimg=kimg)]) == 2
        told = f"kimg: D's first period of {steps} steps takes {images} images, and the run ends before G takes any"
        assert f"{told} step: at least {images / 1000 + 0.001:.3f}, or a" in capsys.readouterr().err
        assert not (tmp_path / "r").exists()
    assert main([*command, *words(**periods, kimg=images / 1000 + 0.001)]) == 0
    taken = RunDir(tmp_path / "r").load_checkpoint()["step"]
    assert taken == steps + 1 + (7 if "period-unit" in periods else periods.get("g-period", 1))  # one more of D ends it


def test_one_training_of_a_sweep_is_refused_likewise(blobs: Path, tiny: Config) -> None:
    """Periods can be swept: the others' may be short enough."""
    data = load_dataset(str(blobs))
    make_run(tiny, data)
    with pytest.raises(Invalid, match=r"kimg: D's first period of 40 steps takes 640 images"):
        make_run(msgspec.structs.replace(tiny, d_period=40), data)


# Settings that nothing heeds.


def write_idx(folder: Path) -> str:
    """A folder of an IDX file."""
    folder.mkdir()
    images = np.random.RandomState(0).randint(0, 256, (60, *SHAPE[:2]), dtype=np.uint8)
    (folder / "a-images-idx3-ubyte").write_bytes(idx(images))
    return str(folder)


@pytest.mark.parametrize(
    ("option", "value", "complaint"),
    [
        ("resolution", 16, "resolution: only a folder of images is resized"),
        ("max-skipped", 0.5, "max_skipped: only broken files of a folder of images are skipped"),
    ],
)
def test_how_a_folder_is_read_is_no_setting_of_other_data(
    tmp_path: Path, blobs: Path, capsys: pytest.CaptureFixture[str], option: str, value: float, complaint: str
) -> None:
    """An .npz, IDX files and a named set have the size that they have; the error says what to do."""
    for data in (str(blobs), write_idx(tmp_path / "idx"), "ring"):
        given = words(**{option: value}) if data != "ring" else [f"--{option}={value}"]
        assert main(["train", data, "--run-dir", str(tmp_path / "r"), *given]) == 2
        assert f"{complaint}, {data} is none: leave it out" in capsys.readouterr().err
        assert not (tmp_path / "r").exists()


def test_data_that_are_not_there_are_not_called_something_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mistyped folder is told as that."""
    assert main(["train", str(tmp_path / "none"), "--run-dir", str(tmp_path / "r"), "--resolution", "16"]) == 2
    assert "is neither a file, a folder, nor one of" in capsys.readouterr().err


def test_an_older_run_that_has_such_a_setting_goes_on(tmp_path: Path, blobs: Path) -> None:
    """It took no notice of it when it began, and does not now; it can be looked at and resumed."""
    folder = tmp_path / "r"
    assert main(["train", str(blobs), "--run-dir", str(folder), *words()]) == 0
    kept = json.loads((folder / "config.json").read_text())
    kept["config"] |= {"resolution": 32, "max_skipped": 0.5, "kimg": 0.128}
    (folder / "config.json").write_text(json.dumps(kept))
    assert RunRecord(folder).setting("resolution") == 32
    assert main(["train", "--resume", str(folder)]) == 0
    assert RunDir(folder).load_checkpoint()["num_images"] == 128
