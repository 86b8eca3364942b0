"""Class-conditional runs: the class reaches both networks, training learns it, the exported file takes it."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from models.errors import Invalid
from models.generator import Generator as OnnxGenerator
from models.latents import draw
from models.manifest import Classes
from tests.trainer.conftest import SHAPE
from tests.trainer.test_runs import TWO_CLASSES, equal, run
from trainer import commands
from trainer.config import Config, make_config
from trainer.networks import make_discriminator, make_generator
from trainer.onnx_export import Servable, parity, to_onnx
from trainer.run_dir import RunDir
from trainer.signatures import signature_of

PRESETS = ("dcgan", "resize", "r3gan")


def miniature(preset: str, **settings: object) -> Config:
    """A preset with its recipe, conditional, small."""
    small = {"z_dim": 8, "g_channels": 8, "d_channels": 8, "d_hidden": 16, "batch_size": 16, "threads": 1, "seed": 1}
    return make_config("x", None, {"preset": preset, "conditional": True, **small, **settings})


@pytest.fixture(scope="module")
def shades(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An .npz of 400 noisy images, a quarter of them dark and the others light."""
    random = np.random.RandomState(0)
    labels = (np.arange(400) % 4 > 0).astype(np.int64)
    images = (random.randint(0, 60, (400, *SHAPE)) + 190 * labels[:, None, None, None]).astype(np.uint8)
    path = tmp_path_factory.mktemp("data") / "shades.npz"
    np.savez(path, images=images, labels=labels, class_names=np.array(["dark", "light"]))
    return path


@pytest.mark.parametrize("preset", PRESETS)
def test_the_class_reaches_both_networks(preset: str) -> None:
    """The same z, or image, with another class gives another image, or answer."""
    config = miniature(preset)
    G, D = make_generator(config, SHAPE, 3), make_discriminator(config, SHAPE, 3)
    z, images = torch.randn(16, config.z_dim), torch.randn(16, 1, 8, 8)
    for network, inputs in ((G, z), (D, images)):
        first, again, second = (network(inputs, torch.full((16,), c)) for c in (0, 0, 2))
        assert torch.equal(first, again)
        assert not torch.allclose(first, second, atol=1e-4)


@pytest.mark.parametrize("preset", PRESETS)
def test_the_exported_file_takes_the_class(preset: str) -> None:
    """Parity with torch on z and class_idx at every batch size; the classes are in the file's signature."""
    torch.manual_seed(0)
    G = make_generator(miniature(preset), SHAPE, 2).eval().requires_grad_(False)
    for p in G.parameters():
        p.data.add_(torch.randn_like(p), alpha=0.1)
    signature, servable = signature_of(miniature(preset), SHAPE, TWO_CLASSES), Servable(G)
    data = to_onnx(servable, signature)
    assert [proof.batch for proof in parity(servable, data, signature)] == [1, 2, 7, 32]
    generator = OnnxGenerator.from_bytes(data)
    assert generator.signature.classes == TWO_CLASSES
    dark, light = (generator.generate(*draw(signature, range(8), class_idx=c)) for c in (0, 1))
    assert np.mean(dark != light) > 0.2


@pytest.mark.parametrize("preset", PRESETS)
def test_a_conditional_run_resumes_bit_identical(tmp_path: Path, preset: str) -> None:
    """Every preset with its recipe, classes, DiffAugment and periods, stopped in the middle."""
    config = miniature(preset, kimg=0.32, snapshot_kimg=0.32, d_period=2, augment="colour,translation,cutout")
    random = np.random.RandomState(0)
    images, labels = random.randint(0, 256, (64, *SHAPE), dtype=np.uint8), random.randint(0, 2, 64)
    assert run(config, images, tmp_path / "whole", labels=labels)
    assert not run(config, images, tmp_path / "stopped", 7, labels=labels)
    assert run(config, images, tmp_path / "stopped", labels=labels)
    whole, stopped = (RunDir(tmp_path / name).load_checkpoint() for name in ("whole", "stopped"))
    assert equal(whole, stopped)


def test_from_labelled_data_to_a_generator_of_classes(tmp_path: Path, shades: Path, parse: Any) -> None:
    """train --conditional and export: asked for dark or light, the file makes what was asked for."""
    words = ("--batch-size", 32, "--g-channels", 8, "--d-channels", 8, "--threads", 1, "--kimg", 16, "--z-dim", 8)
    rates = ("--g-lr", 2e-3, "--d-lr", 2e-4)  # so small a G needs a patient D
    command = parse(
        "train", shades, "--conditional", "--run-dir", tmp_path / "run", "--snapshot-kimg", 16, *words, *rates
    )
    assert commands.train(command) == 0
    run_dir = RunDir(tmp_path / "run")
    expected = Classes(names=("dark", "light"), frequencies=run_dir.read().classes.frequencies)
    assert run_dir.read().classes == expected
    assert expected.frequencies[1] == pytest.approx(0.75, abs=0.05)
    assert commands.export(parse("export", tmp_path / "run")) == 0
    generator = OnnxGenerator.from_bytes((run_dir.export_dir / "model.onnx").read_bytes())
    assert generator.signature.classes == expected
    dark, light = (generator.generate(*draw(generator.signature, range(50), class_idx=c)).mean() for c in (0, 1))
    assert dark < 100 < 150 < light


def test_data_without_classes_is_refused(tmp_path: Path, blobs: Path, parse: Any) -> None:
    """No labels, and labels of one class only: nothing to condition on, and no folder is made."""
    with pytest.raises(Invalid, match=r"conditional: .* has no labels"):
        commands.train(parse("train", blobs, "--conditional", "--batch-size", 16, "--run-dir", tmp_path / "run"))
    images = np.load(blobs)["images"]
    np.savez(tmp_path / "one.npz", images=images, labels=np.zeros(len(images), np.int64))
    with pytest.raises(Invalid, match="has one class"):
        commands.train(parse("train", tmp_path / "one.npz", "--conditional", "--run-dir", tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_run_from_before_classes_still_loads(tmp_path: Path) -> None:
    """config.json without the newer settings reads as what they were then."""
    old = {"data": "fashion-mnist", "preset": "resize", "loss": "non-saturating", "r1_gamma": 0.0, "r1_interval": 8}
    run_file = {"config": old, "data_hash": "0", "licence": None, "shape": [28, 28, 1], "code_version": "0.1.0"}
    (tmp_path / "config.json").write_bytes(msgspec.json.encode(run_file))
    read = RunDir(tmp_path).read()
    assert (read.classes, read.config.conditional, read.config.d_norm) == (None, False, "batch")
