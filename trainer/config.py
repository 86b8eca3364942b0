"""What decides a training run: one frozen struct, kept as config.json in the run's folder. Knows no torch."""

import math
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import msgspec
from msgspec.structs import replace

from models.errors import Invalid
from models.inventory import MAX_SKIPPED_SHARE
from models.manifest import Prior
from models.table import SUFFIXES as TABLES
from trainer.compatibility import check
from trainer.recipes import recipe

Preset = Literal["dcgan", "resize", "r3gan", "mlp"]
Loss = Literal["non-saturating", "minimax", "least-squares", "hinge", "wasserstein", "relativistic"]
DNorm = Literal["batch", "none", "spectral"]
Unit = Literal["steps", "epochs"]
Precision = Literal["bf16", "fp32"]
Device = Literal["auto", "cpu", "cuda"]
Decay = Literal["linear", "cosine"]
Augment = Literal["none", "translation", "translation,cutout", "colour,translation", "colour,translation,cutout"]

PRESETS_DIR = Path(__file__).parent / "presets"  # tested configurations, by data set


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A training run.

    Args:
        data: as models.datasets.load_dataset takes it.
        resolution: of a folder of images, in pixels; None lets the images decide. Other data have their own.
        max_skipped: the largest share of a folder's images that may be broken, and are then left out.
        flip: show about half of the images mirrored, left and right exchanged.
        preset: the pair of networks, see trainer.networks; "mlp" is for vectors, the others for images.
        conditional: whether G and D are told the class; needs labelled data.
        augment: DiffAugment of real and generated images before D, see trainer.augment.
        loss: the objective of both players, see trainer.objectives.
        prior: of z.
        z_dim: length of z.
        g_channels: of G's widest feature map; it doubles with every halving of the resolution below half. Of mlp: units
            of a hidden layer.
        g_hidden: units of a fully connected layer between z and the first feature map of dcgan and resize; 0 for none.
        d_channels: of D's, likewise.
        d_hidden: units of D's fully connected layer; of r3gan's D the length of a class's embedding; of mlp's how many
            Fourier features it sees.
        blocks: residual blocks at each resolution, of r3gan; hidden layers, of mlp.
        noise_max: widest noise that D sees vectors through, in standard deviations of the data; 0 for none. Each pair
            of real and generated has its own, log-uniform from noise_min.
        noise_min: narrowest.
        d_norm: of D's layers: "batch" (BatchNorm), "none", or "spectral" (spectral normalisation of every weight).
        batch_size: images.
        kimg: thousands of real images shown to D in the whole run; more than D's first period takes, as G comes next.
        seed: of the weights, the order of the data and every z.
        g_lr: Adam's learning rate for G.
        d_lr: and for D.
        beta1: Adam's.
        beta2: Adam's.
        lr_decay_start: share of the run after which what follows changes; 1 for never.
        decay: how: "linear" or "cosine" from the first value to the last.
        lr_end: the last learning rates, as a share of the first.
        gamma_end: the last r1_gamma and r2_gamma, likewise.
        beta2_end: the last beta2; None for no change.
        r1_gamma: weight of R1, gamma/2 E|grad D(x)|^2 on real images; 0 for none.
        r2_gamma: weight of R2, the same on generated images; 0 for none.
        r1_interval: steps of D from one with R1 or R2 to the next, which count so many times (lazy regularisation).
        gp_lambda: weight of the gradient penalty, lambda E(|grad D(x)| - 1)^2, in every step; 0 for none.
        d_period: how long D trains while G is frozen, in period_unit; D goes first.
        g_period: how long G trains while D is frozen.
        period_unit: "steps", or "epochs" of as many batches as the training split holds.
        ema_half_life_kimg: of the average of G's weights that is exported, in thousands of images shown to D.
        precision: "bf16" autocast, or "fp32". `genserve train` takes what suits the device, unless told.
        device: that trains: "cpu", "cuda", or "auto" for cuda where torch sees one.
        threads: of torch, of all this machine's processes together; 0 for every core that they may use.
        tensorboard: write event files for TensorBoard beside stats.jsonl.
        snapshot_kimg: from one snapshot (checkpoint, sample grid, validation FD) to the next.
    """

    data: str
    resolution: int | None = None
    max_skipped: float = MAX_SKIPPED_SHARE
    flip: bool = False
    preset: Preset = "resize"
    conditional: bool = False
    augment: Augment = "none"
    loss: Loss = "non-saturating"
    prior: Prior = "normal"
    z_dim: int = 64
    g_channels: int = 64
    g_hidden: int = 0
    d_channels: int = 64
    d_hidden: int = 256
    blocks: int = 1
    noise_max: float = 0.0
    noise_min: float = 0.004
    d_norm: DNorm = "batch"
    batch_size: int = 64
    kimg: float = 1000.0
    seed: int = 0
    g_lr: float = 5e-4
    d_lr: float = 5e-4
    beta1: float = 0.5
    beta2: float = 0.999
    lr_decay_start: float = 0.5
    decay: Decay = "linear"
    lr_end: float = 0.0
    gamma_end: float = 1.0
    beta2_end: float | None = None
    r1_gamma: float = 0.0
    r2_gamma: float = 0.0
    r1_interval: int = 8
    gp_lambda: float = 0.0
    d_period: int = 1
    g_period: int = 1
    period_unit: Unit = "steps"
    ema_half_life_kimg: float = 10.0
    precision: Precision = "bf16"
    device: Device = "auto"
    threads: int = 0
    tensorboard: bool = False
    snapshot_kimg: float = 50.0

    def __post_init__(self) -> None:
        for name, low, high in LIMITS:
            value = getattr(self, name)
            if value is not None and not (low <= value <= high and math.isfinite(value)):
                raise Invalid(f"{value} is outside {low:g} .. {high:g}", field=name)
        check(self)


LIMITS: tuple[tuple[str, float, float], ...] = (
    ("resolution", 8, 1024),
    ("max_skipped", 0, 1),
    ("z_dim", 1, 4096),
    ("g_channels", 2, 2048),
    ("g_hidden", 0, 8192),
    ("d_channels", 1, 2048),
    ("d_hidden", 1, 8192),
    ("blocks", 1, 64),
    ("noise_max", 0, 1000),
    ("noise_min", 1e-6, 1000),
    ("batch_size", 2, 8192),
    ("kimg", 0.001, 1e9),
    ("seed", 0, 2**32 - 1),
    ("g_lr", 0, 1),
    ("d_lr", 0, 1),
    ("beta1", 0, 0.9999999),
    ("beta2", 0, 0.9999999),
    ("lr_decay_start", 0, 1),
    ("lr_end", 0, 1),
    ("gamma_end", 0, 1),
    ("beta2_end", 0, 0.9999999),
    ("r1_gamma", 0, 1e9),
    ("r2_gamma", 0, 1e9),
    ("r1_interval", 1, 10_000),
    ("gp_lambda", 0, 1e9),
    ("d_period", 1, 1_000_000),
    ("g_period", 1, 1_000_000),
    ("ema_half_life_kimg", 0, 1e9),
    ("threads", 0, 1024),
    ("snapshot_kimg", 0.001, 1e9),
)


def read_config(path: Path) -> dict[str, object]:
    """The fields that a TOML or JSON file gives, unchecked; a run's config.json gives those of its configuration.

    Raises:
        Invalid: the file cannot be read or parsed.
    """
    try:
        text = path.read_text(encoding="utf-8")
        fields = msgspec.json.decode(text) if path.suffix == ".json" else tomllib.loads(text)
    except (OSError, UnicodeDecodeError, msgspec.DecodeError, tomllib.TOMLDecodeError) as error:
        raise Invalid(f"{path}: {error}", field="config") from error
    if isinstance(fields, dict) and isinstance(fields.get("config"), dict):
        fields = fields["config"]
    if not isinstance(fields, dict):
        raise Invalid(f"{path}: must be a table of settings", field="config")
    return fields


def make_config(
    data: str | None,
    file: Path | None,
    overrides: Mapping[str, object],
    suited: Callable[[Device], Precision] | None = None,
) -> Config:
    """The configuration of a new run: defaults, what comes with preset and objective, the file, the command line.

    A data set that has a tested configuration in trainer/presets/ uses it where no file is given, unless the command
    line asks for another objective or other networks: it was tested with its own. A table of numbers trains mlp.

    Args:
        data: as on the command line; None where the file names it.
        file: TOML or JSON, or config.json of a run.
        overrides: further fields from the command line.
        suited: the precision for a device, where nothing else names one.

    Raises:
        Invalid: an unknown field, a wrong type or a value outside its limits, or no data at all.
    """
    given = read_config(file) if file else _tested(data, overrides)
    named = data or given.get("data")
    table = {"preset": "mlp"} if Path(str(named)).suffix.lower() in TABLES else {}
    chosen = {**table, **given, **({"data": data} if data else {}), **overrides}
    fields = {**recipe(chosen.get("preset"), chosen.get("loss")), **chosen}
    if "data" not in fields:
        raise Invalid("name a data set, a folder or a file (or --resume a run)", field="data")
    try:
        config = msgspec.convert(fields, Config)
        return config if suited is None or "precision" in fields else replace(config, precision=suited(config.device))
    except msgspec.ValidationError as error:
        raise Invalid(str(error), field="config") from error


def _tested(data: str | None, overrides: Mapping[str, object]) -> dict[str, object]:
    """The tested configuration of a data set; empty without one, or where it was tested with another game."""
    path = next((path for path in PRESETS_DIR.glob("*.toml") if path.stem == data), None)
    if path is None:
        return {}
    tested = read_config(path)
    same = all(overrides.get(name, value) == value for name, value in tested.items() if name in ("preset", "loss"))
    return tested if same else {}
