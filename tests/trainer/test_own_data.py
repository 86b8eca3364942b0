"""Training on a person's own folder of pictures, with the command that everybody uses."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genserve.cli import main
from models.generator import Generator
from models.judge import open_reference
from models.repository import Repository
from trainer.state import Batch, State

TINY = {
    "kimg": 0.064,
    "batch-size": 16,
    "z-dim": 4,
    "g-channels": 4,
    "d-channels": 4,
    "threads": 1,
    "snapshot-kimg": 0.064,
}


@pytest.mark.parametrize(("side", "suffix"), [(32, "png"), (64, "jpg")])
def test_a_folder_of_colour_pictures_trains_and_exports(
    tmp_path: Path, side: int, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was read is told before the first step, broken files too; the exported generator makes such pictures."""
    random = np.random.RandomState(0)
    (tmp_path / "pictures").mkdir()
    for i in range(60):
        small = random.randint(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(small).resize((side, side)).save(tmp_path / "pictures" / f"{i}.{suffix}")
    (tmp_path / "pictures" / "broken.jpg").write_text("no picture")
    run_dir = str(tmp_path / "run")
    assert (
        main(
            [
                "train",
                str(tmp_path / "pictures"),
                "--run-dir",
                run_dir,
                *(f"--{name}={value}" for name, value in TINY.items()),
            ]
        )
        == 0
    )
    told = capsys.readouterr().err
    first = told.index(f"60 samples of {side} x {side} x 3 from a folder of images")
    assert first < told.index("colour: 60 images have any") < told.index("training images of")
    assert "skipped 1 broken files (1.6%): broken.jpg (not an image)" in told
    assert main(["export", run_dir]) == 0
    generator = Generator.open(tmp_path / "run" / "export" / "model.onnx")
    assert generator.generate(np.zeros((2, 4), np.float32)).shape == (2, side, side, 3)


def test_half_of_the_images_are_mirrored_where_flips_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D sees about as many images bright on the right as on the left, though the data has none of the first kind."""
    images = np.random.RandomState(0).randint(0, 20, (96, 8, 8), dtype=np.uint8)
    images[:, :, :4] += 200
    np.savez(tmp_path / "left.npz", images=images)
    seen: list[bool] = []
    train_d = State.train_d

    def watched(state: State, real: Batch, d_step: int) -> object:
        seen.extend((real.images[:, 0, 0, 7] > 0).tolist())
        return train_d(state, real, d_step)

    monkeypatch.setattr(State, "train_d", watched)
    options = [f"--{name}={value}" for name, value in {**TINY, "kimg": 0.256}.items()]
    words = ["train", str(tmp_path / "left.npz"), *options]
    assert main([*words, "--run-dir", str(tmp_path / "flipped"), "--flip"]) == 0
    assert len(seen) == 256
    assert 0.35 < np.mean(seen) < 0.65
    seen.clear()
    assert main([*words, "--run-dir", str(tmp_path / "plain")]) == 0
    assert not any(seen)


def test_what_may_be_skipped_is_said_once_and_holds_until_the_gate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder with a sixth of broken files is refused; with --max-skipped it trains, is published and is opened."""
    random = np.random.RandomState(0)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(50):
        Image.fromarray(random.randint(0, 256, (8, 8), dtype=np.uint8)).save(folder / f"{i}.png")
    for i in range(10):
        (folder / f"broken{i}.png").write_text("no picture")
    monkeypatch.setenv("GENSERVE_MODELS", str(tmp_path / "repository"))
    options = [f"--{name}={value}" for name, value in TINY.items()]
    run_dir = str(tmp_path / "run")
    assert main(["train", str(folder), "--run-dir", run_dir, *options]) == 2
    assert "10 of 60 image files are broken, more than the 5%" in capsys.readouterr().err
    assert main(["train", str(folder), "--run-dir", run_dir, *options, "--max-skipped", "0.2"]) == 0
    assert main(["export", run_dir]) == 0
    assert main(["publish", run_dir, "--name", "noise", "--max-skipped", "2"]) == 2
    assert "max_skipped: 2.0 is outside 0 .. 1" in capsys.readouterr().err
    assert main(["publish", run_dir, "--name", "noise"]) == 0
    reference = Repository(tmp_path / "repository").reference("noise")
    assert reference is not None
    assert reference.max_skipped == 0.2
    assert open_reference(reference).dataset.samples.shape == (50, 8, 8, 1)
