"""Sweeps: what is tried, how it ranks, what is kept, how they go on."""

import json
from pathlib import Path

import msgspec
import pytest

from genserve.cli import main
from models.errors import Invalid
from tests.trainer.test_run_records import Killed, kill_in_call
from trainer.config import Config, make_config
from trainer.finite import Diverged
from trainer.run_dir import RunDir
from trainer.run_records import RunRecord
from trainer.state import Batch, State
from trainer.steps import Steps
from trainer.sweep import Outcome, Overrides, combinations, parse_axis, rank, swept

TINY = [
    "--kimg=3.2",
    "--sweep-kimg=0.32",
    "--batch-size=16",
    "--z-dim=4",
    "--g-channels=4",
    "--d-channels=4",
    "--threads=1",
]


def configs(*sweeps: str, data: str = "fashion-mnist", **fields: object) -> list[Config]:
    """Of a sweep's trainings, at full length."""

    def configure(changes: Overrides) -> Config:
        return make_config(data, None, {**fields, **changes})

    axes = [parse_axis(sweep) for sweep in sweeps]
    return [found.full for found in combinations(axes, configure, swept(axes, configure))]


def settings(names: str, *sweeps: str, **fields: object) -> list[tuple[object, ...]]:
    """Some settings of each training."""
    return [tuple(getattr(config, name) for name in names.split()) for config in configs(*sweeps, **fields)]


def test_gamma_means_the_penalties_in_use_in_multiples() -> None:
    """Both of a relativistic game, R1 alone where R2 is off."""
    both = settings("r1_gamma r2_gamma", "gamma=0.3x,1x", preset="r3gan", r1_gamma=0.1, r2_gamma=0.2)
    assert both == [(pytest.approx(0.03), pytest.approx(0.06)), (0.1, 0.2)]
    one = settings("r1_gamma r2_gamma", "gamma=1x,3x", d_norm="none", r1_gamma=1.0)
    assert one == [(1.0, 0.0), (3.0, 0.0)]


def test_axes_multiply_and_values_keep_their_types() -> None:
    """Two axes of two and three values are six trainings; integers stay integers, words are words."""
    found = settings("batch_size loss", "batch_size=0.5x,48", "loss=hinge,least-squares,minimax", d_norm="spectral")
    assert len(found) == 6
    assert found[0] == (32, "hinge")
    assert found[5] == (48, "minimax")
    assert settings("flip", "flip=true,false") == [(True,), (False,)]


def test_an_objective_or_networks_come_with_what_belongs_to_them() -> None:
    """Each training is the one that `genserve train` makes of the same options; those who say more are heard."""
    losses = ("non-saturating", "relativistic", "wasserstein", "hinge")
    for options in ({}, {"d_lr": 0.5, "z_dim": 9}):
        swept_losses = configs(f"loss={','.join(losses)}", **options)
        assert swept_losses == [make_config("fashion-mnist", None, {**options, "loss": loss}) for loss in losses]
    assert [config.d_norm for config in swept_losses] == ["batch", "none", "none", "spectral"]
    presets = configs("preset=resize,r3gan", data="stacked-mnist", seed=4)
    assert presets == [make_config("stacked-mnist", None, {"preset": p, "seed": 4}) for p in ("resize", "r3gan")]


def test_multiples_are_of_what_comes_with_the_objective() -> None:
    """A relativistic game's own rates and gammas; where one has none, its training is named."""
    found = settings("loss g_lr", "lr=1x,2x", "loss=hinge,relativistic")
    assert found == [("hinge", 5e-4), ("relativistic", 2e-4), ("hinge", 1e-3), ("relativistic", 4e-4)]
    with pytest.raises(Invalid, match="loss=hinge gamma=1x: r1_gamma is 0"):
        configs("loss=relativistic,hinge", "gamma=1x,2x")


def test_what_is_swept_has_the_first_objective() -> None:
    """Options that do not go with the default one are no fault of the others."""
    assert settings("loss r1_gamma", "loss=relativistic,hinge", r1_gamma=1.0) == [("relativistic", 1), ("hinge", 1)]


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
        configs(*sweeps)


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


