"""Recipes on Fashion-MNIST, seed by seed: the primers' DCGAN against the default, by FD for images and for seconds.

    python -m bench.recipes [--recipes primers default] [--seeds 0 1 2] [--kimg 300] [--shorter KIMG ...]
        [--set default:g_lr=1e-3] [--trained NAME=FOLDER ...] [--json FILE]

Runs of one seed go side by side, one thread each, so that whatever else the machine does reaches all of them. Seconds
are of the processor, of training alone. Every `--every` thousand images the samples of G and of its average are held
against the validation split; each one's best snapshot is then measured on the gate split, which chose nothing, with
50,000 samples. With --json, every run is kept as it ends, and not done again. --trained adds runs that `genserve train`
made: their snapshots, which are of the average, measured in the same way; their seconds are the clock's, and are not
compared with the processor's.

`primers` is what two introductions to GANs recommend: InfoGAN's networks for MNIST (Chen et al. 2016, appendix C.1;
BatchNorm in both), the non-saturating loss, Adam 2e-4 with beta1 0.5, batches of 64, no schedule, no average. `default`
is what `genserve train fashion-mnist` does.
"""

import argparse
import copy
import json
import multiprocessing
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import torch
from torch import Tensor, nn

from bench.machine import describe
from models.datasets import Dataset, load_dataset
from models.extractors import Extractor, resolve_extractor
from models.frechet import frechet_distance, moments
from models.halving import Moments
from models.splits import SplitName
from trainer.config import Config, make_config
from trainer.convnets import initialise
from trainer.ema import reestimate_statistics
from trainer.network_parts import Generator, use_channels_last
from trainer.pixels import to_tensor
from trainer.precision import suited
from trainer.run_dir import RunDir
from trainer.schedule import Batches
from trainer.selection import FIRST_SEED, sample
from trainer.state import Batch, State, adam

DATA = "fashion-mnist"
NUM_CHOOSING, NUM_FAKES = 5_000, 50_000
RECIPES: dict[str, dict[str, object]] = {
    "primers": {
        "preset": "dcgan", "loss": "non-saturating", "g_lr": 2e-4, "d_lr": 2e-4, "beta1": 0.5, "batch_size": 64,
        "z_dim": 62, "g_hidden": 0, "d_hidden": 1024, "lr_decay_start": 1.0, "ema_half_life_kimg": 10.0,
    },
    "default": {},
    "r3gan": {"preset": "r3gan"},
}  # fmt: skip


