"""The runs that the diagnosis is tried on: built to have a fault, or to be healthy. Knows no thresholds.

Thresholds were set on `tuning` cases alone; `study` cases differ from them in data, networks or settings. A study's
cases that a rule was changed by go over to `tuning`, and new ones take their place.
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


def _tinted(name: str, count: int, skip: int = 0) -> Arrays:
    """Colour images: each in a colour of its own."""
    grey = _images(name, count, skip=skip)["images"].astype(np.float32)[..., None]
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
    labels = random.randint(len(centres), size=count)
    chosen = centres[labels]
    samples = (chosen + deviation * random.standard_normal(chosen.shape)).astype(np.float32)
    return {"samples": samples, "labels": labels}


def _made(name: str, count: int = 20_000, **how: object) -> Arrays:
    """What one of scikit-learn's make_... makes."""
    import sklearn.datasets

    rows = getattr(sklearn.datasets, f"make_{name}")(count, random_state=0, **how)[0]
    return {"samples": rows.astype(np.float32)}


DATA: Mapping[str, Callable[[], Arrays]] = {
    "fashion8": lambda: _images("fashion-mnist", 6000),
    "fashion8b": lambda: _images("fashion-mnist", 6000, skip=20_000),
    "fashion16": lambda: _images("fashion-mnist", 6000, side=16),
    "mnist8": lambda: _images("mnist", 6000),
    "mnist8b": lambda: _images("mnist", 6000, skip=20_000),
    "fashion8c": lambda: _images("fashion-mnist", 6000, skip=35_000),
    "mnist8c": lambda: _images("mnist", 6000, skip=40_000),
    "mnist8d": lambda: _images("mnist", 6000, skip=50_000),
    "fashion16c": lambda: _images("fashion-mnist", 6000, side=16, skip=12_000),
    "mnist16": lambda: _images("mnist", 6000, side=16, skip=12_000),
    "tinted8": lambda: _tinted("mnist", 6000),
    "tinted8b": lambda: _tinted("fashion-mnist", 6000, 28_000),
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
    "moons": lambda: _made("moons", noise=0.08),
    "circles": lambda: _made("circles", noise=0.05, factor=0.5),
    "swiss": lambda: _made("swiss_roll", noise=0.3),
    "curve": lambda: _made("s_curve", noise=0.05),
    "blobs5": lambda: _made("blobs", n_features=5, centers=6, cluster_std=1.5),
    "gauss1": lambda: _mixture(np.zeros((1, 1)), 1.0),
    "gauss3": lambda: _mixture(np.zeros((1, 3)), 1.0),
    "tilted": lambda: _mixture(np.array([[-0.5, -0.5], [0.0, 0.0], [0.5, 0.5]]), 0.8),
    "five": lambda: _mixture(np.array([[0.0, 0.0], [2.5, 0.0], [-2.5, 0.0], [0.0, 2.5], [0.0, -2.5]]), 0.4),
    "corners": lambda: _mixture(np.array([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) * 1.5, 0.5),
    "twelve": lambda: _mixture(np.array([[np.cos(i * np.pi / 6), np.sin(i * np.pi / 6)] for i in range(12)]), 0.01),
    "ellipse": lambda: {"samples": _mixture(np.zeros((1, 2)), 1.0)["samples"] @ np.array([[1, 0.6], [0, 0.8]], "f4")},
    "broad": lambda: _mixture(np.array([[-1.0, 0.0], [1.0, 0.0], [0.0, 1.5]]), 0.9),
    "pair": lambda: _mixture(np.array([[-0.7, 0.0], [0.7, 0.0]]), 0.6),
    "wide7": lambda: _mixture(np.eye(7) * 2.0, 0.7),
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
EVEN = {"batch_size": 1024, "kimg": 3600, "snapshot_kimg": 1200, "ema_half_life_kimg": 400, "d_period": 4}
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
    vectors("equilibrium-1", EQUILIBRIUM, "gauss2", **EVEN),
    vectors("equilibrium-2", EQUILIBRIUM, "three", **EVEN),
    vectors("equilibrium-3", EQUILIBRIUM, "pair", **EVEN, seed=1),
    vectors("equilibrium-4", EQUILIBRIUM, "tilted", **EVEN, seed=1),
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
    images("weak-3", TOO_WEAK, "fashion8b", loss="hinge", d_norm="spectral"),
    vectors("weak-4", TOO_WEAK, "two3", z_dim=4, g_channels=32),
    images(
        "collapse-4", COLLAPSE, "mnist8b", **LONGER, g_period=4, d_channels=4, d_hidden=8,
        d_norm="none",
    ),
    vectors("collapse-5", COLLAPSE, "grid", g_period=4, seed=1, **FREE),
    vectors("collapse-6", COLLAPSE, "ring", g_period=6, z_dim=4, **FREE),
    images("collapse-7", COLLAPSE, "fashion8c", **LONGER, g_period=5, d_channels=4, d_hidden=8, d_norm="none", seed=3),
    images("collapse-8", COLLAPSE, "mnist8c", **LONGER, g_period=5, d_channels=4, d_hidden=8, d_norm="none", seed=5),
    images("healthy-12", HEALTHY, "fashion8b", seed=1),
    images("healthy-13", HEALTHY, "mnist8b", preset="dcgan", seed=2),
    images("healthy-14", HEALTHY, "digits", conditional=True, g_channels=32, d_channels=32),
    images("healthy-15", HEALTHY, "tinted8", seed=3),
    images("healthy-16", HEALTHY, "fashion8b", **R3GAN),
    images("healthy-17", HEALTHY, "mnist8b", loss="least-squares"),
    images("healthy-18", HEALTHY, "digits", preset="dcgan", prior="uniform", g_channels=32, d_channels=32, seed=4),
    images("healthy-19", HEALTHY, "mnist8b", **WGAN),
    images("healthy-20", HEALTHY, "fashion16", kimg=20, snapshot_kimg=5, seed=5),
    vectors("healthy-21", HEALTHY, "grid", kimg=200, snapshot_kimg=25, loss="non-saturating", seed=7),
    vectors("healthy-22", HEALTHY, "ring", kimg=240, snapshot_kimg=40, seed=1),
    vectors("healthy-23", HEALTHY, "diabetes", seed=2),
    vectors("healthy-24", HEALTHY, "breast"),
    vectors("healthy-25", HEALTHY, "wine"),
    vectors("healthy-26", HEALTHY, "iris", batch_size=64),
    vectors("healthy-27", HEALTHY, "moons", loss="non-saturating", seed=3),
    vectors("healthy-28", HEALTHY, "three", loss="least-squares"),
    vectors("healthy-29", HEALTHY, "gauss4", prior="uniform", seed=6),
)  # fmt: skip
STUDY = (
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
    vectors("weak-a", TOO_WEAK, "gauss2", d_lr=0.0),
    vectors("weak-b", TOO_WEAK, "grid", d_lr=1e-6),
    images("weak-c", TOO_WEAK, "mnist8b", d_lr=1e-7, seed=1),
    images("collapse-d", COLLAPSE, "mnist8d", **LONGER, g_period=4, d_channels=4, d_hidden=8, d_norm="none", seed=9),
    vectors("collapse-e", COLLAPSE, "twelve", g_period=5, seed=3, **FREE),
    vectors("collapse-f", COLLAPSE, "ring", g_period=5, seed=4, **FREE),
    vectors("equilibrium-d", EQUILIBRIUM, "gauss1", **EVEN),
    vectors("equilibrium-e", EQUILIBRIUM, "ellipse", **EVEN, seed=1),
    vectors("equilibrium-f", EQUILIBRIUM, "broad", **EVEN, seed=2),
    images("healthy-fashion", HEALTHY, "fashion8c", seed=11),
    images("healthy-least-squares", HEALTHY, "fashion8c", loss="least-squares", seed=12),
    images("healthy-dcgan", HEALTHY, "fashion8c", preset="dcgan", seed=13),
    images("healthy-mnist", HEALTHY, "mnist8c", g_channels=24, d_channels=24, seed=14),
    images("healthy-hinge", HEALTHY, "mnist8c", loss="hinge", d_norm="spectral", g_lr=1e-3, d_lr=4e-3, seed=15),
    images("healthy-classes", HEALTHY, "mnist8c", conditional=True, seed=16),
    images("healthy-r3gan", HEALTHY, "mnist8c", **R3GAN, seed=17),
    images("healthy-fashion16", HEALTHY, "fashion16c", seed=18),
    images("healthy-mnist16", HEALTHY, "mnist16", preset="dcgan", seed=19),
    images("healthy-tinted", HEALTHY, "tinted8b", prior="uniform", seed=20),
    vectors("healthy-ring", HEALTHY, "ring", kimg=240, snapshot_kimg=30, loss="non-saturating", seed=21),
    vectors("healthy-grid", HEALTHY, "grid", kimg=240, snapshot_kimg=30, r1_gamma=1.0, r2_gamma=1.0, seed=22),
    vectors("healthy-circles", HEALTHY, "circles", seed=23),
    vectors("healthy-swiss", HEALTHY, "swiss", seed=24),
    vectors("healthy-curve", HEALTHY, "curve", loss="least-squares", seed=25),
    vectors("healthy-blobs", HEALTHY, "blobs5", seed=26),
    vectors("healthy-five", HEALTHY, "five", prior="uniform", seed=27),
    vectors("healthy-corners", HEALTHY, "corners", g_channels=96, seed=28),
    vectors("healthy-wide", HEALTHY, "wide7", z_dim=16, seed=29),
    vectors("healthy-diabetes", HEALTHY, "diabetes", loss="non-saturating", batch_size=64, seed=30),
)  # fmt: skip
SETS: Mapping[str, Sequence[Case]] = {"tuning": TUNING, "study": STUDY}
