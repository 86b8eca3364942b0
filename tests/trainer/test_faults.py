"""Runs that cannot be, damaged ones, and those that were stopped early."""

import dataclasses
import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genserve.cli import main
from models import files
from models.datasets import load_dataset
from models.errors import Invalid, NotFound, Refused, told
from models.files import append_line, replace_file, write_file
from trainer import commands, training
from trainer.run_dir import RunDir
from trainer.selection import make_scorer


@pytest.mark.parametrize(
    ("count", "side", "complaint"),
    [(160, 27, "27 x 27 do not halve"), (20, 8, r"do not fill a batch of 64.*--batch-size")],
)
def test_a_run_that_cannot_be_leaves_no_folder(
    tmp_path: Path, parse: Any, count: int, side: int, complaint: str
) -> None:
    """Images of 27 pixels, and fewer than a batch, are refused before the run's folder is made."""
    images = np.random.RandomState(0).randint(0, 256, (count, side, side), dtype=np.uint8)
    np.savez(tmp_path / "d.npz", images=images)
    with pytest.raises(Invalid, match=complaint):
        commands.train(parse("train", tmp_path / "d.npz", "--run-dir", tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_every_core_is_kept_as_a_number(
    tmp_path: Path, blobs: Path, parse: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """threads 0 becomes the cores of the machine that began, so that a resume on another one gives the same bits."""
    monkeypatch.setattr(training, "available_cores", lambda: 3)
    monkeypatch.setattr(training, "_train", lambda *_: True)
    assert commands.train(parse("train", blobs, "--run-dir", tmp_path / "run", "--threads", 0)) == 0
    assert RunDir(tmp_path / "run").read().config.threads == 3


def test_a_relative_path_is_kept_whole(
    tmp_path: Path, blobs: Path, parse: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run can be resumed, exported and published from any folder; a data set's name stays a name."""
    monkeypatch.setattr(training, "_train", lambda *_: True)
    monkeypatch.chdir(blobs.parent)
    assert commands.train(parse("train", blobs.name, "--run-dir", tmp_path / "run")) == 0
    assert RunDir(tmp_path / "run").read().config.data == str(blobs.resolve())


SHORT = ("--batch-size", 16, "--g-channels", 4, "--d-channels", 4, "--threads", 1, "--kimg", 0.16)


@pytest.fixture
def short(tmp_path: Path, blobs: Path, parse: Any) -> RunDir:
    """A finished run of two snapshots."""
    assert commands.train(parse("train", blobs, "--run-dir", tmp_path / "run", "--snapshot-kimg", 0.08, *SHORT)) == 0
    return RunDir(tmp_path / "run")


def test_a_run_without_a_checkpoint_begins_again(short: RunDir, parse: Any) -> None:
    """Killed before its first checkpoint, a resumed run does everything again and drops all lines of statistics."""
    before = [(line.kimg, line.score) for line in short.stats()]
    short.checkpoint_path.unlink()
    assert commands.train(parse("train", "--resume", short.path)) == 0
    assert [(line.kimg, line.score) for line in short.stats()] == before


def test_a_short_run_has_statistics_too(short: RunDir) -> None:
    """The steps since the last line are reported when a run ends, however short it was: 5 batches of 16 here."""
    line = short.stats()[1]
    assert line.kimg == 0.16
    assert line.d_loss is not None
    assert line.g_loss is not None


@pytest.mark.parametrize("damage", [b"", b"not a zip", b"PK\x03\x04 and no more", "half"])
def test_damaged_files_of_a_run_are_named(short: RunDir, parse: Any, damage: bytes | str) -> None:
    """A checkpoint, snapshot or line of statistics that cannot be read is an error with the file and the mend."""
    for path in (short.checkpoint_path, *(short.path / "snapshots").iterdir()):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if isinstance(damage, str) else damage)
    with pytest.raises(Invalid, match=r"checkpoint\.pt is damaged.*remove it"):
        commands.train(parse("train", "--resume", short.path))
    with pytest.raises(Invalid, match=r"000000\.160\.pt is damaged"):
        commands.export(parse("export", short.path, "--checkpoint", 0.16))
    with short.stats_path.open("ab") as file:
        file.write(b'{"kimg":0.16,"score":{"fd":1.0,"share":null,"extractor":"e@1"}}\n')
    with pytest.raises(Invalid, match=r"stats\.jsonl is damaged in line \d+"):
        commands.export(parse("export", short.path))


def test_a_configuration_changed_by_hand_is_refused(short: RunDir, parse: Any) -> None:
    """Weights that do not fit config.json are an error that says so, for the checkpoint and for a snapshot."""
    config = short.path / "config.json"
    config.write_text(config.read_text().replace('"g_channels": 4', '"g_channels": 6'))
    with pytest.raises(Invalid, match=r"checkpoint\.pt does not fit config\.json"):
        commands.train(parse("train", "--resume", short.path))
    with pytest.raises(Invalid, match=r"snapshot at 0\.16 kimg does not fit config\.json"):
        commands.export(parse("export", short.path, "--checkpoint", 0.16))


def test_two_processes_do_not_train_one_run(short: RunDir, parse: Any) -> None:
    """While a run is held, resuming it is refused; afterwards it goes on."""
    with short.held(), pytest.raises(Refused, match="another process"):
        commands.train(parse("train", "--resume", short.path))
    assert commands.train(parse("train", "--resume", short.path)) == 0


def test_export_before_the_first_snapshot_says_what_to_do(short: RunDir, parse: Any) -> None:
    """Stopped before any snapshot there is nothing to export but a run to resume; a stray file is no snapshot."""
    for path in (short.path / "snapshots").iterdir():
        path.unlink()
    (short.path / "snapshots" / "best.pt").write_bytes(b"")
    for words in ((), ("--checkpoint", 5)):
        with pytest.raises(NotFound, match=f"no snapshot yet.*train --resume {short.path}"):
            commands.export(parse("export", short.path, *words))


def test_uniform_validation_images_give_no_score(blobs: Path) -> None:
    """Equal validation images have no variance to share FD by: no score, rather than an infinite one."""
    data = load_dataset(str(blobs))
    assert make_scorer(data, num_fakes=10) is not None
    same = data.samples.copy()
    same[data.indices["validation"]] = 7
    assert make_scorer(dataclasses.replace(data, samples=same), num_fakes=10) is None


# A disk that is full.


@contextmanager
def at_most(size: int) -> Iterator[None]:
    """No file grows beyond so many bytes, as after `ulimit -f`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("write", [replace_file, write_file, append_line])
def test_a_file_that_cannot_be_written_is_named(tmp_path: Path, write: Any) -> None:
    """By its own name, whatever the operating system says; what it replaces stays, and nothing lies beside it."""
    path = tmp_path / "file"
    path.write_bytes(b"old\n")
    with at_most(2_000), pytest.raises(OSError, match="File too large") as caught:
        write(path, bytes(3_000))
    assert told(caught.value) == f"{path}: File too large"
    assert list(tmp_path.iterdir()) == [path]
    if write is replace_file:
        assert path.read_bytes() == b"old\n"


def test_a_full_disk_is_told_with_what_is_kept(
    tmp_path: Path, blobs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Full after the first of two checkpoints: what did not fit, what is kept, and the command that goes on."""
    run_dir = RunDir(tmp_path / "run")
    whole = files._write_all

    def full(descriptor: int, data: bytes) -> None:
        if run_dir.checkpoint_path.exists() and len(data) > 2_000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        whole(descriptor, data)

    words = ["train", str(blobs), "--run-dir", str(run_dir.path), "--snapshot-kimg=0.08", *map(str, SHORT)]
    with monkeypatch.context() as patch:
        patch.setattr(files, "_write_all", full)
        assert main(words) == 3
    said = capsys.readouterr().err.splitlines()[-1]
    path = run_dir.path
    assert said.startswith(f"genserve: {path}/snapshots/000000.160.pt: No space left on device; ")
    again = f"mend that, and `genserve train --resume {path}` goes on from there"
    assert said.endswith(f"; {path}/checkpoint.pt is kept, at 0.08 kimg: {again}")
    assert main(["train", "--resume", str(run_dir.path)]) == 0
    assert run_dir.snapshots() == [0.08, 0.16]


def test_a_disk_that_is_full_from_the_first_is_told(
    tmp_path: Path, blobs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No checkpoint fitted: a run begins at the beginning; a sweep goes on by its own command."""
    words = ["train", str(blobs), "--snapshot-kimg=0.08", *map(str, SHORT), "--run-dir"]
    with at_most(8_000):
        assert main([*words, str(tmp_path / "run")]) == 3
        said = capsys.readouterr().err.splitlines()[-1]
        assert f"{tmp_path}/run/snapshots/000000.080.pt: File too large; no checkpoint is kept yet: " in said
        assert said.endswith(f"`genserve train --resume {tmp_path}/run` begins at the beginning")
        assert main([*words, str(tmp_path / "sweep"), "--sweep", "seed=0,1", "--sweep-kimg", "0.16"]) == 3
        said = capsys.readouterr().err.splitlines()[-1]
        assert f"{tmp_path}/sweep/seed=0/snapshots/000000.080.pt: File too large; " in said
        assert said.endswith(f"mend that, and the same command with --run-dir {tmp_path}/sweep goes on")
    assert main(["train", "--resume", str(tmp_path / "run")]) == 0
