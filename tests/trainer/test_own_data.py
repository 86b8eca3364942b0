"""Training on a person's own folder of pictures, with the command that everybody uses."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genserve.cli import main
from models.generator import Generator

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