def test_objectives_are_swept_with_their_recipes(
    blobs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The runs are as short as each other, and the best in full is what `genserve train` makes of its objective."""
    words = ["train", str(blobs), *TINY, "--run-dir", str(tmp_path), "--sweep", "loss=wasserstein,relativistic"]
    assert main(words) == 0
    runs = [RunDir(tmp_path / f"loss={loss}").read().config for loss in ("wasserstein", "relativistic")]
    assert [(run.gp_lambda, run.r1_gamma, run.d_period, run.kimg) for run in runs] == [
        (10, 0, 5, 0.32),
        (0, 0.05, 1, 0.32),
    ]
    best = make_config(None, tmp_path / "best.json", {})
    told = capsys.readouterr().out
    assert best.kimg == 3.2
    assert best == msgspec.structs.replace(
        make_config(str(blobs), None, {"loss": best.loss, "precision": best.precision}), kimg=3.2, batch_size=16,
        z_dim=4, g_channels=4, d_channels=4, threads=1,
    )  # fmt: skip
    assert main(words) == 0
    assert capsys.readouterr().out == told


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


def test_a_sweep_of_failures_alone_fails(
    blobs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a training that diverges does: no best, no configuration of one, and every file is kept; again as well."""
    folder = tmp_path / "sweep"
    take = Steps.take

    def poisoned(steps: Steps) -> object:
        if steps.state.num_images >= 160:  # after the first of two snapshots
            next(steps.state.G.parameters()).data.fill_(float("nan"))
        return take(steps)

    monkeypatch.setattr(Steps, "take", poisoned)
    words = ["train", str(blobs), *TINY, "--run-dir", str(folder), "--sweep", "seed=0,1"]
    for _ in range(2):
        assert main(words) == Diverged.exit_status
        told = capsys.readouterr()
        assert "best" not in told.out
        assert told.out.count("of G is not finite") == 2
        assert f"every training failed: none is the best, and all of {folder} is kept" in told.err
        assert sorted(path.name for path in folder.iterdir()) == ["seed=0", "seed=1"]
        for path in folder.iterdir():
            assert RunDir(path).snapshots() == [0.16]
            assert RunDir(path).load_checkpoint()["num_images"] == 160


def test_without_scores_no_training_is_the_best(
    blobs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing diverged, and nothing could be measured: the validation split is too uniform."""
    monkeypatch.setattr("trainer.training.make_scorer", lambda _: None)
    assert main(["train", str(blobs), *TINY, "--run-dir", str(tmp_path), "--sweep", "seed=0,1"]) == 3
    assert "no training has a score: none is the best" in capsys.readouterr().err
    assert sorted(path.parent.name for path in tmp_path.rglob("checkpoint.pt")) == ["seed=0", "seed=1"]


@pytest.mark.parametrize(
    ("sweep", "complaint"),
    [
        ("batch_size=16,8192", "sweep: batch_size=8192: 124 training images do not fill a batch of 8192"),
        ("preset=resize,mlp", "sweep: preset=mlp: mlp does not make images"),
        ("d_period=1,40", "sweep: d_period=40: D's first period of 40 steps takes 640 images"),
    ],
)
def test_a_sweep_that_could_not_end_is_not_begun(
    blobs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], sweep: str, complaint: str
) -> None:
    """A batch that the data do not fill, other networks, no turn for G: refused before anything is written."""
    words = [word for word in TINY if "batch" not in word] + ["--batch-size=16", "--d-norm=none"]
    folder = tmp_path / "sweep"
    assert main(["train", str(blobs), *words, "--run-dir", str(folder), "--sweep", sweep]) == 2
    assert complaint in capsys.readouterr().err
    assert not folder.exists()


def test_a_sweep_in_the_folder_of_another_is_not_begun(
    blobs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though only its last training differs from what is there."""
    words = ["train", str(blobs), *TINY, "--run-dir", str(tmp_path), "--sweep"]
    monkeypatch.setattr("trainer.sweeping.train_run", lambda *_: False)
    assert main([*words, "seed=1,2"]) == 130  # stopped in its first
    other = tmp_path / "seed=3"
    (tmp_path / "seed=1").rename(other)
    capsys.readouterr()
    assert main([*words, "seed=1,3"]) == 1
    assert "is a training with another seed (1, not 3)" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["seed=3"]


@pytest.mark.parametrize(("deed", "last"), [("save_snapshot", 2), ("save_checkpoint", 2)])
def test_a_training_that_was_killed_at_its_end_is_ended(
    blobs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    deed: str,
    last: int,
) -> None:
    """Killed in the last snapshot of the first training, a sweep ends and ranks as one that was not."""
    words = ["train", str(blobs), *TINY, "--sweep", "lr=1x,0x", "--run-dir"]
    assert main([*words, str(tmp_path / "whole")]) == 0
    with monkeypatch.context() as patch:
        kill_in_call(patch, deed, last)
        with pytest.raises(Killed):
            main([*words, str(tmp_path / "killed")])
    assert main([*words, str(tmp_path / "killed")]) == 0
    whole, killed = (json.loads((tmp_path / name / "sweep.json").read_text()) for name in ("whole", "killed"))
    assert killed == whole
    for name in ("lr=1x", "lr=0x"):
        assert list(RunRecord(tmp_path / "killed" / name).scores) == [0.16, 0.32]


def test_a_sweep_that_was_killed_while_it_deleted_does_not_train_again(
    blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest is deleted by the same command, and nothing is trained for it."""
    words = ["train", str(blobs), *TINY, "--sweep", "lr=1x,0x", "--run-dir", str(tmp_path)]
    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", lambda _: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            main(words)
    monkeypatch.setattr("trainer.sweeping.train_run", lambda *_: pytest.fail("it trains again"))
    assert main(words) == 0
    best = json.loads((tmp_path / "sweep.json").read_text())["best"]
    (other,) = {"lr=1x", "lr=0x"} - {best}
    assert sorted(path.name for path in (tmp_path / other).iterdir()) == [
        ".lock", "config.json", "samples", "stats.jsonl"
    ]  # fmt: skip


def test_sweeps_are_not_resumed_by_name(blobs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--resume is for single runs; a length without a sweep is a mistake."""
    assert main(["train", "--resume", str(tmp_path), "--sweep", "lr=1x,2x"]) == 2
    assert "a sweep goes on by itself" in capsys.readouterr().err
    assert main(["train", str(blobs), "--sweep-kimg", "1"]) == 2
    assert "sweep_kimg" in capsys.readouterr().err
