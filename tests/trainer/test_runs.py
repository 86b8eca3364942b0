"""Whole runs: resuming, stopping, exporting, and the commands."""

import copy
import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from models.errors import DataError, Invalid, NotFound, Refused
from models.export_record import read_export_record
from models.generator import Generator as OnnxGenerator
from models.latents import draw
from models.manifest import Classes
from tests.trainer.conftest import SHAPE
from tests.waiting import wait_until
from trainer import commands
from trainer.config import Config, make_config
from trainer.ema import reestimate_statistics
from trainer.exporting import choose
from trainer.finite import Diverged
from trainer.loop import Trainer
from trainer.network_parts import Generator
from trainer.networks import make_generator
from trainer.objectives import OBJECTIVES
from trainer.onnx_export import Servable, parity, to_onnx
from trainer.precision import suited
from trainer.progress import Meter, duration
from trainer.recipes import recipe
from trainer.run_dir import Run, RunDir
from trainer.selection import sample
from trainer.signals import Score, Stats
from trainer.signatures import signature_of
from trainer.state import State

TWO_CLASSES = Classes(names=("dark", "light"), frequencies=(0.25, 0.75))


class StopAfter(Meter):
    """Asks its trainer to stop after so many steps of either network."""

    trainer: Trainer
    steps_left: int = -1

    def show(self, kimg: float) -> None:
        self.steps_left -= 1
        if self.steps_left == 0:
            self.trainer.stop()


def run(
    config: Config,
    images: np.ndarray,
    path: Path,
    stop_after: int = -1,
    kind: type[StopAfter] = StopAfter,
    labels: np.ndarray | None = None,
) -> bool:
    """Begin a run, or go on with it; says whether it is done."""
    run_dir, state = RunDir(path), State(config, images.shape[1:], None if labels is None else TWO_CLASSES)
    if not (path / "config.json").exists():
        shape = images.shape[1:]
        run_dir.create(Run(config=config, data_hash="0", licence=None, shape=shape, code_version="test"))
    else:
        state.load_state_dict(run_dir.load_checkpoint())
    meter = kind(config.kimg)
    trainer = Trainer(state, images, labels, run_dir, meter, None)
    meter.trainer, meter.steps_left = trainer, stop_after
    return trainer.run()