class InfoGan(Generator):
    """InfoGAN's generator for MNIST: two fully connected layers, two transposed convolutions."""

    def __init__(self, z_dim: int) -> None:
        super().__init__(z_dim, 0)
        self.layers = nn.Sequential(
            nn.Linear(z_dim, 1024, bias=False),
            nn.BatchNorm1d(1024),
            nn.ReLU(inplace=True),
            nn.Linear(1024, 7 * 7 * 128, bias=False),
            nn.BatchNorm1d(7 * 7 * 128),
            nn.ReLU(inplace=True),
            nn.Unflatten(1, (128, 7, 7)),
            nn.ConvTranspose2d(128, 64, 4, 2, 1, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(64, 1, 4, 2, 1),
        )
        initialise(self)

    def forward(self, z: Tensor, class_idx: Tensor | None = None) -> Tensor:  # [N, z_dim] -> [N, 1, 28, 28]
        """Generate."""
        images: Tensor = self.layers(z).tanh()
        return images


class Point(msgspec.Struct, frozen=True):
    """A snapshot: thousands of images, seconds of training, and FD/Tr on the validation split; None was not kept."""

    kimg: float
    seconds: float
    plain: float | None
    averaged: float


class Run(msgspec.Struct, frozen=True):
    """A training. `plain` and `averaged` are FD/Tr on the gate split at the best snapshot of each; `clock` measured the
    seconds.
    """

    recipe: str
    seed: int
    settings: dict[str, Any]
    points: list[Point]
    plain: float | None
    averaged: float
    clock: Literal["processor", "wall"] = "processor"


class Measure:
    """FD to a split's features as a share of their variance."""

    def __init__(self, extractor: Extractor, data: Dataset, split: SplitName) -> None:
        self.extractor = extractor
        self.reals: Moments = moments(extractor.features(data.split(split).samples))
        self.trace = float(np.trace(self.reals.covariance))

    def __call__(self, G: Generator, state: State, count: int) -> float:
        """Of so many samples; G's statistics are made its own first."""
        G = copy.deepcopy(G)
        reestimate_statistics(G, state.signature, state.config.batch_size, state.config.precision)
        fakes = self.extractor.features(sample(G, state.signature, np.arange(count) + FIRST_SEED))
        return frechet_distance(moments(fakes), self.reals) / self.trace


def begin(recipe: str, config: Config) -> State:
    """A fresh state; the primers' has InfoGAN's G."""
    state = State(config, (28, 28, 1))
    if recipe == "primers":
        state.G = InfoGan(config.z_dim)
        use_channels_last(state.G)
        state.G_ema = copy.deepcopy(state.G).eval().requires_grad_(False)
        state.g_optimiser = adam(state.G, config.g_lr, config)
    return state


def train(recipe: str, settings: dict[str, object], seed: int, every: float, shorter: Sequence[float]) -> list[Run]:
    """One training from its first image to its last, and the shorter ones that it begins with: without a schedule a
    training of fewer images is the beginning of a longer one.
    """
    overrides = {**RECIPES.get(recipe, {}), **settings, "seed": seed, "threads": 1}
    config = make_config(DATA, None, overrides, suited)
    ends = [kimg for kimg in shorter if config.lr_decay_start >= 1 and kimg < config.kimg]
    torch.set_num_threads(1)
    data = load_dataset(DATA)
    train_split = np.asarray(data.split("train").samples, np.uint8)
    extractor = resolve_extractor(None, data)
    validation, gate = (Measure(extractor, data, split) for split in ("validation", "gate"))
    state, batches = begin(recipe, config), Batches(len(train_split), config)
    points: list[Point] = []
    best: dict[str, tuple[float, Generator]] = {}
    seconds, next_point, d_step = 0.0, every, 0
    runs: list[Run] = []
    while not state.done:
        began = time.process_time()
        real = Batch(to_tensor(train_split[batches[d_step]]))
        state.train_d(real, d_step)
        state.train_g(real)
        d_step += 1
        seconds += time.process_time() - began
        if state.num_images >= next_point * 1000 or state.done:
            next_point += every
            found = {name: validation(G, state, NUM_CHOOSING) for name, G in networks(state).items()}
            points.append(Point(state.num_images / 1000, seconds, **found))
            print(f"{recipe} seed {seed}: {points[-1]}", flush=True)
            for name, G in networks(state).items():
                if name not in best or found[name] < best[name][0]:
                    best[name] = found[name], copy.deepcopy(G)
            if state.done or (ends and points[-1].kimg >= ends[0]):
                length = config.kimg if state.done else ends.pop(0)
                plain, averaged = (gate(best[name][1], state, NUM_FAKES) for name in ("plain", "averaged"))
                whole = msgspec.to_builtins(msgspec.structs.replace(config, kimg=length))
                runs.append(Run(recipe, seed, whole, points.copy(), plain, averaged))
    return runs


def trained(name: str, folder: Path) -> Run:
    """What `genserve train` made: its snapshots, measured as those of `train`."""
    run_dir = RunDir(folder)
    config = run_dir.read().config
    data = load_dataset(config.data)
    extractor = resolve_extractor(None, data)
    validation, gate = (Measure(extractor, data, split) for split in ("validation", "gate"))
    state = State(config, data.shape)
    ticks = [(line.kimg, line.images_per_second) for line in run_dir.stats() if line.images_per_second]
    points = []
    for kimg in run_dir.snapshots():
        state.G_ema.load_state_dict(run_dir.load_snapshot(kimg))
        points.append(Point(kimg, training_seconds(ticks, kimg), None, validation(state.G_ema, state, NUM_CHOOSING)))
        print(f"{name} seed {config.seed}: {points[-1]}", flush=True)
    best = min(points, key=lambda point: point.averaged)
    state.G_ema.load_state_dict(run_dir.load_snapshot(best.kimg))
    found = gate(state.G_ema, state, NUM_FAKES)
    return Run(name, config.seed, msgspec.to_builtins(config), points, None, found, "wall")


def training_seconds(ticks: Sequence[tuple[float, float]], kimg: float) -> float:
    """Until so many images, by the speed of each tick: thousands of images at its end, images per second."""
    seconds, last = 0.0, 0.0
    for end, rate in ticks:
        if end > kimg + 1e-3:
            break
        seconds += 1000 * (end - last) / rate
        last = end
    return seconds


def _train(job: tuple[str, dict[str, object], int, float, list[float]]) -> list[Run]:
    return train(*job)


def networks(state: State) -> dict[str, Generator]:
    """G, and its average."""
    return {"plain": state.G, "averaged": state.G_ema}


def compare(runs: Sequence[Run]) -> list[str]:
    """A line for each recipe and length, and for each one against the primers'."""
    lines = []
    by: dict[str, list[Run]] = {}
    for run in runs:
        by.setdefault(f"{run.recipe}, {run.settings['kimg']:g} kimg", []).append(run)
    primers = [run for run in runs if run.recipe == "primers"]
    for name, own in by.items():
        rate = statistics.median(run.points[-1].kimg * 1000 / run.points[-1].seconds for run in own)
        found = {kind: [x for run in own if (x := getattr(run, kind)) is not None] for kind in ("plain", "averaged")}
        parts = [f"{kind} {spread(values)}" for kind, values in found.items() if values]
        lines.append(f"{name}: FD/Tr {', '.join(parts)}; {rate:.0f} images a core-second")
    for name, own in by.items():
        pairs = [(run, other) for run in own for other in primers if run.recipe != "primers" and alike(run, other)]
        if not pairs:
            continue
        for kind in ("plain", "averaged"):
            ratios = [run.averaged / getattr(other, kind) for run, other in pairs]
            lines.append(f"{name} / primers {kind}: {spread(ratios)}")
            shares = [share for run, other in pairs if (share := time_share(run, other, kind)) is not None]
            missing = f", never in {len(pairs) - len(shares)}" if len(shares) < len(pairs) else ""
            lines.append(
                f"  its best validation FD reached in {spread(shares) if shares else '-'} of its time{missing}"
            )
    return lines


def alike(run: Run, other: Run) -> bool:
    """Whether two runs saw as many images, in the same order."""
    return (run.seed, run.settings["kimg"]) == (other.seed, other.settings["kimg"])


def time_share(run: Run, other: Run, kind: str) -> float | None:
    """Seconds until a run's average is as good as the other's best, as a share of the seconds that the other took; None
    where it never is, or clocks differ.
    """
    if run.clock != other.clock:
        return None
    goal = min(value for point in other.points if (value := getattr(point, kind)) is not None)
    first = next((point for point in run.points if point.averaged <= goal), None)
    return None if first is None else first.seconds / other.points[-1].seconds


def spread(values: Sequence[float]) -> str:
    """Median and range."""
    return f"{statistics.median(values):.4f} [{min(values):.4f} {max(values):.4f}]"


def main() -> None:
    """Print every point and the comparison; keep the figures where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", default=["primers", "default"], help="names; any name with --set")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--kimg", type=float, default=300.0)
    parser.add_argument(
        "--shorter", type=float, nargs="*", default=[], help="also of so many, where no schedule forbids it"
    )
    parser.add_argument("--every", type=float, default=25.0, help="thousands of images between snapshots")
    parser.add_argument("--set", nargs="*", default=[], metavar="RECIPE:FIELD=VALUE", help="change or make a recipe")
    parser.add_argument("--trained", nargs="*", default=[], metavar="NAME=FOLDER", help="runs of `genserve train`")
    parser.add_argument("--json", type=Path, help="keep the figures here, and go on from them")
    args = parser.parse_args()
    settings: dict[str, dict[str, object]] = {name: {"kimg": args.kimg} for name in args.recipes}
    for word in args.set:
        recipe, _, pair = word.partition(":")
        field, _, value = pair.partition("=")
        settings[recipe][field] = parsed(value)
    runs = msgspec.json.decode(args.json.read_bytes())["runs"] if args.json and args.json.exists() else []
    runs = msgspec.convert(runs, list[Run])
    for run in made(args, settings, runs):
        runs.append(run)
        if args.json:
            kept = {"machine": describe(), "runs": msgspec.to_builtins(runs)}
            args.json.write_text(json.dumps(kept, indent=2) + "\n")
    print("\n".join([describe(), *compare(runs)]))


def made(args: argparse.Namespace, settings: dict[str, dict[str, object]], runs: Sequence[Run]) -> Iterator[Run]:
    """What is asked for and is not among the runs yet, as it ends."""
    for word in args.trained:
        name, _, folder = word.partition("=")
        if not any(run.recipe == name for run in runs):
            yield trained(name, Path(folder))
    for seed in args.seeds:
        there = {(run.recipe, run.settings["kimg"]) for run in runs if run.seed == seed}
        names = [name for name in args.recipes if (name, settings[name]["kimg"]) not in there]
        jobs = [(name, settings[name], seed, args.every, sorted(args.shorter)) for name in names]
        with multiprocessing.get_context("spawn").Pool(max(1, len(jobs))) as pool:
            for runs_of_job in pool.imap_unordered(_train, jobs):
                yield from runs_of_job


def parsed(value: str) -> object:
    """A number where it is one."""
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value


if __name__ == "__main__":
    main()
