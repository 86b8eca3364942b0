"""Sweeps: what is tried, how it ranks, what is kept, how they go on."""

import json
from pathlib import Path

import pytest

from genserve.cli import main
from models.errors import Invalid
from trainer.config import Config, make_config
from trainer.run_records import RunRecord
from trainer.state import Batch, State
from trainer.sweep import Outcome, combinations, parse_axis, rank

TINY = [
    "--kimg=3.2",
    "--sweep-kimg=0.32",
    "--batch-size=16",
    "--z-dim=4",
    "--g-channels=4",
    "--d-channels=4",
    "--threads=1",
]


def settings(*sweeps: str, **fields: object) -> list[dict[str, object]]:
    """What each combination changes."""
    config = make_config("fashion-mnist", None, fields)
    return [dict(found.overrides) for found in combinations([parse_axis(sweep, config) for sweep in sweeps], config)]


def test_gamma_means_the_penalties_in_use_in_multiples() -> None:
    """Both of a relativistic game, R1 alone where R2 is off."""
    both = settings("gamma=0.3x,1x", preset="r3gan", r1_gamma=0.1, r2_gamma=0.2)
    assert both == [
        {"r1_gamma": pytest.approx(0.03), "r2_gamma": pytest.approx(0.06)},
        {"r1_gamma": 0.1, "r2_gamma": 0.2},
    ]
    assert settings("gamma=1x,3x", d_norm="none", r1_gamma=1.0) == [{"r1_gamma": 1.0}, {"r1_gamma": 3.0}]


def test_axes_multiply_and_values_keep_their_types() -> None:
    """Two axes of two and three values are six trainings; integers stay integers, words are words."""
    found = settings("batch_size=0.5x,32", "loss=hinge,least-squares,minimax", d_norm="spectral")
    assert len(found) == 6
    assert found[0] == {"batch_size": 32, "loss": "hinge"}
    assert settings("flip=true,false") == [{"flip": True}, {"flip": False}]


@pytest.mark.parametrize(
    ("sweeps", "complaint"),
    [
        (["gamma"], "is not FIELD=VALUE,VALUE"),
        (["g_lr=1,1"], "different values"),
        (["kimg=1,2"], "'kimg' cannot be swept"),
        (["colour=1,2"], "'colour' cannot be swept; what can: gamma, lr"),
        (["gamma=0.3x,1x"], "r1_gamma is 0, and so is every multiple of it: give values, with --d-norm none"),
        (["preset=1x,2x"], "1x"),
        (["g_lr=fast,1"], "'fast' is no value of g_lr"),
        (["z_dim=1,0"], "z_dim=0: 0 is outside 1 .. 4096"),
        (["g_lr=1x,2x", "lr=1x,2x"], "two sweeps change the same field"),
        (["g_lr=1x"], "1 trainings; 2 .. 64"),
        (["seed=" + ",".join(map(str, range(65)))], "65 trainings"),
    ],
)
def test_what_makes_no_sweep_is_refused(sweeps: list[str], complaint: str) -> None:
    """The reason is said before anything is trained."""
    with pytest.raises(Invalid, match=complaint):
        settings(*sweeps)


def test_seeds_are_repetitions_and_failures_come_last() -> None:
    """A setting is worth its median over seeds; one that diverged once is worse than any that never did."""
    shares = {"lr=1x seed=0": 0.1, "lr=1x seed=1": 0.4, "lr=2x seed=0": 0.2, "lr=2x seed=1": 0.2, "lr=9x seed=1": 0.01}
    outcomes = [Outcome(label, share) for label, share in shares.items()]
    outcomes.append(Outcome("lr=9x seed=0", 0.01, failure="step 3: NaN"))
    ranks = rank(outcomes)
    assert [found.setting for found in ranks] == ["lr=2x", "lr=1x", "lr=9x"]
    assert ranks[1].share == pytest.approx(0.25)
    assert ranks[2].share == float("inf")
    assert [found.setting for found in rank([Outcome("seed=1", 0.2), Outcome("seed=2", 0.1)])] == ["seed=2", "seed=1"]


def test_a_sweep_trains_ranks_and_keeps_the_best(
    blobs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The best keeps its weights, the others their statistics; a second call does nothing."""
    folder = tmp_path / "sweep"
    words = ["train", str(blobs), *TINY, "--run-dir", str(folder), "--sweep", "lr=1x,0x", "--sweep", "seed=0,1"]
    assert main(words) == 0
    told = capsys.readouterr().out
    kept = json.loads((folder / "sweep.json").read_text())
    assert told.splitlines()[0].startswith(kept["ranks"][0]["setting"])
    assert len(kept["ranks"]) == 2
    assert kept["ranks"][0]["share"] <= kept["ranks"][1]["share"]
    weights = [path.name for path in folder.iterdir() if (path / "checkpoint.pt").exists()]
    assert weights == [kept["best"]]
    assert all(RunRecord(path).state == "done" for path in folder.iterdir() if path.is_dir())
    full = make_config(None, folder / "best.json", {})
    assert (full.kimg, full.g_lr) == (3.2, Config(data="x").g_lr * (kept["ranks"][0]["setting"] == "lr=1x"))
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("stats.jsonl")}
    assert main(words) == 0
    assert capsys.readouterr().out == told
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("stats.jsonl")} == before
    assert main([*words, "--g-channels=5"]) == 1
    assert "is a training with another g_channels (4, not 5): choose another folder" in capsys.readouterr().err


def test_a_training_that_diverges_is_told_and_the_others_go_on(
    blobs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A weight that becomes NaN in one training ends that one; the sweep ranks the other one first, and says why."""
    folder = tmp_path / "sweep"
    train_g = State.train_g

    def poisoned(state: State, real: Batch) -> object:
        if state.config.d_lr == 1 and state.num_images >= 160:
            next(state.G.parameters()).data.fill_(float("nan"))
        return train_g(state, real)

    monkeypatch.setattr(State, "train_g", poisoned)
    assert main(["train", str(blobs), *TINY, "--run-dir", str(folder), "--sweep", "d_lr=1,1e-4"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("d_lr=1e-4")
    assert "d_lr=1     step 19: linear.weight of G is not finite" in told


def test_sweeps_are_not_resumed_by_name(blobs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--resume is for single runs; a length without a sweep is a mistake."""
    assert main(["train", "--resume", str(tmp_path), "--sweep", "lr=1x,2x"]) == 2
    assert "a sweep goes on by itself" in capsys.readouterr().err
    assert main(["train", str(blobs), "--sweep-kimg", "1"]) == 2
    assert "sweep_kimg" in capsys.readouterr().err
