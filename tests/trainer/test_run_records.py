"""What a run's folder is taken for: done or not, on which data, readable or not; and `genserve runs`."""

import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from genserve.cli import main
from trainer import commands
from trainer.config import Config
from trainer.run_dir import RunDir
from trainer.run_records import RunRecord, checkpoint_images
from trainer.state import State

SHORT = ("--batch-size", 16, "--g-channels", 4, "--d-channels", 4, "--threads", 1, "--kimg", 0.16)


class Killed(BaseException):
    """What no code of ours catches."""


def kill_in_call(patch: pytest.MonkeyPatch, deed: str, number: int) -> None:
    """Die in the call of this number, from 1, of a method of RunDir."""
    whole: Callable[..., None] = getattr(RunDir, deed)
    calls = itertools.count(1)

    def deadly(run_dir: RunDir, *given: object) -> None:
        if next(calls) == number:
            raise Killed
        whole(run_dir, *given)

    patch.setattr(RunDir, deed, deadly)


def write_run(path: Path, share: float | None = 0.5, data_hash: str = "1f3a", **config: object) -> None:
    """A run's folder without networks."""
    path.mkdir(parents=True)
    settings = {"data": "somewhere/faces", "kimg": 10.0, **config}
    run = {"config": settings, "data_hash": data_hash, "shape": [28, 28, 1]}
    (path / "config.json").write_bytes(msgspec.json.encode(run))
    score = None if share is None else {"fd": 1.0, "share": share, "extractor": "e@1"}
    (path / "stats.jsonl").write_bytes(msgspec.json.encode({"kimg": 10.0, "score": score}) + b"\n")


def table(folder: Path, capsys: pytest.CaptureFixture[str], status: int = 0) -> list[str]:
    """The lines of `genserve runs`, without the header."""
    assert main(["runs", str(folder)]) == status
    return capsys.readouterr().out.splitlines()[1:]


# Done.


@pytest.mark.parametrize(("deed", "last"), [("save_snapshot", 2), ("append_stats", 3), ("save_checkpoint", 2)])
def test_a_run_is_done_when_all_that_ends_it_is_on_disk(
    tmp_path: Path, blobs: Path, parse: Any, monkeypatch: pytest.MonkeyPatch, deed: str, last: int
) -> None:
    """Killed in any act of its last snapshot it is stopped, though its images are all shown; resumed it is done."""
    run_dir = RunDir(tmp_path / "run")
    with monkeypatch.context() as patch:
        kill_in_call(patch, deed, last)
        with pytest.raises(Killed):
            commands.train(parse("train", blobs, "--run-dir", run_dir.path, "--snapshot-kimg", 0.08, *SHORT))
    record = RunRecord(run_dir.path)
    assert (record.kimg, record.state) == (0.16, "stopped")
    assert run_dir.load_checkpoint()["num_images"] < 160
    assert commands.train(parse("train", "--resume", run_dir.path)) == 0
    record = RunRecord(run_dir.path)
    assert (record.state, record.snapshots, list(record.scores)) == ("done", [0.08, 0.16], [0.08, 0.16])


def test_a_finished_run_without_weights_is_done(tmp_path: Path) -> None:
    """A sweep takes checkpoint and snapshots of a training that it is done with; one that diverged never was done."""
    write_run(tmp_path / "dropped")
    write_run(tmp_path / "diverged")
    with (tmp_path / "diverged" / "stats.jsonl").open("a") as stats:
        stats.write('{"kimg": 10.0, "fault": "step 3: a weight is not finite"}\n')
    assert RunRecord(tmp_path / "dropped").state == "done"
    assert RunRecord(tmp_path / "diverged").state == "stopped"
    (tmp_path / "dropped" / "snapshots").mkdir()  # as a run has it that is still to write there
    assert RunRecord(tmp_path / "dropped").state == "stopped"


