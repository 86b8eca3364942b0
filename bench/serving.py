"""Served images/s as ratios to the limit, at 1, 16 and 64 connections, interleaved. Knows nothing of how serving works.

    python -m bench.serving [--repeats R] [--seconds S] [--models small medium] [--json FILE]

Both reference generators are published as foreign ONNX files and served by one default server: no cache, one image a
request, distinct seeds. Each run stands between two probes of the limit and is divided by their mean, since the
machine's speed drifts; repeats go round all scenarios (A B C A B C), and the table gives median and range.
"""

import argparse
import json
import statistics
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench import reference_models
from bench.limit import Limit, raw_latency_seconds
from bench.load import Load, closed_loop
from bench.machine import describe
from bench.server import counter, running
from models.publish import publish
from models.repository import Repository

CONNECTIONS = (1, 16, 64)
MAX_RATE = 20_000  # requests/s that no scenario reaches: that many distinct seeds are prepared for each second
SETTINGS = {"GENSERVE_ALLOW_UNJUDGED": "1", "GENSERVE_CACHE_BYTES": "0", "GENSERVE_STOCK_IMAGES": "0"}


@dataclass
class Scenario:
    """One row of the table: a model under a number of connections, and what its repeats gave."""

    model: str
    connections: int
    rates: list[float] = field(default_factory=list)  # images/s
    ratios: list[float] = field(default_factory=list)  # to the mean of the two probes around
    limits: list[float] = field(default_factory=list)  # images/s
    p50_seconds: list[float] = field(default_factory=list)
    p99_seconds: list[float] = field(default_factory=list)

    def add(self, load: Load, before: float, after: float) -> None:
        """Keep one repeat."""
        limit = (before + after) / 2
        self.rates.append(load.rate)
        self.limits.append(limit)
        self.ratios.append(load.rate / limit)
        self.p50_seconds.append(load.percentile(0.5))
        self.p99_seconds.append(load.percentile(0.99))

    def row(self) -> str:
        """The table's line: medians, and the range of the ratio."""
        median = statistics.median
        return (
            f"{self.model:<8}{self.connections:>5}{median(self.limits):>11.0f}{median(self.rates):>11.0f}"
            f"{median(self.ratios):>8.2f}  {min(self.ratios):.2f} .. {max(self.ratios):.2f}"
            f"{median(self.p50_seconds) * 1000:>9.2f}{median(self.p99_seconds) * 1000:>9.2f}"
        )


HEADER = f"{'model':<8}{'conn':>5}{'limit/s':>11}{'served/s':>11}{'ratio':>8}  {'range':<12}{'p50 ms':>9}{'p99 ms':>9}"


def main() -> None:
    """Measure, print the table, keep the figures."""
    parser = argparse.ArgumentParser(description="Served images/s as ratios to the limit.")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each run")
    parser.add_argument("--models", nargs="+", choices=tuple(reference_models.WIDTHS), default=["small", "medium"])
    parser.add_argument("--json", type=Path, help="keep the figures here")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = reference_models.write(Path(folder))
        repository = Repository(Path(folder) / "repository")
        for name in args.models:
            publish(repository, name, paths[name].read_bytes(), prior="normal", why="benchmark")
        scenarios = [Scenario(model, connections) for model in args.models for connections in CONNECTIONS]
        limits = {model: Limit(paths[model]) for model in args.models}
        raw = {model: raw_latency_seconds(paths[model]) for model in args.models}
        with running(repository.root, SETTINGS) as port:
            _measure(scenarios, limits, port, args.repeats, args.seconds)
        for limit in limits.values():
            limit.close()
    print(describe())
    print("one image alone, ONNX Runtime + Pillow:", *(f"{m} {t * 1000:.2f} ms" for m, t in raw.items()))
    print(HEADER, *(scenario.row() for scenario in scenarios), sep="\n")
    if args.json:
        figures = {"machine": describe(), "raw_seconds": raw, "scenarios": [asdict(s) for s in scenarios]}
        args.json.write_text(json.dumps(figures, indent=2) + "\n")


def _measure(scenarios: list[Scenario], limits: dict[str, Limit], port: int, repeats: int, seconds: float) -> None:
    first_seed = 0
    for _ in range(repeats):
        for scenario in scenarios:
            bodies = _bodies(scenario.model, first_seed, int(MAX_RATE * seconds))
            first_seed += len(bodies)
            before = limits[scenario.model]()
            generated = counter(port, "genserve_images_generated_total")
            load = closed_loop(port, bodies, connections=scenario.connections, seconds=seconds)
            generated = counter(port, "genserve_images_generated_total") - generated
            after = limits[scenario.model]()
            if load.failures or generated < load.requests:
                raise RuntimeError(f"not a fair run: {load.failures}, {generated} generated, {load.requests} answered")
            scenario.add(load, before, after)


def _bodies(model: str, first_seed: int, count: int) -> list[bytes]:
    return [b'{"model":"%s","seed":%d}' % (model.encode(), (first_seed + i) % 2**32) for i in range(count)]


if __name__ == "__main__":
    main()
