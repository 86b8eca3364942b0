"""Measures what serving must reach, row by row, and prints one table. Knows nothing of how serving works.

    python -m bench.serving [--rows n1-64 ...] [--models small ...] [--repeats R] [--seconds S] [--set NAME=VALUE ...]
                            [--quiet CORES] [--json FILE]

Both reference generators are published as foreign ONNX files and served by default servers, one for each model. Repeats
go round all rows (A B C A B C), and the table gives medians and ranges; what a run's speed is divided by is measured
just before and just after it. A repeat that other work on the machine disturbed is made again, whatever its figure;
what was set aside is kept in the JSON file. Exit status 1: something was not fair, and the table's end says what.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from bench import scenarios
from bench.machine import describe, versions
from bench.overload import overload
from bench.processes import busy_seconds, cpu_seconds
from bench.stand import CACHED, MODELS, PLAIN, SHIPPED, STOCKED, Stand
from bench.table import Figures, Result, Row, details, table

LIMIT = "x limit"
TRIES = 4


def both(small: float, medium: float) -> dict[str, float]:
    """Targets of the reference models."""
    return {"small": small, "medium": medium}


ROWS = (
    Row(
        name="idle",
        title="limit beside an idle server",
        unit="x limit without one",
        targets=both(0.1, 0.1),
        sense="+-",
        measure=scenarios.idle,
        alone=True,
    ),
    Row(
        name="n1-64",
        title="n=1, 64 connections",
        unit=LIMIT,
        targets=both(1.0, 1.0),
        sense=">=",
        measure=partial(scenarios.closed, connections=64),
    ),
    Row(
        name="n1-16",
        title="n=1, 16 connections",
        unit=LIMIT,
        targets=both(0.8, 0.95),
        sense=">=",
        measure=partial(scenarios.closed, connections=16),
    ),
    Row(
        name="n1-1",
        title="n=1, 1 connection, p50",
        unit="ms over raw",
        targets=both(0.5, 0.5),
        sense="<=",
        measure=scenarios.lone,
    ),
    Row(
        name="n16-16",
        title="n=16 grid, 16 connections",
        unit=LIMIT,
        targets=both(1.4, 1.5),
        sense=">=",
        measure=partial(scenarios.closed, num_images=16, connections=16),
    ),
    Row(
        name="best",
        title="best variant, n=1, 64 connections",
        unit="x fp32 limit",
        targets={**both(1.2, 1.5), SHIPPED: 2.0},
        sense=">=",
        measure=partial(scenarios.closed, connections=64, kind="best"),
    ),
    Row(
        name="hit",
        title="cache hit, 64 connections",
        unit="x constant answer",
        targets=both(0.8, 0.8),
        sense=">=",
        measure=scenarios.cache_hit,
    ),
    Row(
        name="stock",
        title="unseeded n=1 from stock, p50",
        unit="x cache hit",
        targets=both(1.3, 1.3),
        sense="<=",
        measure=scenarios.from_stock,
    ),
    Row(
        name="stream",
        title="p99 of n=1 beside a stream of n=256",
        unit="chunks over alone",
        targets=both(2.0, 2.0),
        sense="<=",
        measure=scenarios.beside_stream,
    ),
    Row(
        name="overload",
        title="3 x overload, n=16, goodput",
        unit="x peak",
        targets={"medium": 0.9},
        sense=">=",
        measure=overload,
    ),
    Row(
        name="memory",
        title="resident under 64 connections",
        unit="MB",
        targets=both(250, 300),
        sense="<=",
        measure=scenarios.memory,
    ),
)


def main() -> int:
    """Measure, print the table, keep the figures."""
    args = _arguments()
    chosen = [row for row in ROWS if not args.rows or row.name in args.rows]
    results = [Result(row, model) for row in chosen for model in args.models if model in row.targets]
    overrides = dict(pair.split("=", 1) for pair in args.set)
    began = time.time()
    with tempfile.TemporaryDirectory() as folder, Stand(Path(folder), args.seconds, overrides) as stand:
        for result in results:
            if result.row.alone:
                _measure(stand, [result], args.repeats, args.quiet)
        _measure(stand, [result for result in results if not result.row.alone], args.repeats, args.quiet)
        faults = stand.faults
    print(describe(), table(results), details(results), *(f"NOT FAIR: {fault}" for fault in faults), sep="\n")
    if args.json:
        document = {
            "machine": describe(),
            "versions": versions(),
            "when": time.strftime("%Y-%m-%d", time.gmtime(began)),
            "arguments": {
                "repeats": args.repeats,
                "seconds": args.seconds,
                "quiet": args.quiet,
                "rows": [row.name for row in chosen],
            },
            "settings": {"plain": PLAIN, "cached": CACHED, "stocked": STOCKED, "every": overrides},
            "faults": faults,
            "rows": [result.document() for result in results],
        }
        args.json.write_text(json.dumps(document, indent=1) + "\n")
    return 1 if faults else 0


def _measure(stand: Stand, results: list[Result], repeats: int, quiet_cores: float) -> None:
    """All of them, then all of them again."""
    for repeat in range(repeats):
        for result in results:
            tries: list[Figures] = []
            while len(tries) < TRIES and all(figures["others_cores"] > quiet_cores for figures in tries):
                figures = _try(stand, result)
                if figures is None:
                    break
                tries.append(figures)
                told = f"{figures['figure']:.3f}, others {figures['others_cores']:.2f} cores"
                print(f"{repeat + 1}/{repeats} {result.row.name} {result.model}: {told}", file=sys.stderr, flush=True)
            tries.sort(key=lambda figures: float(figures["others_cores"]))
            result.repeats += tries[:1]
            result.set_aside += tries[1:]


def _try(stand: Stand, result: Result) -> Figures | None:
    """One repeat, with what other work on the machine took meanwhile; None where it failed."""
    began, busy, own = time.monotonic(), busy_seconds(), cpu_seconds(os.getpid())
    try:
        figures = result.row.measure(stand, result.model)
    except (RuntimeError, subprocess.CalledProcessError) as error:
        stand.check(False, f"{result.row.name} {result.model}: {error}")
        return None
    others = busy_seconds() - busy - (cpu_seconds(os.getpid()) - own)
    return {**figures, "others_cores": others / (time.monotonic() - began)}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measures what serving must reach.")
    names = [row.name for row in ROWS]
    parser.add_argument("--rows", nargs="+", choices=names, help="(default: all)")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS), help="(default: all)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each run")
    parser.add_argument(
        "--quiet",
        type=float,
        default=0.15,
        metavar="CORES",
        help=f"repeats beside which other work took more are made again, up to {TRIES} times; the quietest counts",
    )
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="settings of every server")
    parser.add_argument("--json", type=Path, help="keep the figures here")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
