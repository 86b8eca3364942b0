"""How often the judge's intervals cover the truth: simulation over real features, whose moments are known exactly.

    python -m bench.intervals [--repetitions 500] [--first 5000] [--keep FILE.npz] [--seconds 200] [--json FILE]

The population is the training split of Fashion-MNIST as the shipped classifier sees it (128 features, some dead,
none of them normal). Reals are drawn from it with replacement; fakes from a copy of it that is stretched and moved
until its distance is 0, 1 or 10 times the floor, which is what FD shows of equal populations at these numbers. What is
left of --seconds decides how many repetitions are made; --keep goes on where an earlier call stopped.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.machine import describe
from models.bounds import Spread
from models.datasets import load_dataset
from models.extractors import resolve_extractor
from models.frechet import frechet, frechet_distance, moments
from models.kernel import kernel_distance
from models.reference import RealFeatures, cache_folder

SIZES = ((50_000, 10_000), (2_000, 2_000))  # fakes, reals: the default policy's, and the smallest that may pass
LEVELS = (0, 1, 10)  # times the floor
KID_SIZE = 2_000
KID_POPULATION = 4_000
FLOOR_REPETITIONS = 5
FIRST = 5_000  # the form of the upper bound was chosen on repetitions before it

Rows = NDArray[np.float32]  # [N, d]


class Cell(NamedTuple):
    """One measure at one distance and one number of samples.

    Args:
        name: for the table.
        truth: of the two populations.
        draw: a repetition's number -> the estimate and its spread.
    """

    name: str
    truth: float
    draw: Callable[[int], Spread]


def main() -> None:
    """Make repetitions while there is time, print what they say, keep the figures."""
    parser = argparse.ArgumentParser(description="How often the judge's intervals cover the truth.")
    parser.add_argument("--repetitions", type=int, default=500)
    parser.add_argument("--first", type=int, default=FIRST, help="number of the first repetition, which seeds it")
    parser.add_argument("--keep", type=Path, help="keep estimates here, and go on from those kept")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long")
    parser.add_argument("--json", type=Path, help="keep the figures here")
    args = parser.parse_args()
    until = time.monotonic() + args.seconds
    found = read(args.keep, args.first) if args.keep and args.keep.exists() else {}
    print(describe())
    everything = list(cells(population()))
    made = {cell.name: [list(row) for row in found.get(cell.name, ())] for cell in everything}
    for number in range(args.repetitions):
        for cell in everything:
            if len(made[cell.name]) <= number and time.monotonic() < until:
                made[cell.name].append(list(cell.draw(args.first + number)))
    kept: dict[str, Any] = {name: np.reshape(rows, (-1, len(Spread._fields))) for name, rows in made.items()}
    if args.keep:
        np.savez(args.keep, about=np.array(about(args.first)), **kept)
    figures = [figures_of(cell.name, cell.truth, kept[cell.name]) for cell in everything if len(kept[cell.name]) > 1]
    print(*map(_row, figures), sep="\n")
    if args.json:
        args.json.write_text(json.dumps({"machine": describe(), "cells": figures}, indent=2) + "\n")


def about(first: int) -> str:
    """What kept rows are of."""
    return f"repetitions from {first}: {', '.join(Spread._fields)}"


def read(path: Path, first: int) -> dict[str, NDArray[np.float64]]:
    """What was kept before, by cell."""
    with np.load(path) as archive:
        kept = dict(archive)
    found = str(kept.pop("about", "something else"))
    if found != about(first):
        raise SystemExit(f"{path} holds {found}; asked for are {about(first)}")
    return kept


def population() -> Rows:
    """All features of the training split."""
    dataset = load_dataset("fashion-mnist")
    reals = RealFeatures(dataset, resolve_extractor(None, dataset), cache=cache_folder())
    return reals.extracted("train").features


def cells(rows: Rows) -> Iterator[Cell]:
    """Everything that is measured."""
    few = rows[np.random.RandomState(0).permutation(len(rows))[:KID_POPULATION]]
    for num_fake, num_real in SIZES:
        some = range(FLOOR_REPETITIONS)
        floor = np.mean([frechet(*_draw(rows, rows, (num_fake, num_real), i)).fd for i in some])
        for level in LEVELS:
            fakes = at_distance(rows, level * float(floor))
            truth = frechet_distance(moments(fakes), moments(rows))
            name = f"FD_inf, {num_fake} against {num_real}, {level} x floor"
            yield Cell(name, truth, _repeat(_frechet, fakes, rows, (num_fake, num_real)))
            if num_fake == KID_SIZE:
                fakes = at_distance(few, level * float(floor))
                name = f"KID, {KID_SIZE} against {KID_SIZE}, FD {level} x floor"
                yield Cell(name, _true_kid(fakes, few), _repeat(_kernel, fakes, few, (KID_SIZE, KID_SIZE)))


def at_distance(rows: Rows, distance: float) -> Rows:
    """A copy of a population, every other principal direction stretched and the others moved, at a Frechet distance."""
    if distance == 0:
        return rows
    ours = moments(rows)
    values, vectors = np.linalg.eigh(ours.covariance)
    spread = np.sqrt(np.maximum(values, 0))
    odd = np.arange(len(values)) % 2

    def changed(amount: float) -> Rows:
        stretch = (vectors * (1 + amount * odd)) @ vectors.T
        shift = vectors @ (amount * spread * (1 - odd)) / 2
        return np.asarray((rows - ours.mean) @ stretch + ours.mean + shift, np.float32)

    # Along one path of transport FD is the square of the amount.
    at_one = frechet_distance(moments(changed(0.1)), ours) / 0.01
    return changed(float(np.sqrt(distance / at_one)))


def figures_of(name: str, truth: float, made: NDArray[np.float64]) -> dict[str, Any]:  # [N, 4]
    """What the repetitions say of the interval."""
    spreads = [Spread(*row) for row in made]
    steady = [one._replace(growth=0.0) for one in spreads]
    estimates, errors = made[:, 0], np.array([one.se for one in spreads])

    def above(z: float, of: list[Spread] = spreads) -> NDArray[np.bool_]:
        return np.array([one.bound(z) for one in of]) >= truth

    return {
        "cell": name,
        "repetitions": len(made),
        "truth": truth,
        "mean": float(estimates.mean()),
        "bias_per_sd": float((estimates.mean() - truth) / estimates.std()),
        "sd": float(estimates.std()),
        "mean_se": float(errors.mean()),
        "covers_95": float(np.mean(above(1.96) & ~above(-1.96))),
        "upper_95": float(np.mean(above(1.645))),
        "lower_95": float(np.mean(~above(-1.645))),
        "upper_95_without_growth": float(np.mean(above(1.645, steady))),
    }


def _row(f: dict[str, Any]) -> str:
    return (
        f"{f['cell']:<46} n={f['repetitions']:<4} truth {f['truth']:.4g}  bias/sd {f['bias_per_sd']:+.2f}"
        f"  se/sd {f['mean_se'] / f['sd']:.2f}  95 %: {f['covers_95']:.3f}  upper: {f['upper_95']:.3f}"
        f"  lower: {f['lower_95']:.3f}  upper without growth: {f['upper_95_without_growth']:.3f}"
    )


def _repeat(
    measure: Callable[[Rows, Rows], Spread], fakes: Rows, reals: Rows, sizes: tuple[int, int]
) -> Callable[[int], Spread]:
    return lambda repetition: measure(*_draw(fakes, reals, sizes, repetition))


def _draw(fakes: Rows, reals: Rows, sizes: tuple[int, int], seed: int) -> tuple[Rows, Rows]:
    random = np.random.RandomState(seed)
    g, r = (rows[random.randint(0, len(rows), size)] for rows, size in zip((fakes, reals), sizes, strict=True))
    return g, r


def _frechet(fakes: Rows, reals: Rows) -> Spread:
    return frechet(fakes, reals).spread


def _kernel(fakes: Rows, reals: Rows) -> Spread:
    return kernel_distance(fakes, reals).spread


def _true_kid(fakes: Rows, reals: Rows) -> float:
    """Of draws with replacement: a pair may be the same row twice."""

    def mean(x: Rows, y: Rows) -> float:
        products = x.astype(np.float64) @ y.T.astype(np.float64)
        return float(((products / x.shape[1] + 1) ** 3).mean())

    return mean(fakes, fakes) + mean(reals, reals) - 2 * mean(fakes, reals)


if __name__ == "__main__":
    main()
