"""Several processes: the same training as one, errors told once, and what is refused."""

import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from models.errors import Invalid
from tests.trainer import crews
from tests.trainer.conftest import SHAPE
from tests.waiting import wait_until
from trainer import commands
from trainer.config import Config, make_config
from trainer.distributed import Crew, assembled, check_batch, resolve, share_of_threads
from trainer.finite import Lookout
from trainer.networks import check_crew, make_generator, place
from trainer.run_dir import RunDir
from trainer.state import DStep, GStep
from trainer.streams import Stream
from trainer.training import check_fit

TWO = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
ALONE = Crew()


def two(*words: object) -> list[str]:
    """A command in two processes."""
    return [sys.executable, *TWO, *map(str, words)]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def crew(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two processes left what they computed and said."""
    out = tmp_path_factory.mktemp("crew")
    done = subprocess.run(
        two("tests.trainer.crews", out), env=environment(), timeout=240, stderr=subprocess.PIPE, text=True
    )
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def played(crew: Path) -> dict[str, Any]:
    """By game, what two processes computed."""
    found: dict[str, Any] = torch.load(crew / "crew.pt", weights_only=True)
    return found


@pytest.mark.parametrize("name", crews.GAMES)
def test_two_processes_train_as_one(played: dict[str, Any], name: str) -> None:
    """Every parameter's gradient within 1e-4 of its length at step 1, every loss within 1e-3 for 20 steps."""
    torch.use_deterministic_algorithms(True)
    alone, together = crews.play(crews.GAMES[name], ALONE), played[name]
    assert alone["gradients"].keys() == together["gradients"].keys()
    assert any(gradient.any() for gradient in alone["gradients"].values())
    rounding = torch.finfo().eps * max(map(torch.linalg.vector_norm, alone["gradients"].values()))  # where terms cancel
    for parameter, gradient in alone["gradients"].items():
        error = torch.linalg.vector_norm(together["gradients"][parameter] - gradient)
        assert error <= 1e-4 * torch.linalg.vector_norm(gradient) + rounding, parameter
    assert len(set(alone["losses"])) > crews.STEPS / 2
    np.testing.assert_allclose(together["losses"], alone["losses"], rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", crews.GAMES)
def test_one_process_goes_on_with_the_run_of_two(played: dict[str, Any], name: str) -> None:
    """From a checkpoint of two processes one takes the same steps, its z, noise and data included."""
    torch.use_deterministic_algorithms(True)
    state = crews.make_state(crews.GAMES[name], ALONE)
    state.load_state_dict(played[name]["half"])
    assert state.step == crews.HALF
    rest = crews.losses(state, crews.STEPS - crews.HALF)
    np.testing.assert_allclose(rest, played[name]["losses"][crews.HALF :], rtol=0, atol=1e-3)


def test_each_process_sees_its_part_of_the_batch() -> None:
    """Together exactly what one process draws; of real and generated in one call, the same part of both."""
    whole, parts = Stream(5, 8), [Stream(5, 8, Crew(rank, 2)) for rank in range(2)]
    for draw in (
        lambda stream, n: stream.rand(n, 3),
        lambda stream, n: stream.randn(n),
        lambda stream, n: stream.randint(0, 1000, n, 2),
        lambda stream, n: stream.rand(3, n, axis=1).movedim(1, 0),
    ):
        assert torch.equal(torch.cat([draw(part, 4) for part in parts]), draw(whole, 8))
    both, (first, second) = whole.rand(16), (part.rand(8) for part in parts)
    assert torch.equal(torch.cat([first[:4], second[:4], first[4:], second[4:]]), both)


# When something goes wrong.


def test_a_nan_in_one_process_stops_all(crew: Path) -> None:
    """Both say the same: the step, the tensor, and in which process it began."""
    first, second = ((crew / f"told{rank}.txt").read_text().splitlines() for rank in range(2))
    assert first[0] == second[0]
    assert re.fullmatch(r"step 0 \(process 1\): the gradient of layers\.\S+ of D is not finite", first[0])


def test_what_fails_in_the_first_process_is_known_to_all(crew: Path) -> None:
    """Beside the steps; and so is a wish of any."""
    first, second = ((crew / f"told{rank}.txt").read_text().splitlines()[1:] for rank in range(2))
    assert first == ["Invalid", "True", "False"]
    assert second == ["Elsewhere", "True", "False"]


def test_a_batch_must_divide() -> None:
    """Among the processes, or the error says what would."""
    check_batch(15, Crew(size=3))
    with pytest.raises(Invalid, match="batch_size: 15 images do not divide among 2 processes: choose a multiple of 2"):
        check_batch(15, Crew(size=2))


@pytest.mark.parametrize(("preset", "d_norm"), [("resize", "batch"), ("dcgan", "none"), ("resize", "spectral")])
def test_batch_norm_refuses_several_processors(preset: str, d_norm: str) -> None:
    """With the reason and what to use; not one process, not GPUs, and not networks without it."""
    config = make_config("noise", None, {"preset": preset, "d_norm": d_norm})
    with pytest.raises(Invalid, match=f"preset: BatchNorm of {preset} needs .* r3gan"):
        check_crew(config, SHAPE, Crew(size=2))
    check_crew(config, SHAPE, ALONE)
    check_crew(config, SHAPE, Crew(size=2, device=torch.device("cuda")))
    check_crew(make_config("noise", None, {"preset": "r3gan"}), SHAPE, Crew(size=2))
    check_crew(make_config("noise", None, {"preset": "mlp"}), (2,), Crew(size=2))


def test_the_command_in_two_processes(tmp_path: Path, parse: Any) -> None:
    """One voice and one folder; SIGTERM to torchrun stops both at one step, saved; one process goes on."""
    run_dir = tmp_path / "run"
    np.savez(tmp_path / "data.npz", samples=np.random.RandomState(0).standard_normal((400, 2)))
    words = ["--preset", "mlp", "--g-channels", 8, "--d-channels", 8, "--threads", 2, "--kimg", 1_000_000]
    command = two("genserve", "train", tmp_path / "data.npz", "--run-dir", run_dir, "--device", "cpu", *words)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment()) as process:
        wait_until(lambda: (run_dir / "stats.jsonl").exists() or process.poll() is not None, 120)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert errors.count("400 samples of 2") == 1, errors
    assert errors.count("in 2 processes, in fp32; Ctrl-C saves and stops") == 1
    assert errors.count(f"stopped and saved: go on with `genserve train --resume {run_dir}`") == 1
    assert errors.count("Traceback") == 1  # torchrun's own, of the signal
    saved = RunDir(run_dir).load_checkpoint()
    config = RunDir(run_dir).read().config
    assert (config.device, config.threads) == ("cpu", 2)
    shortened = msgspec.json.decode((run_dir / "config.json").read_bytes())
    shortened["config"]["kimg"] = (saved["num_images"] + 512) / 1000
    (run_dir / "config.json").write_bytes(msgspec.json.encode(shortened))
    assert commands.train(parse("train", "--resume", run_dir)) == 0
    assert RunDir(run_dir).load_checkpoint()["num_images"] == saved["num_images"] + 512


# Devices.


def test_the_device_is_pinned(tmp_path: Path, blobs: Path, parse: Any) -> None:
    """config.json says what "auto" came to, so that a resumed run stays where it was."""
    words = ("--batch-size", 16, "--g-channels", 4, "--d-channels", 4, "--threads", 1, "--kimg", 0.032)
    assert commands.train(parse("train", blobs, "--run-dir", tmp_path / "run", *words)) == 0
    assert RunDir(tmp_path / "run").read().config.device == resolve("auto")


def test_a_missing_device_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """cuda where torch sees none; auto then is the processor."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(Invalid, match="device: torch sees no CUDA device here"):
        resolve("cuda")
    assert (resolve("auto"), resolve("cpu")) == ("cpu", "cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert (resolve("auto"), resolve("cpu"), resolve("cuda")) == ("cuda", "cpu", "cuda")


def test_a_missing_device_is_refused_before_processes_meet(monkeypatch: pytest.MonkeyPatch, parse: Any) -> None:
    """By each of them, whatever else the command line leaves open."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(Invalid, match="device: torch sees no CUDA device here"):
        commands.train(parse("train", "x", "--device", "cuda"))


def test_every_process_needs_a_device_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """More processes than CUDA devices are refused before they meet, and so is a run of another device."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    with pytest.raises(Invalid, match=r"3 processes .* 2 CUDA devices: --nproc-per-node 2"), assembled("cuda"):
        pass
    with pytest.raises(Invalid, match="device: the run is on cuda, and this process on cpu"):
        check_fit(make_config("noise", None, {"device": "cuda"}), SHAPE, ALONE)


def test_threads_are_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Among the processes of a machine, one each at least."""
    assert share_of_threads(8) == 8
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    assert (share_of_threads(8), share_of_threads(2)) == (2, 1)


def test_batch_norms_of_gpus_are_joined(tiny: Config) -> None:
    """Every BatchNorm sees all processes' batch, under the same names, with the same weights; alone nothing changes."""
    alone, joined = (make_generator(tiny, SHAPE) for _ in range(2))
    joined.load_state_dict(alone.state_dict())
    joined = place(joined, Crew(size=2))
    kinds = [type(module) for module in joined.modules()]
    assert torch.nn.SyncBatchNorm in kinds
    assert torch.nn.BatchNorm2d not in kinds
    (sync, *_) = (module for module in joined.modules() if isinstance(module, torch.nn.SyncBatchNorm))
    (hook,) = sync._forward_pre_hooks.values()
    assert hook(sync, (torch.zeros(2, dtype=torch.bfloat16),))[0].dtype == torch.float32
    for (name, a), (other, b) in zip(alone.state_dict().items(), joined.state_dict().items(), strict=True):
        assert name == other
        assert torch.equal(a, b)
    assert place(alone, ALONE) is alone


@pytest.mark.parametrize("name", crews.GAMES)
def test_nothing_of_a_step_stays_on_the_processor(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A device without values, where mixing devices is an error, takes steps of both players, drawn on the processor.

    It has no autocast and no fused Adam: those are left out. Nothing is waited for: that would fail.
    """
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: contextlib.nullcontext())
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: False)
    see = Lookout.see
    monkeypatch.setattr(Lookout, "see", lambda self, seen: (see(self, seen), None)[1])  # SGD takes no flag
    monkeypatch.setattr(torch.optim, "Adam", lambda *args, fused, **options: torch.optim.SGD(*args, lr=options["lr"]))
    state = crews.make_state(crews.GAMES[name], Crew(device=torch.device("meta")))
    steps = crews.make_steps(state)
    taken = [steps.take() for _ in range(6)]
    assert {type(step) for step in taken} == {DStep, GStep}
    assert all(value.device.type == "meta" for step in taken for value in step)