def test_images_are_read_without_torch(tmp_path: Path, tiny: Config) -> None:
    """The number that a checkpoint holds, beyond 32 bits too; of a damaged file none, wherever it is damaged."""
    run_dir, state = RunDir(tmp_path), State(tiny, (8, 8, 1))
    path = run_dir.checkpoint_path
    assert checkpoint_images(path) is None
    for images in (0, 200, 70_000, 3_000_000_000):
        state.num_images = images
        run_dir.save_checkpoint(state.state_dict())
        assert checkpoint_images(path) == images
    content = path.read_bytes()
    random = np.random.RandomState(0)
    for cut in random.randint(0, len(content), 30):
        path.write_bytes(content[:cut])
        assert checkpoint_images(path) is None
    for _ in range(100):
        spoilt = bytearray(content)
        for place in (random.randint(len(content)), len(content) - 1 - random.randint(2000)):
            spoilt[place] ^= 0xFF
        path.write_bytes(spoilt)
        assert checkpoint_images(path) in (None, 3_000_000_000)


# The table.


def test_runs_on_other_content_are_not_ranked_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of one folder with other images in it each run says which; the lower FD on the others comes not before."""
    write_run(tmp_path / "a", 0.3, "77b0c1", r1_gamma=1.0, d_norm="none")
    write_run(tmp_path / "b", 0.2, "1f3a99")
    write_run(tmp_path / "c", 0.1, "77b0c1", r1_gamma=0.5, d_norm="none")
    write_run(tmp_path / "d", 0.4, "1f3a99", data="elsewhere/faces")  # the same, copied
    write_run(tmp_path / "e", 0.5, "0d0d0d", data="cats")
    lines = table(tmp_path, capsys)
    told = [(line.split()[0][-1], line.split()[4]) for line in lines]
    first, second = "faces@1f3a", "faces@77b0"
    assert told == [("e", "cats"), ("b", first), ("d", first), ("c", second), ("a", second)]
    assert lines[3].endswith("r1_gamma=0.5")
    assert "d_norm" not in lines[3]  # all on that data have it
    assert main(["runs", str(tmp_path), "--json"]) == 0
    row = json.loads(capsys.readouterr().out)[1]
    assert (row["data"], row["data_hash"]) == ("somewhere/faces", "1f3a99")


def test_runs_that_kept_no_hash_go_by_their_path(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As old ones do: together, under their name alone."""
    write_run(tmp_path / "a", 0.3, "")
    write_run(tmp_path / "b", 0.2, "")
    assert [line.split()[0][-1] for line in table(tmp_path, capsys)] == ["b", "a"]
    assert all(" faces " in line for line in table(tmp_path, capsys))


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("stats.jsonl", None, "Is a directory"),
        ("config.json", None, "Is a directory"),
        ("config.json", b'{"config": {"kimg": "abc"}}', "kimg: Expected `float`, got `str`"),
        ("config.json", b'{"config": {"kimg": [1]}}', "kimg: Expected `float`, got `array`"),
        ("config.json", b'{"config": {"kimg": null}}', "kimg: Expected `float`, got `null`"),
        ("config.json", b'{"config": {"batch_size": true}}', "batch_size: Expected `float`, got `bool`"),
        ("config.json", b'{"config": {"kimg": 1' + 400 * b"0" + b"}}", "config.json"),
        ("config.json", b'{"config": [1]}', "Expected `object`, got `array`"),
        ("config.json", b"[1]", "Expected `object`, got `array`"),
        ("config.json", b'{"config": {"kimg": 1, "loss": "\xff"}}', "config.json"),
        ("config.json", b'{"config": {"later": ' + 100_000 * b"[", "config.json"),
        ("stats.jsonl", b'{"kimg": 1}\n{"kimg": "x"}\n', "damaged in line 2"),
        ("stats.jsonl", b'{"kimg": 1, "fault": "\xff"}\n', "damaged in line 1"),
    ],
)
def test_one_bad_run_hides_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: bytes | None, reason: str
) -> None:
    """Whatever cannot be read is a row that says which file and why, below all others; exit status 1."""
    write_run(tmp_path / "bad")
    write_run(tmp_path / "good")
    file = tmp_path / "bad" / name
    file.unlink()
    file.mkdir() if content is None else file.write_bytes(content)
    good, bad = table(tmp_path, capsys, status=1)
    assert re.search(r"/good +done", good)
    assert re.search(r"/bad +damaged", bad)
    assert str(file) in bad
    assert reason in bad


def test_settings_of_other_versions_are_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A setting that this version does not know may be anything, and one that it knows a word that it does not."""
    write_run(tmp_path / "run", later=[1, {"a": 2}], preset="stylegan", resolution=None)
    (line,) = table(tmp_path, capsys)
    assert " stylegan " in line