def equal(a: Any, b: Any) -> bool:
    """Bit for bit, through dicts and lists."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(equal(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


# Resuming.


@pytest.mark.parametrize("stops", [(13,), (3, 29)])
def test_a_resumed_run_ends_bit_identical(tmp_path: Path, stops: tuple[int, ...]) -> None:
    """Stopped mid-epoch and mid-period, once or twice, the default networks end in the same bits as without.

    In bf16 where the processor has it: emulated, these few steps take minutes.
    """
    config = Config(
        data="noise", batch_size=8, kimg=0.2, d_period=3, g_period=2, threads=1, snapshot_kimg=0.07, seed=5,
        precision=suited("cpu"),
    )  # fmt: skip
    images = np.random.RandomState(0).randint(0, 256, (83, 28, 28, 1), dtype=np.uint8)
    torch.use_deterministic_algorithms(True)
    assert run(config, images, tmp_path / "whole")
    for stop in stops:
        assert not run(config, images, tmp_path / "stopped", stop)
    assert run(config, images, tmp_path / "stopped")
    whole, stopped = (RunDir(tmp_path / name) for name in ("whole", "stopped"))
    assert equal(whole.load_checkpoint(), stopped.load_checkpoint())
    assert whole.snapshots() == stopped.snapshots()
    for kimg in whole.snapshots():
        assert equal(whole.load_snapshot(kimg), stopped.load_snapshot(kimg))
    assert not equal(whole.load_snapshot(whole.snapshots()[0]), whole.load_snapshot(whole.snapshots()[-1]))


@pytest.mark.parametrize("loss", OBJECTIVES)
def test_every_objective_resumes_bit_identical(tmp_path: Path, tiny: Config, loss: str) -> None:
    """With its own penalties and normalisation, stopped in the middle of a period."""
    settings = {**recipe(None, loss), "loss": loss, "kimg": 0.32, "snapshot_kimg": 0.32}
    config = msgspec.structs.replace(tiny, **settings)
    images = np.random.RandomState(0).randint(0, 256, (64, *SHAPE), dtype=np.uint8)
    assert run(config, images, tmp_path / "whole")
    assert not run(config, images, tmp_path / "stopped", 7)
    assert run(config, images, tmp_path / "stopped")
    whole, stopped = (RunDir(tmp_path / name).load_checkpoint() for name in ("whole", "stopped"))
    assert equal(whole, stopped)


class PoisonAfter(StopAfter):
    """Makes a weight of G NaN after so many steps."""

    def show(self, kimg: float) -> None:
        self.steps_left -= 1
        if self.steps_left == 0:
            self.trainer.state.G.to_image.bias.data.fill_(float("nan"))


def test_a_run_that_diverges_keeps_its_last_good_checkpoint(tmp_path: Path, tiny: Config) -> None:
    """Whoever plays next after a NaN in G: an error that says where it is, and nothing is saved."""
    images = np.random.RandomState(0).randint(0, 256, (64, *SHAPE), dtype=np.uint8)
    for last in (7, 8):
        with pytest.raises(Diverged, match=rf"step {last}: to_image\.bias of G is not finite"):
            run(tiny, images, tmp_path / str(last), last, PoisonAfter)
        assert not RunDir(tmp_path / str(last)).checkpoint_path.exists()


def test_a_checkpoint_is_finite_or_not_written(tmp_path: Path, tiny: Config) -> None:
    """Poisoned by the very step before a snapshot: the checkpoint of the snapshot before stays as it was."""
    images = np.random.RandomState(0).randint(0, 256, (64, *SHAPE), dtype=np.uint8)
    config = msgspec.structs.replace(tiny, snapshot_kimg=0.064)  # steps 0 2 4 6 show D images: the first after step 6
    with pytest.raises(Diverged, match=r"step 15: to_image\.bias of G is not finite"):
        run(config, images, tmp_path / "run", 15, PoisonAfter)
    assert RunDir(tmp_path / "run").load_checkpoint()["step"] == 7
    assert RunDir(tmp_path / "run").snapshots() == [0.064]


def test_a_snapshot_disturbs_nothing(tmp_path: Path, tiny: Config) -> None:
    """With ten times as many snapshots the run ends in the same bits."""
    images = np.random.RandomState(0).randint(0, 256, (64, *SHAPE), dtype=np.uint8)
    often = msgspec.structs.replace(tiny, snapshot_kimg=tiny.snapshot_kimg / 10)
    run(tiny, images, tmp_path / "a")
    run(often, images, tmp_path / "b")
    assert equal(RunDir(tmp_path / "a").load_checkpoint(), RunDir(tmp_path / "b").load_checkpoint())


def test_ctrl_c_saves_and_says_how_to_resume(tmp_path: Path, blobs: Path, parse: Any) -> None:
    """Interrupted, `genserve train` exits 130 with the command that goes on, and that command finishes the run."""
    run_dir = tmp_path / "run"
    settings = ["--batch-size", "16", "--g-channels", "4", "--d-channels", "4", "--threads", "1", "--kimg", "1000000"]
    command = [sys.executable, "-m", "genserve", "train", str(blobs), "--run-dir", str(run_dir), *settings]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        wait_until(lambda: (run_dir / "stats.jsonl").exists() or process.poll() is not None, 120)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert f"genserve train --resume {run_dir}" in errors
    saved = RunDir(run_dir).load_checkpoint()
    assert saved["num_images"] >= 2000
    shortened = msgspec.json.decode((run_dir / "config.json").read_bytes())
    shortened["config"]["kimg"] = (saved["num_images"] + 32) / 1000  # a million kimg would take the tests too long
    (run_dir / "config.json").write_bytes(msgspec.json.encode(shortened))
    assert commands.train(parse("train", "--resume", run_dir)) == 0
    assert RunDir(run_dir).load_checkpoint()["num_images"] == saved["num_images"] + 32
    snapshots = RunDir(run_dir).stats()
    assert commands.train(parse("train", "--resume", run_dir)) == 0
    assert RunDir(run_dir).stats() == snapshots  # a finished run has nothing left to do


# The commands.


def test_from_data_to_onnx(tmp_path: Path, blobs: Path, parse: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """train and export on an .npz: the best snapshot becomes an ONNX file with its proof and its record."""
    run_dir = RunDir(tmp_path / "run")
    words = ("--batch-size", 16, "--g-channels", 4, "--d-channels", 4, "--threads", 1, "--kimg", 0.64)
    assert commands.train(parse("train", blobs, "--run-dir", run_dir.path, "--snapshot-kimg", 0.32, *words)) == 0
    assert run_dir.snapshots() == [0.32, 0.64]
    assert set(run_dir.scores()) == {0.32, 0.64}
    assert sorted(path.name for path in (run_dir.path / "samples").iterdir()) == ["000000.320.png", "000000.640.png"]
    assert commands.export(parse("export", run_dir.path)) == 0
    record = read_export_record(run_dir.export_dir / "export.json")
    best = min(run_dir.scores(), key=lambda kimg: run_dir.scores()[kimg].share)
    assert (record.checkpoint_kimg, record.chosen_by) == (best, "validation FD")
    assert record.data_hash == run_dir.read().data_hash
    assert record.configuration["batch_size"] == 16
    generator = OnnxGenerator.from_bytes((run_dir.export_dir / "model.onnx").read_bytes())
    assert generator.digest == record.digest
    assert generator.generate(draw(generator.signature, range(5)).z).shape == (5, *SHAPE)
    proofs = json.loads((run_dir.export_dir / "parity.json").read_text())
    assert [proof["batch"] for proof in proofs] == [1, 2, 7, 32]
    assert str(run_dir.export_dir / "model.onnx") in capsys.readouterr().out

    other = tmp_path / "other.onnx"
    picked = parse("export", run_dir.path, "--checkpoint", 0.3, "--reason", "sharper squares", "-o", other)
    assert commands.export(picked) == 0
    record = read_export_record(tmp_path / "other.export.json")
    assert (record.checkpoint_kimg, record.chosen_by, record.reason) == (0.32, "a person", "sharper squares")
    assert commands.export(parse("export", run_dir.path, "--checkpoint", 0.64, "-o", tmp_path / "third.onnx")) == 0
    assert read_export_record(tmp_path / "other.export.json") == record  # each file keeps its own
    made = {path.name for path in tmp_path.iterdir() if path.is_file()}
    assert made == {f"{name}.{end}" for name in ("other", "third") for end in ("onnx", "parity.json", "export.json")}
    with pytest.raises(Invalid, match="is a folder"):
        commands.export(parse("export", run_dir.path, "-o", tmp_path))


def test_a_run_is_not_begun_twice(tmp_path: Path, blobs: Path, tiny: Config, parse: Any) -> None:
    """A folder that holds a run is refused, with the way to go on with it."""
    shape = SHAPE
    run_dir = RunDir(tmp_path / "run")
    run_dir.create(Run(config=tiny, data_hash="0", licence=None, shape=shape, code_version="test"))
    with pytest.raises(Invalid, match="--resume"):
        commands.train(parse("train", blobs, "--run-dir", run_dir.path))
    with pytest.raises(DataError, match="has changed"):
        commands.train(parse("train", "--resume", run_dir.path))
    with pytest.raises(Invalid, match="leave out kimg"):
        commands.train(parse("train", "--resume", run_dir.path, "--kimg", 5))
    with pytest.raises(NotFound, match="holds no run"):
        commands.train(parse("train", "--resume", tmp_path / "nothing"))


def test_trainings_begun_at_once_have_a_folder_each(
    tmp_path: Path, blobs: Path, parse: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have chosen theirs before either is made."""
    chosen = Barrier(2)
    create, trained = RunDir.create, []

    def create_together(run_dir: RunDir, run: Run) -> None:
        chosen.wait(timeout=20)
        create(run_dir, run)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(RunDir, "create", create_together)
    monkeypatch.setattr(commands, "train_run", lambda run_dir, *_: trained.append(str(run_dir.path)) or True)
    args = parse("train", blobs, "--threads", 1)
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(commands.train, [args, args])) == [0, 0]
    assert sorted(trained) == [f"runs/{i:03d}-{blobs.stem}" for i in range(2)]


