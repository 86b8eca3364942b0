"""The runs that the diagnosis is tried on: built to have a fault, or to be healthy. Knows no thresholds.

Thresholds were set on `tuning` cases alone; `study` cases differ from them in data, networks or settings.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.datasets import load_dataset
from trainer.diagnosis import COLLAPSE, DIVERGED, EQUILIBRIUM, MEMORISING, OSCILLATION, TOO_STRONG, TOO_WEAK

HEALTHY = "healthy"
Arrays = Mapping[str, Any]  # by name, as an .npz holds them


@dataclass(frozen=True)
class Case:
    """A run.

    Args:
        name: of its folder.
        expected: the verdict that it was built for; "healthy" for none.
        data: a key of DATA, or a data set's name.
        settings: options of genserve train.
    """

    name: str
    expected: str
    data: str
    settings: Mapping[str, object] = field(default_factory=dict)


def _images(name: str, count: int, side: int = 8, skip: int = 0) -> Arrays:
    """The first images of a data set, averaged down, with labels."""
    data = load_dataset(name)
    rows = slice(skip, skip + count)
    wide = np.pad(np.asarray(data.samples[rows], np.float32)[..., 0], ((0, 0), (2, 2), (2, 2)))
    step = 32 // side
    images = wide.reshape(len(wide), side, step, side, step).mean((2, 4))
    assert data.labels is not None
    return {"images": images.round().astype(np.uint8), "labels": data.labels[rows]}


def _tinted(count: int) -> Arrays:
    """Colour images: each digit in a colour of its own."""
    grey = _images("mnist", count)["images"].astype(np.float32)[..., None]
    colours = np.random.RandomState(0).uniform(0.3, 1.0, (count, 1, 1, 3))
    return {"images": (grey * colours).round().astype(np.uint8)}


def _digits() -> Arrays:
    from sklearn.datasets import load_digits  # type: ignore[import-untyped]  # it publishes no types

    digits = load_digits()
    return {"images": np.minimum(digits.images * 16, 255).astype(np.uint8), "labels": digits.target}


def _table(name: str) -> Arrays:
    import sklearn.datasets  # type: ignore[import-untyped]  # as above

    return {"samples": getattr(sklearn.datasets, f"load_{name}")().data.astype(np.float32)}


def _mixture(centres: NDArray[np.float64], deviation: float, count: int = 20_000) -> Arrays:
    """Equally frequent round Gaussians in as many dimensions as the centres have."""
    random = np.random.RandomState(0)
    chosen = centres[random.randint(len(centres), size=count)]
    return {"samples": (chosen + deviation * random.standard_normal(chosen.shape)).astype(np.float32)}


def _moons(count: int = 20_000) -> Arrays:
    from sklearn.datasets import make_moons

    return {"samples": make_moons(count, noise=0.08, random_state=0)[0].astype(np.float32)}


DATA: Mapping[str, Callable[[], Arrays]] = {
    "fashion8": lambda: _images("fashion-mnist", 6000),
    "fashion8b": lambda: _images("fashion-mnist", 6000, skip=20_000),
    "fashion16": lambda: _images("fashion-mnist", 6000, side=16),
    "mnist8": lambda: _images("mnist", 6000),
    "mnist8b": lambda: _images("mnist", 6000, skip=20_000),
    "tinted8": lambda: _tinted(6000),
    "digits": _digits,
    "few20": lambda: _images("mnist", 25, skip=9000),
    "few24": lambda: _images("fashion-mnist", 30, skip=7000),
    "few22": lambda: _images("fashion-mnist", 28, skip=17_000),
    "few26": lambda: _images("mnist", 32, skip=15_000),
    "few28": lambda: _images("fashion-mnist", 35, skip=11_000),
    "diabetes": lambda: _table("diabetes"),
    "breast": lambda: _table("breast_cancer"),
    "wine": lambda: _table("wine"),
    "iris": lambda: _table("iris"),
    "gauss2": lambda: _mixture(np.zeros((1, 2)), 1.0),
    "gauss4": lambda: _mixture(np.zeros((1, 4)), 1.0),
    "three": lambda: _mixture(np.array([[-1.5, 0], [1.5, 0], [0, 2.0]]), 0.7),
    "two3": lambda: _mixture(np.array([[1.0, 0, 0], [-1.0, 0, 0]]), 0.8),
    "moons": _moons,
}


def data_path(name: str, folder: Path) -> str:
    """The data of a case, made where it is not there yet."""
    if name not in DATA:
        return name
    path = folder / f"{name}.npz"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(path, **DATA[name]())
    return str(path)


IMAGES = {
    "g_channels": 16, "d_channels": 16, "d_hidden": 64, "batch_size": 64, "g_lr": 2e-3, "d_lr": 2e-3, "kimg": 24,
    "snapshot_kimg": 4, "ema_half_life_kimg": 2, "precision": "fp32", "threads": 1,
}  # fmt: skip
LONGER = {"kimg": 48, "snapshot_kimg": 6}
VECTORS = {
    "preset": "mlp", "loss": "relativistic", "d_norm": "none", "z_dim": 8, "g_channels": 64, "d_channels": 64,
    "d_hidden": 48, "blocks": 3, "batch_size": 128, "kimg": 120, "snapshot_kimg": 15, "g_lr": 2e-3, "d_lr": 3e-3,
    "beta1": 0.0, "beta2": 0.99, "lr_decay_start": 0.3, "decay": "cosine", "r1_gamma": 0.1, "r2_gamma": 0.1,
    "r1_interval": 4, "noise_max": 3.0, "ema_half_life_kimg": 5, "precision": "fp32", "threads": 1,
}  # fmt: skip
FREE = {"loss": "non-saturating", "noise_max": 0.0, "r1_gamma": 0.0, "r2_gamma": 0.0}  # no regulariser

TURNS = {**FREE, "g_lr": 5e-3, "d_lr": 5e-3, "lr_decay_start": 1.0, "kimg": 72}  # long ones, at full rates to the end
WGAN = {"loss": "wasserstein", "d_norm": "none", "gp_lambda": 10.0, "d_period": 3, "beta1": 0.0, "beta2": 0.9}
R3GAN = {
    "preset": "r3gan", "loss": "relativistic", "d_norm": "none", "r1_gamma": 0.1, "r2_gamma": 0.1, "r1_interval": 1,
    "beta1": 0.0, "g_lr": 1e-3, "d_lr": 1e-3,
}  # fmt: skip
FEW = {
    "batch_size": 16, "d_norm": "none", "r1_gamma": 0.02, "z_dim": 2, "g_channels": 32, "g_lr": 1e-3, "kimg": 64,
    "snapshot_kimg": 16,
}  # fmt: skip


def images(name: str, expected: str, data: str, **settings: object) -> Case:
    """A run on images, by default healthy."""
    return Case(name, expected, data, {**IMAGES, **settings})


def vectors(name: str, expected: str, data: str, **settings: object) -> Case:
    """A run on vectors, by default healthy."""
    return Case(name, expected, data, {**VECTORS, **settings})


TUNING = (
    images("collapse-1", COLLAPSE, "fashion8", **LONGER, g_period=4, d_channels=4, d_hidden=8, d_norm="none"),
    images("collapse-2", COLLAPSE, "mnist8", **LONGER, g_lr=1e-2, d_lr=2e-4, d_norm="none"),
    vectors("strong-4", TOO_STRONG, "ring", **{**FREE, "loss": "minimax"}),
    vectors("collapse-3", COLLAPSE, "grid", g_period=5, **FREE),
    images("oscillation-1", OSCILLATION, "fashion8", **LONGER, d_period=60, g_period=60),
    vectors("oscillation-2", OSCILLATION, "gauss2", **TURNS, d_period=30, g_period=60),
    images("memorising-1", MEMORISING, "few20", **FEW),
    images("memorising-2", MEMORISING, "few24", **{**FEW, "z_dim": 3}),
    images("strong-1", TOO_STRONG, "fashion8", loss="minimax", d_norm="none", d_lr=4e-3, g_lr=1e-4, d_period=4),
    images("strong-2", TOO_STRONG, "mnist8", d_period=8, g_lr=2e-5, d_norm="none"),
    vectors("strong-3", TOO_STRONG, "grid", **{**FREE, "loss": "minimax"}, d_period=5, g_lr=1e-4),
    images("diverged-1", DIVERGED, "fashion8", d_norm="none", g_lr=1.0, d_lr=1.0),
    images("diverged-2", DIVERGED, "mnist8", **{**R3GAN, "g_lr": 0.2, "d_lr": 0.2}),
    vectors("diverged-3", DIVERGED, "ring", **FREE, g_lr=0.3, d_lr=0.3),
    vectors("equilibrium-1", EQUILIBRIUM, "gauss2"),
    vectors("equilibrium-2", EQUILIBRIUM, "three", kimg=240, snapshot_kimg=40),
    vectors("weak-1", TOO_WEAK, "moons", d_lr=0.0),
    images("weak-2", TOO_WEAK, "fashion8", d_lr=1e-7),
    images("healthy-1", HEALTHY, "fashion8"),
    images("healthy-2", HEALTHY, "mnist8", preset="dcgan"),
    images("healthy-3", HEALTHY, "digits", g_channels=32, d_channels=32),
    images("healthy-4", HEALTHY, "fashion8", loss="least-squares", d_norm="none", r1_gamma=0.1),
    images("healthy-5", HEALTHY, "fashion16", kimg=24, snapshot_kimg=4),
    images(
        "healthy-6", HEALTHY, "mnist8", preset="r3gan", loss="relativistic", d_norm="none", r1_gamma=0.05,
        r2_gamma=0.05, r1_interval=1, beta1=0.0, g_lr=1e-3, d_lr=1e-3,
    ),
    vectors("healthy-7", HEALTHY, "ring", kimg=240, snapshot_kimg=40),
    vectors("healthy-8", HEALTHY, "diabetes"),
    vectors("healthy-9", HEALTHY, "moons"),
    vectors("healthy-11", HEALTHY, "grid", kimg=240, snapshot_kimg=40),
    vectors("healthy-10", HEALTHY, "moons", loss="hinge", d_norm="spectral", r1_gamma=0.0, r2_gamma=0.0),
)  # fmt: skip
STUDY = (
    images(
        "collapse-a", COLLAPSE, "mnist8b", **LONGER, g_period=4, d_channels=4, d_hidden=8,
        d_norm="none",
    ),
    vectors("collapse-b", COLLAPSE, "grid", g_period=4, seed=1, **FREE),
    vectors("collapse-c", COLLAPSE, "ring", g_period=6, z_dim=4, **FREE),
    images("oscillation-a", OSCILLATION, "mnist8b", **LONGER, d_period=80, g_period=80),
    vectors("oscillation-b", OSCILLATION, "three", **TURNS, d_period=40, g_period=60),
    vectors("oscillation-c", OSCILLATION, "moons", **TURNS, d_period=25, g_period=70, seed=1),
    images("memorising-a", MEMORISING, "few22", **FEW),
    images("memorising-b", MEMORISING, "few26", **FEW, seed=1),
    images("memorising-c", MEMORISING, "few28", **{**FEW, "g_channels": 48}, seed=2),
    images("strong-a", TOO_STRONG, "mnist8b", loss="minimax", d_norm="none", d_lr=5e-3, g_lr=5e-5, d_period=5),
    vectors("strong-b", TOO_STRONG, "ring", **{**FREE, "loss": "minimax"}, d_period=4, g_lr=2e-4),
    images("strong-c", TOO_STRONG, "digits", d_period=10, g_lr=1e-5, d_norm="none", seed=1),
    images("diverged-a", DIVERGED, "digits", d_norm="none", loss="least-squares", g_lr=0.8, d_lr=0.8),
    vectors("diverged-b", DIVERGED, "grid", **FREE, g_lr=0.5, d_lr=0.5),
    images("diverged-c", DIVERGED, "tinted8", **{**R3GAN, "g_lr": 0.3, "d_lr": 0.3}),
    vectors("equilibrium-a", EQUILIBRIUM, "gauss4", seed=1),
    vectors("equilibrium-b", EQUILIBRIUM, "two3", kimg=240, snapshot_kimg=40),
    vectors("equilibrium-c", EQUILIBRIUM, "gauss2", loss="non-saturating", seed=2),
    vectors("weak-a", TOO_WEAK, "gauss2", d_lr=0.0),
    vectors("weak-b", TOO_WEAK, "grid", d_lr=1e-6),
    images("weak-c", TOO_WEAK, "mnist8b", d_lr=1e-7, seed=1),
    images("healthy-a", HEALTHY, "fashion8b", seed=1),
    images("healthy-b", HEALTHY, "mnist8b", preset="dcgan", seed=2),
    images("healthy-c", HEALTHY, "digits", conditional=True, g_channels=32, d_channels=32),
    images("healthy-d", HEALTHY, "tinted8", seed=3),
    images("healthy-e", HEALTHY, "fashion8b", loss="hinge", d_norm="spectral"),
    images("healthy-f", HEALTHY, "fashion8b", **R3GAN),
    images("healthy-g", HEALTHY, "mnist8b", loss="least-squares"),
    images("healthy-h", HEALTHY, "digits", preset="dcgan", prior="uniform", g_channels=32, d_channels=32, seed=4),
    images("healthy-i", HEALTHY, "mnist8b", **WGAN),
    images("healthy-j", HEALTHY, "fashion16", kimg=20, snapshot_kimg=5, seed=5),
    vectors("healthy-k", HEALTHY, "grid", kimg=200, snapshot_kimg=25, loss="non-saturating", seed=7),
    vectors("healthy-l", HEALTHY, "ring", kimg=240, snapshot_kimg=40, seed=1),
    vectors("healthy-m", HEALTHY, "diabetes", seed=2),
    vectors("healthy-n", HEALTHY, "breast"),
    vectors("healthy-o", HEALTHY, "wine"),
    vectors("healthy-p", HEALTHY, "iris", batch_size=64),
    vectors("healthy-q", HEALTHY, "moons", loss="non-saturating", seed=3),
    vectors("healthy-r", HEALTHY, "three", loss="least-squares"),
    vectors("healthy-s", HEALTHY, "two3", z_dim=4, g_channels=32),
    vectors("healthy-t", HEALTHY, "gauss4", prior="uniform", seed=6),
)  # fmt: skip
SETS: Mapping[str, Sequence[Case]] = {"tuning": TUNING, "study": STUDY}
