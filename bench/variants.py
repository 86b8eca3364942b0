"""Each variant against plain ONNX Runtime on the fp32 file, on one thread, without a server. Knows nothing of serving.

    python -m bench.variants [--models small medium fashion-mnist] [--seconds S] [--json FILE]

Variants are made, judged and recorded by `genserve optimize`'s own code, in a repository of their own. Then plain ONNX
Runtime (the fp32 file as published, on the processor), the version as it is served and every variant take turns, batch
by batch, so that whatever else the machine does befalls all alike; each turn's time stands for itself, and the table
gives medians over turns of the ratio to the plain run beside it, with the range of its middle four fifths.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from bench import reference_models
from bench.machine import describe
from models.generator import Generator
from models.latents import Drawn, draw
from models.opening import open_variant_unchecked, open_version
from models.optimizing import optimize
from models.probing import used_provider
from models.publish import publish
from models.repository import ZOO, Repository, Version
from models.runtime import check_runtime, default_providers, make_session, short_name
from models.variants import variants

SHIPPED = "fashion-mnist"
MODELS = (*reference_models.WIDTHS, SHIPPED)
BATCHES = (1, 16)
HEADER = (
    f"{'model':<15}{'way':<12}{'provider':<10}{'batch':>5}{'images/s':>10}{'ratio':>7}  {'10 .. 90 %':<14}"
    f"{'error':>6}{'FD/Tr':>10}"
)


@dataclass(frozen=True)
class Way:
    """One way to run a model.

    Args:
        name: "plain", "as served", or the variant's.
        provider: that runs it.
        run: makes samples of latents.
        decision: of its verdict; "" for what is no variant.
        mean_error: in levels, beside the version.
        distance: FD to the version's samples / Tr.
    """

    name: str
    provider: str
    run: Callable[[Drawn], object]
    decision: str = ""
    mean_error: float | None = None
    distance: float | None = None


@dataclass(frozen=True)
class Row:
    """A way at one batch size: ratio to plain ONNX Runtime, its median over turns and the middle four fifths."""

    model: str
    way: str
    provider: str
    decision: str
    mean_error: float | None
    distance: float | None
    batch: int
    images_per_second: float
    ratio: float
    low: float
    high: float

    def __str__(self) -> str:
        error = "" if self.mean_error is None else f"{self.mean_error:.2f}"
        distance = "" if self.distance is None else f"{max(self.distance, 0):.1e}"
        return (
            f"{self.model:<15}{self.way:<12}{self.provider:<10}{self.batch:>5}{self.images_per_second:>10.0f}"
            f"{self.ratio:>7.2f}  {self.low:>5.2f} .. {self.high:<6.2f}{error:>6}{distance:>10}  {self.decision}"
        )


def main() -> None:
    """Make, measure, print, keep."""
    parser = argparse.ArgumentParser(description="Variants against plain ONNX Runtime.")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--seconds", type=float, default=20.0, help="of turns, for each model and batch size")
    parser.add_argument("--json", type=Path, help="keep the figures here, beside those of other runtimes")
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        repository = Repository(folder)
        for name in args.models:
            version = _published(repository, name)
            for _ in optimize(repository, version):
                pass  # what could not be made has no row
            ways = _ways(version)
            rows += [row for batch in BATCHES for row in _measure(version, ways, batch, args.seconds)]
    print(describe(), HEADER, *rows, sep="\n")
    if args.json:
        _keep(args.json, rows)


def _published(repository: Repository, name: str) -> Version:
    if name == SHIPPED:
        return publish(repository, name, Repository(ZOO).resolve(SHIPPED).model_path.read_bytes(), why="benchmark")
    return publish(repository, name, reference_models.build(name), prior="normal", why="benchmark")


def _ways(version: Version) -> list[Way]:
    """Plain ONNX Runtime first, then the version as it is served, then its variants."""
    provider = used_provider(default_providers())
    served = open_version(version, providers=(provider,)).generator
    plain, output = make_session(version.model_path.read_bytes()), served.signature.output_name
    ways = [
        Way("plain", "cpu", lambda drawn: plain.run([output], {"z": drawn.z})),
        Way("as served", short_name(provider), lambda drawn: served.generate(*drawn)),
    ]
    for variant in variants(version):
        manifest, verdict = variant.manifest(), variant.verdict()
        distance = next(number.value for name, number in verdict.numbers.items() if name.startswith("FD to parent"))
        ways.append(
            Way(
                name=variant.name,
                provider=short_name(manifest.recipe.provider),
                run=partial(_generate, open_variant_unchecked(variant, manifest)),
                decision=verdict.decision,
                mean_error=verdict.numbers["mean error"].value,
                distance=distance,
            )
        )
    return ways


def _generate(generator: Generator, drawn: Drawn) -> object:
    return generator.generate(*drawn)


def _measure(version: Version, ways: list[Way], batch: int, seconds: float) -> list[Row]:
    """All ways in turns; a turn's ratio is plain's time in it over the way's own."""
    drawn = draw(version.manifest().signature, range(batch))
    for way in ways:
        way.run(drawn)
    turns: list[list[float]] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(turns) < 10:
        turns.append([_seconds(way, drawn) for way in ways])
    rows = []
    for i, way in enumerate(ways):
        ratios = sorted(turn[0] / turn[i] for turn in turns)
        tenth = len(ratios) // 10
        rows.append(
            Row(
                model=version.name,
                way=way.name,
                provider=way.provider,
                decision=way.decision,
                mean_error=way.mean_error,
                distance=way.distance,
                batch=batch,
                images_per_second=batch / statistics.median(turn[i] for turn in turns),
                ratio=statistics.median(ratios),
                low=ratios[tenth],
                high=ratios[-1 - tenth],
            )
        )
    return rows


def _seconds(way: Way, drawn: Drawn) -> float:
    start = time.perf_counter()
    way.run(drawn)
    return time.perf_counter() - start


def _keep(path: Path, rows: list[Row]) -> None:
    """Write the figures under this ONNX Runtime's name; those of others stay."""
    kept = json.loads(path.read_text()) if path.exists() else {}
    kept[check_runtime().split()[0]] = {"machine": describe(), "rows": [asdict(row) for row in rows]}
    path.write_text(json.dumps(kept, indent=2) + "\n")


if __name__ == "__main__":
    main()