def test_vectors_are_refused(tmp_path: Path, parse: Any) -> None:
    """By presets for images; the one for vectors is named."""
    np.savez(tmp_path / "v.npz", samples=np.zeros((50, 2), np.float32))
    with pytest.raises(DataError, match="holds vectors, and resize makes images: --preset mlp"):
        commands.train(parse("train", tmp_path / "v.npz", "--run-dir", tmp_path / "run"))


# Configuration.


def test_flags_override_the_file_and_the_file_the_defaults(tmp_path: Path) -> None:
    """A TOML file sets what it names, a flag beats it, and everything else is the default."""
    (tmp_path / "c.toml").write_text('data = "mnist"\nkimg = 5\nz_dim = 16\n')
    config = make_config(None, tmp_path / "c.toml", {"kimg": 7.0})
    assert (config.data, config.kimg, config.z_dim) == ("mnist", 7.0, 16)
    assert config.batch_size == Config(data="x").batch_size


def test_fashion_mnist_trains_with_its_tested_configuration() -> None:
    """Without a file the data set's own configuration is used: at least a million images."""
    assert make_config("fashion-mnist", None, {}).kimg >= 1000


@pytest.mark.parametrize(("text", "complaint"), [("kimgs = 5", "kimgs"), ("kimg = 'x'", "float"), ("=", "c.toml")])
def test_a_wrong_configuration_file_is_explained(tmp_path: Path, text: str, complaint: str) -> None:
    """An unknown setting, a wrong type and broken TOML each name what is wrong."""
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(Invalid, match=complaint):
        make_config("mnist", tmp_path / "c.toml", {})


