"""What the live monitor finds, how often it is wrong, and what it costs under load. Knows no HTTP.

    python -m bench.monitoring [--models FOLDER] [--name NAME] [--parts faults live cost] [--blocks N] [--json FILE]

faults: blocks of fresh samples of a published model with a baseline, as it is and with faults of growing strength;
the watch is then run over blocks drawn from these again and again, for weeks. live: seconds until an idle server with
all models of the repository finds weights that were changed until the distance had risen by a half. cost: answers a
second of a server with the monitor over those of one without, taking turns. Every figure is a ratio or a count of its
own run, but for those seconds.
"""

import argparse
import json
import statistics
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from bench.connection import FIRST_SEED, Requests
from bench.load import LoadProcess, closed_loop
from bench.monitoring_faults import Measured, latent_faults, weight_faults
from bench.monitoring_live import seconds_to_alarm
from bench.server import running
from models.baseline import Baseline, decode, extractor_of
from models.generator import Generator
from models.repository import ZOO, Repository, Version
from serving.monitor import block_time, budget_blocks
from serving.watch import HASTE, Watch

WEEKS = 100
TRIALS = 200
PARTS = ("faults", "live", "cost")
RISES = (0.5, 1.0)  # of the distance; the first is what must be found
MOST_BLOCKS = 2000
FAULTY = 4  # times fewer blocks of each fault than of the healthy model
LIVE_RUNS, LIVE_SHARE, LIVE_BLOCKS = 3, 0.2, 5
CONNECTIONS = (1, 16, 64)
ROUNDS, SECONDS = 5, 2.0
MONITORED = "genserve_monitor_images_total"


def main() -> int:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description="Measures the live monitor.")
    parser.add_argument("--models", type=Path, default=ZOO, help="repository (default: the shipped models)")
    parser.add_argument("--name", default="fashion-mnist")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--blocks", type=int, default=60, help="of the healthy model; a quarter as many of each fault")
    parser.add_argument("--json", type=Path, help="keep the figures here, beside those of other models and parts")
    args = parser.parse_args()
    figures: dict[str, Any] = {}
    if "faults" in args.parts:
        figures["faults"] = faults(Repository(args.models), args.name, args.blocks)
    if "live" in args.parts:
        figures["live"] = live(Repository(args.models), args.name)
    if "cost" in args.parts:
        figures["cost"] = cost(args.models, args.name)
    print(json.dumps(figures, indent=1))
    if args.json:
        kept = json.loads(args.json.read_text()) if args.json.exists() else {}
        kept[args.name] = kept.get(args.name, {}) | figures
        args.json.write_text(json.dumps(kept, indent=1) + "\n")
    return 0


