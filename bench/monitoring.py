"""What the live monitor finds, how often it is wrong, and what it costs under load. Knows no HTTP.

    python -m bench.monitoring [--models FOLDER] [--name NAME] [--parts faults live cost] [--blocks N] [--json FILE]

faults: blocks of fresh samples of a published model with a baseline, as it is and with faults of growing strength;
the test is then run over blocks drawn from these again and again, for weeks. live: seconds until an idle server with
all models of the repository finds the smallest of the faults in one model's weights. cost: answers a second of a
server with the monitor over those of one without, taking turns. Every figure is a ratio or a count of its own run,
but for those seconds.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.connection import FIRST_SEED, Requests
from bench.known_bad import Weights, changed, coarse
from bench.load import LoadProcess, closed_loop
from bench.monitoring_live import seconds_to_alarm
from bench.server import running
from models.baseline import Baseline, Meter, decode
from models.extractor_store import find
from models.extractors import Extractor, open_extractor
from models.generator import Generator
from models.latents import Latents, draw
from models.repository import ZOO, Repository, Version
from models.sequential import Detector
from serving.monitor import budget_blocks, pace

WEEKS = 100
TRIALS = 200
PARTS = ("faults", "live", "cost")
LIVE_RUNS, LIVE_SHARE = 3, 0.2
CONNECTIONS = (1, 16, 64)
ROUNDS, SECONDS = 5, 2.0
CLAMPS, SCALES = (1.0, 0.8, 0.6), (1.2, 1.35)
LEVELS, NOISES = (33, 17), (0.1, 0.2)  # of weights that are rounded; sd of a relative change to each
MONITORED = "genserve_monitor_images_total"
RUN = 50  # samples at a time

Spoil = Callable[[Latents], Latents]


def main() -> int:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description="Measures the live monitor.")
    parser.add_argument("--models", type=Path, default=ZOO, help="repository (default: the shipped models)")
    parser.add_argument("--name", default="fashion-mnist")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--blocks", type=int, default=60, help="of the healthy model; a third as many of each fault")
    parser.add_argument("--json", type=Path, help="keep the figures here")
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
        args.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


def faults(repository: Repository, name: str, blocks: int) -> dict[str, Any]:
    """Rise of the distance, and blocks until the alarm, for a healthy model and for faults."""
    version, baseline = _watched(repository, name)
    digest = baseline.extractor_manifest.digest
    extractor = open_extractor(find(baseline.extractor, repository=repository.root, digest=digest), threads=1)
    model = version.model_path.read_bytes()
    generator = Generator.from_bytes(model)
    budget = budget_blocks(baseline, 1)
    healthy = _blocks(baseline, extractor, generator, blocks, _as_it_is)
    found: dict[str, Any] = {
        "block": baseline.block,
        "block_seconds": pace(baseline, suspicious=False),
        "block_seconds_suspicious": pace(baseline, suspicious=True),
        "slack_deviations": baseline.slack(),
        "fault_deviations": baseline.rise / baseline.block_deviation,
        "healthy": {
            "mean_deviations": float(np.mean(_surprises(baseline, healthy))),
            "sd_deviations": float(np.std(_surprises(baseline, healthy))),
            "alarms": _alarms(baseline, healthy, budget),
            "weeks": WEEKS,
        },
    }
    faulty = {fault: (generator, spoil) for fault, spoil in _latent_faults().items()}
    faulty |= {fault: (Generator.from_bytes(file), _as_it_is) for fault, file in _weight_faults(model).items()}
    for fault, (network, spoil) in faulty.items():
        spoiled = _blocks(baseline, extractor, network, -(-blocks // 3), spoil)
        found[fault] = _found(baseline, spoiled, budget)
        print(fault, found[fault], file=sys.stderr, flush=True)
    return found


def live(repository: Repository, name: str) -> dict[str, Any]:
    """Seconds from a fault to its alarm in a running server, each run with weights that changed otherwise."""
    version, baseline = _watched(repository, name)
    runs = []
    for seed in range(LIVE_RUNS):
        faulty = changed(version.model_path.read_bytes(), partial(_disturbed, NOISES[0], seed=seed))
        runs.append(seconds_to_alarm(repository, name, faulty, block=baseline.block, share=LIVE_SHARE))
        print(runs[-1], file=sys.stderr, flush=True)
    return {"fault": f"weights changed by {NOISES[0]:.0%}", "share": LIVE_SHARE, "runs": runs}


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


def _latent_faults() -> dict[str, Spoil]:
    clamps: dict[str, Spoil] = {f"latents clamped at {limit}": partial(_clamped, limit) for limit in CLAMPS}
    return clamps | {f"latents times {by}": partial(_scaled, by) for by in SCALES}


def _weight_faults(model: bytes) -> dict[str, bytes]:
    """A provider that computes too coarsely, and memory that went bad."""
    faults = {f"weights rounded to {levels} levels": partial(coarse, levels) for levels in LEVELS}
    faults |= {f"weights changed by {by:.0%}": partial(_disturbed, by) for by in NOISES}
    return {fault: changed(model, change) for fault, change in faults.items()}


def _disturbed(by: float, weights: Weights, *, seed: int = 0) -> Weights:
    return np.asarray(weights * (1 + by * np.random.RandomState(seed).standard_normal(weights.shape)))


def _clamped(limit: float, z: Latents) -> Latents:
    return np.clip(z, -limit, limit)


def _scaled(by: float, z: Latents) -> Latents:
    return (by * z).astype(np.float32)


def _as_it_is(z: Latents) -> Latents:
    return z


def _blocks(
    baseline: Baseline,
    extractor: Extractor,
    generator: Generator,
    count: int,
    spoil: Spoil,
) -> list[float]:
    """Distances of so many blocks of samples."""
    meter = Meter(baseline)
    seeds = np.random.RandomState(count).randint(0, 2**32, (count, baseline.block), np.uint32)
    distances = []
    for row in seeds:
        z, class_idx = draw(generator.signature, row)
        z = spoil(z)
        parts = [
            generator.generate(z[i : i + RUN], None if class_idx is None else class_idx[i : i + RUN])
            for i in range(0, len(z), RUN)
        ]
        samples = np.concatenate(parts)
        distances.append(meter.distance(extractor.features(samples)))
    return distances


def _surprises(baseline: Baseline, distances: list[float]) -> list[float]:
    return [baseline.surprise(distance) for distance in distances]


def _alarms(baseline: Baseline, healthy: list[float], budget: float) -> int:
    """False alarms in WEEKS weeks of blocks drawn with replacement; the detector begins anew after each."""
    surprises = np.array(_surprises(baseline, healthy))
    random, alarms = np.random.RandomState(0), 0
    detector = Detector(slack=baseline.slack(), threshold=budget)
    for x in random.choice(surprises, int(WEEKS * budget)):
        if detector.observe(float(x)):
            alarms += 1
            detector = Detector(slack=baseline.slack(), threshold=budget)
    return alarms


def _found(baseline: Baseline, distances: list[float], budget: float) -> dict[str, float | None]:
    """The rise in percent, and blocks until the alarm: median and 95 % of trials; None where none came in 2,000."""
    surprises = np.array(_surprises(baseline, distances))
    random, taken = np.random.RandomState(1), []
    for _ in range(TRIALS):
        detector = Detector(slack=baseline.slack(), threshold=budget)
        draws = random.choice(surprises, 2000)
        taken.append(next((i for i, x in enumerate(draws, 1) if detector.observe(float(x))), 2001))
    now = float(np.mean(distances)) - baseline.bias
    median, slow = np.quantile(taken, [0.5, 0.95])
    return {
        "rise_percent": 100 * (now / baseline.fd_inf - 1),
        "blocks_median": None if median > 2000 else float(median),
        "blocks_95": None if slow > 2000 else float(slow),
        "samples_median": None if median > 2000 else float(median) * baseline.block,
    }


if __name__ == "__main__":
    sys.exit(main())
