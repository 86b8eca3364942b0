"""Numbers that are not finite: who says so, when, and what is left as it was."""

import copy
import math
import re
import shlex
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from genserve.cli import main
from tests.trainer.conftest import SHAPE
from tests.trainer.test_parts import noise
from tests.trainer.test_runs import equal
from trainer.config import Config
from trainer.finite import Diverged, Lookout
from trainer.run_dir import RunDir
from trainer.state import Batch, State
from trainer.steps import Steps


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_is_named(tiny: Config, value: float) -> None:
    """Step, tensor and network are said, and no weight was touched."""
    state = State(tiny, SHAPE)
    state.D.features[0].weight.register_hook(lambda gradient: gradient * value)
    before = {name: p.detach().clone() for name, p in state.D.named_parameters()}
    with pytest.raises(Diverged, match=r"step 0: the gradient of features\.0\.weight of D is not finite"):
        state.train_d(noise(), 0)
    assert all(torch.equal(p, before[name]) for name, p in state.D.named_parameters())


def test_a_weight_that_is_not_finite_is_named(tiny: Config) -> None:
    """It makes every gradient NaN, in both networks: the weight is what is named, whoever plays."""
    state = State(tiny, SHAPE)
    state.G.to_image.bias.data.fill_(float("nan"))
    with pytest.raises(Diverged, match=r"step 0: to_image\.bias of G is not finite"):
        state.train_g(noise())
    with pytest.raises(Diverged, match=r"step 0: to_image\.bias of G is not finite"):
        state.train_d(noise(), 0)


def test_who_looks_seldom_loses_nothing(tiny: Config) -> None:
    """A fault in one step of D, found six steps later: it is named, and no weight or moment moved from there on."""
    state = State(tiny, SHAPE)
    state.lookout = Lookout(10)
    bad = Batch(noise().images * math.nan)
    before: dict[str, Any] = {}
    for d_step, real in enumerate((noise(), noise(), bad, noise())):
        if real is bad:
            before = copy.deepcopy(state.state_dict())
        state.train_d(real, d_step)
        state.train_g(noise())
    after = state.state_dict()
    for name, optimiser in (("G", "g_optimiser"), ("D", "d_optimiser")):
        weights = [key for key, _ in getattr(state, name).named_parameters()]
        assert equal([before[name][key] for key in weights], [after[name][key] for key in weights])
        assert equal(before[optimiser]["state"], after[optimiser]["state"])
    with pytest.raises(Diverged, match="step 4: the loss of D is not finite"):
        state.lookout.settle()


def test_a_run_that_diverged_says_how_to_begin_anew(
    blobs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """--resume meets the same value; the command that is named trains with the same settings and lower rates."""
    take = Steps.take

    def poisoned(steps: Steps) -> object:
        if steps.state.num_images >= 160 and steps.state.config.g_lr > 1e-4:
            next(steps.state.G.parameters()).data.fill_(math.nan)
        return take(steps)

    monkeypatch.setattr(Steps, "take", poisoned)
    monkeypatch.chdir(tmp_path)
    settings = ["--kimg=0.32", "--snapshot-kimg=0.08", "--batch-size=16", "--g-channels=4", "--d-channels=4"]
    assert main(["train", str(blobs), *settings, "--threads=1", "--run-dir", "a run"]) == Diverged.exit_status
    told = capsys.readouterr().err
    assert main(["train", "--resume", "a run"]) == Diverged.exit_status
    again = capsys.readouterr().err
    fault, command = re.findall(
        r"(step \d+: linear.weight of G is not finite); --resume alone .*`genserve (.*)`", told
    )[0]
    assert fault in again
    assert main([*shlex.split(command), "--run-dir", "anew"]) == 0
    before, after = (RunDir(tmp_path / name).read().config for name in ("a run", "anew"))
    assert after == msgspec.structs.replace(before, g_lr=before.g_lr / 10, d_lr=before.d_lr / 10)


def test_looking_seldom_changes_no_step(tiny: Config) -> None:
    """As long as everything is finite."""
    often, seldom = State(tiny, SHAPE), State(tiny, SHAPE)
    seldom.lookout = Lookout(3)
    for d_step in range(4):
        for state in (often, seldom):
            state.train_d(noise(), d_step)
            state.train_g(noise())
    assert equal(often.state_dict(), seldom.state_dict())