# Export.


@pytest.fixture
def trained(tiny: Config) -> Generator:
    """A generator whose BatchNorm has something to fold."""
    torch.manual_seed(0)
    G = make_generator(tiny, SHAPE)
    for p in G.parameters():
        p.data.add_(torch.randn_like(p), alpha=0.3)
    reestimate_statistics(G, signature_of(tiny, SHAPE), 16, "fp32")
    return G


@pytest.mark.parametrize("hidden", [0, 12])
@pytest.mark.parametrize("preset", ["dcgan", "resize"])
def test_folding_changes_nothing(tiny: Config, preset: str, hidden: int) -> None:
    """Without any BatchNorm the folded generator gives the same images within 1e-5."""
    torch.manual_seed(0)
    G = make_generator(msgspec.structs.replace(tiny, preset=preset, g_channels=8, g_hidden=hidden), (28, 28, 3))
    reestimate_statistics(G, signature_of(tiny, (28, 28, 3)), 16, "fp32")
    servable = Servable(copy.deepcopy(G))
    assert not any(isinstance(module, _BatchNorm) for module in servable.modules())
    z = torch.randn(9, tiny.z_dim)
    with torch.no_grad():
        torch.testing.assert_close(servable.G(z), G(z), atol=1e-5, rtol=0)