def faults(repository: Repository, name: str, blocks: int) -> dict[str, Any]:
    """Rise of the distance, and blocks until the alarm, for a healthy model and for faults."""
    version, baseline = _watched(repository, name)
    measured = Measured(baseline, extractor_of(baseline, repository.root))
    model = version.model_path.read_bytes()
    generator = Generator.from_bytes(model)
    budget = budget_blocks(baseline, 1)
    healthy = measured.distances(generator, blocks)
    surprises = [baseline.surprise(distance) for distance in healthy]
    found: dict[str, Any] = {
        "block": baseline.block,
        "block_seconds": block_time(baseline),
        "block_seconds_suspicious": block_time(baseline) / HASTE,
        "slack_deviations": baseline.slack(),
        "fault_deviations": baseline.rise / baseline.block_deviation,
        "healthy": {
            "mean_deviations": float(np.mean(surprises)),
            "sd_deviations": float(np.std(surprises)),
            "alarms": _alarms(baseline, healthy, budget),
            "weeks": WEEKS,
        },
    }
    for rise in RISES:
        faulty, by = measured.worth(model, rise, seed=0)
        spoiled = measured.distances(Generator.from_bytes(faulty), -(-blocks // FAULTY), seed=1)
        _say(found, f"weights changed by about {rise:+.0%} of the distance", measured, spoiled, healthy, sd=by)
    for fault, spoil in latent_faults().items():
        spoiled = measured.distances(generator, -(-blocks // FAULTY), spoil, seed=1)
        _say(found, fault, measured, spoiled, healthy)
    for fault, faulty in weight_faults(model).items():
        spoiled = measured.distances(Generator.from_bytes(faulty), -(-blocks // FAULTY), seed=1)
        _say(found, fault, measured, spoiled, healthy)
    return found


def live(repository: Repository, name: str) -> dict[str, Any]:
    """Seconds from a fault of +50 % to its alarm in a running server, each run with weights that changed otherwise."""
    version, baseline = _watched(repository, name)
    measured = Measured(baseline, extractor_of(baseline, repository.root))
    model = version.model_path.read_bytes()
    healthy = measured.distances(Generator.from_bytes(model), LIVE_BLOCKS, seed=1)
    runs = []
    for seed in range(LIVE_RUNS):
        faulty, by = measured.worth(model, RISES[0], seed=seed)
        rise = measured.rise(measured.distances(Generator.from_bytes(faulty), LIVE_BLOCKS, seed=1), healthy)
        taken = seconds_to_alarm(repository, name, faulty, block=baseline.block, share=LIVE_SHARE)
        runs.append({"sd_of_weights": by, "rise_percent": 100 * rise, **taken})
        print(runs[-1], file=sys.stderr, flush=True)
    return {"share": LIVE_SHARE, "runs": runs}


def cost(models: Path, name: str) -> dict[str, Any]:
    """Answers a second with the monitor over those without, for each number of connections; taking turns."""
    settings = {"GENSERVE_CACHE_BYTES": "0"}
    ratios: dict[int, list[float]] = {connections: [] for connections in CONNECTIONS}
    drawn, answered = 0.0, 0
    seed = FIRST_SEED
    with ExitStack() as stack:
        load = LoadProcess()
        stack.callback(load.close)
        servers = [
            stack.enter_context(running(models, {**settings, "GENSERVE_MONITOR": share})) for share in ("0", "0.2")
        ]
        for round_ in range(ROUNDS):
            for connections in CONNECTIONS:
                rates = {}
                for index in (0, 1) if round_ % 2 else (1, 0):
                    server = servers[index]
                    seed += 1_000_000
                    requests = Requests(f'{{"model":"{name}","seed":%d}}', first_seed=seed)
                    before = server.counter(MONITORED)
                    done = load.run(closed_loop, server.port, requests, connections=connections, seconds=SECONDS)
                    rates[index] = done.rate
                    drawn += server.counter(MONITORED) - before
                    answered += done.answered
                ratios[connections].append(rates[1] / rates[0])
    return {
        "ratio": {
            str(connections): {"median": statistics.median(found), "range": [min(found), max(found)]}
            for connections, found in ratios.items()
        },
        "fresh_samples_under_load": drawn,
        "answered": answered,
    }


def _watched(repository: Repository, name: str) -> tuple[Version, Baseline]:
    version = repository.resolve(name)
    verdict = repository.passing(version)
    if verdict is None or verdict.baseline is None:
        raise SystemExit(f"{version} has no verdict with a baseline: gate it again")
    return version, decode(repository.baseline(version, verdict))


def _alarms(baseline: Baseline, healthy: list[float], budget: float) -> int:
    """False alarms in WEEKS weeks of blocks drawn with replacement; the watch begins anew after each."""
    random, alarms, elapsed = np.random.RandomState(0), 0, 0.0
    watch = Watch(baseline, budget)
    while elapsed < WEEKS * budget:
        for distance in random.choice(healthy, 10_000):
            elapsed += watch.pace
            if watch.block(float(distance)) is not None:
                alarms += 1
                watch = Watch(baseline, budget)
    return alarms


def _say(
    found: dict[str, Any],
    fault: str,
    measured: Measured,
    distances: list[float],
    healthy: list[float],
    **more: float,
) -> None:
    rise = measured.rise(distances, healthy)
    found[fault] = {"rise_percent": 100 * rise} | _found(measured.baseline, distances) | more
    print(fault, found[fault], file=sys.stderr, flush=True)


def _found(baseline: Baseline, distances: list[float]) -> dict[str, float | None]:
    """Blocks until the alarm, from the watch's first on: median and 95 % of trials; None where none came in 2,000."""
    budget = budget_blocks(baseline, 1)
    random, taken = np.random.RandomState(1), []
    for _ in range(TRIALS):
        watch = Watch(baseline, budget)
        draws = random.choice(distances, MOST_BLOCKS)
        taken.append(next((i for i, x in enumerate(draws, 1) if watch.block(float(x)) is not None), MOST_BLOCKS + 1))
    median, slow = np.quantile(taken, [0.5, 0.95])
    return {
        "blocks_median": None if median > MOST_BLOCKS else float(median),
        "blocks_95": None if slow > MOST_BLOCKS else float(slow),
    }


if __name__ == "__main__":
    sys.exit(main())
