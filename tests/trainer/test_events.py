"""What TensorBoard is told of a run."""

import json
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event

from genserve.cli import main
from trainer.loop import Trainer

TINY = ["--batch-size=16", "--z-dim=4", "--g-channels=4", "--d-channels=4", "--threads=1", "--snapshot-kimg=0.32"]


def events(run_dir: Path) -> Iterator[Event]:
    """Everything in a run's event files: TFRecords, each a length, its checksum, the event, its checksum."""
    for path in sorted((run_dir / "tensorboard").glob("events.out.tfevents.*")):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            yield Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]


def test_every_number_and_grid_of_a_run_is_logged_at_its_number_of_images(blobs: Path, tmp_path: Path) -> None:
    """What stats.jsonl holds stands in the event files, and so do the sample grids."""
    run_dir = tmp_path / "run"
    assert main(["train", str(blobs), *TINY, "--kimg=0.64", "--run-dir", str(run_dir), "--tensorboard"]) == 0
    logged = {(v.tag, e.step): v.simple_value for e in events(run_dir) for v in e.summary.value if not v.image.width}
    pictures = [(v.tag, e.step, v.image.width) for e in events(run_dir) for v in e.summary.value if v.image.width]
    lines = [json.loads(line) for line in (run_dir / "stats.jsonl").read_text().splitlines()]
    for line in lines:
        step = round(line["kimg"] * 1000)
        if "d_loss" in line:
            assert logged["d_loss", step] == pytest.approx(line["d_loss"], rel=1e-6)
        if "score" in line:
            assert logged["score/share", step] == pytest.approx(line["score"]["share"], rel=1e-6)
    assert {tag for tag, _ in logged} >= {"d_loss", "g_loss", "d_real", "d_fake", "score/fd", "images_per_second"}
    assert [(tag, step) for tag, step, _ in pictures] == [("samples", 320), ("samples", 640)]


def test_a_resumed_run_strikes_out_what_was_logged_beyond_its_checkpoint(
    blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second process tells TensorBoard from which step on the first one's events do not count."""
    run_dir = tmp_path / "run"
    snapshot = Trainer._snapshot

    def stopped(trainer: Trainer) -> None:
        snapshot(trainer)
        trainer.stop()

    monkeypatch.setattr(Trainer, "_snapshot", stopped)
    words = ["train", str(blobs), *TINY, "--kimg=0.64", "--run-dir", str(run_dir), "--tensorboard"]
    assert main(words) == 130
    monkeypatch.undo()
    assert main(["train", "--resume", str(run_dir)]) == 0
    starts = [event.step for event in events(run_dir) if event.session_log.status]
    assert starts == [321]


def test_without_its_library_nothing_is_begun(
    blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error names the extra, and no folder is left behind."""
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    monkeypatch.delitem(sys.modules, "trainer.events", raising=False)
    assert main(["train", str(blobs), *TINY, "--run-dir", str(tmp_path / "run"), "--tensorboard"]) == 3
    assert "pip install 'genserve[tensorboard]'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