def test_the_file_is_the_network_and_nothing_else(tiny: Config, trained: Generator) -> None:
    """Same network, same bytes; no path of this machine inside; samples as torch makes them; signature in place."""
    signature = signature_of(tiny, SHAPE)
    data = to_onnx(Servable(trained), signature)
    assert data == to_onnx(Servable(copy.deepcopy(trained)), signature)
    assert b".py" not in data
    generator = OnnxGenerator.from_bytes(data)
    assert generator.signature == signature
    assert onnx.load_from_string(data).opset_import[0].version >= 18
    seeds = np.arange(20)
    difference = generator.generate(draw(signature, seeds).z).astype(int) - sample(trained, signature, seeds)
    assert np.mean(np.abs(difference) <= 1) >= 0.999
    assert generator.generate(draw(signature, seeds).z).std() > 10  # and they are not all alike


def test_a_file_that_differs_is_refused(tiny: Config, trained: Generator) -> None:
    """Parity against another network fails with the share that agreed."""
    signature = signature_of(tiny, SHAPE)
    data = to_onnx(Servable(trained), signature)
    other = copy.deepcopy(trained)
    other.to_image.weight.data.mul_(-1)
    with pytest.raises(Refused, match=r"of the values within one level at batch 1"):
        parity(Servable(other), data, signature)


def test_the_lowest_fd_is_chosen_and_a_person_may_overrule(tmp_path: Path) -> None:
    """The lowest share wins, the later one of equals; a pick carries its reason; a missing one lists what there is."""
    run_dir = RunDir(tmp_path)
    (tmp_path / "snapshots").mkdir()
    for kimg in (50.048, 100.032, 150.016):
        run_dir.save_snapshot(kimg, {})
    scores = {
        kimg: Score(fd=share, share=share, extractor="e@1234")
        for kimg, share in ((50.048, 0.3), (100.032, 0.1), (150.016, 0.1))
    }
    chosen = choose(run_dir, None, None, scores)
    assert (chosen.kimg, chosen.chosen_by) == (150.016, "validation FD")
    assert "FD/Tr[e@1234] 0.1000" in chosen.reason
    assert choose(run_dir, 50, "nicer", scores) == (50.048, "a person", "nicer")
    with pytest.raises(NotFound, match=r"50\.048, 100\.032, 150\.016"):
        choose(run_dir, 70, None, scores)
    with pytest.raises(Invalid, match="--checkpoint"):
        choose(run_dir, None, "nicer", scores)


# Progress.


def test_statistics_are_means_since_the_last_line() -> None:
    """Two steps in two seconds: means of both, images a second, and the time left at that rate."""
    now = [10.0]
    meter = Meter(1.0, clock=lambda: now[0])
    meter.begin(0.0)
    meter.add_d((1.0, 0.6, 0.4, 1.0))
    meter.add_d((3.0, 0.8, 0.2, 2.0))
    meter.add_g((5.0, 0.25))
    now[0] = 12.0
    stats = meter.report(0.1)
    assert (stats.d_loss, stats.g_loss, stats.images_per_second) == (2.0, 5.0, 50.0)
    assert (stats.d_norm, stats.g_norm) == (1.5, 0.25)
    assert meter.line(stats) == "0.1/1 kimg  D(x) 0.70  D(G(z)) 0.30  50 images/s  18s left"


def test_durations_for_a_person() -> None:
    """Seconds, minutes with seconds, hours with minutes."""
    assert [duration(s) for s in (42, 425, 12_000)] == ["42s", "7m 05s", "3h 20m"]


def test_a_resumed_run_forgets_what_it_does_again(tmp_path: Path) -> None:
    """Lines after the checkpoint go, those before stay."""
    run_dir = RunDir(tmp_path)
    for kimg in (2.0, 4.0, 6.0):
        run_dir.append_stats(Stats(kimg=kimg, d_loss=1.0))
    run_dir.forget_stats_after(4.0)
    assert [stats.kimg for stats in run_dir.stats()] == [2.0, 4.0]
