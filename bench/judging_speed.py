"""What judging costs: processor seconds, wall time and peak memory of each measure, and of the whole default gate.

    python -m bench.judging_speed [--only NAME ...] [--json FILE]

The wide measures are made of 10,000 against 10,000 normal vectors of 2,048 dimensions with a power law's spectrum, as
Inception features have; each in a process of its own, so that its peak is its own. "gate" judges the shipped model as
`genserve gate` does, without a champion, features of real data kept from before or not.
"""

import argparse
import json
import multiprocessing
import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.machine import describe
from models.frechet import frechet
from models.judge import describe_reference, run_gate
from models.kernel import kernel_distance
from models.neighbours import neighbourhood
from models.policy import Policy
from models.repository import Repository

COUNT, DIM = 10_000, 2_048
ZOO = Path(__file__).parent.parent / "models" / "zoo"
MODEL = "fashion-mnist"


def main() -> None:
    """Measure what is asked for, print a line each, keep the figures."""
    measured: dict[str, Callable[[], None]] = {
        "FD": lambda: _wide(frechet),
        "KID": lambda: _wide(kernel_distance),
        "PRDC": lambda: _wide(neighbourhood),
        "gate": _gates,
    }
    parser = argparse.ArgumentParser(description="What judging costs.")
    parser.add_argument("--only", nargs="+", choices=measured, default=list(measured))
    parser.add_argument("--json", type=Path, help="keep the figures here")
    args = parser.parse_args()
    print(describe())
    figures = []
    for name in args.only:
        for what, figure in _alone(measured[name]):
            figures.append({"what": what or name, **figure})
            print(
                f"{what or name:<28} {figure['cpu_seconds']:7.1f} s of processor, {figure['wall_seconds']:7.1f} s,"
                f" peak {figure['peak_mb']:.0f} MB, {figure['own_mb']:.0f} MB of it not the features",
                flush=True,
            )
    if args.json:
        args.json.write_text(json.dumps({"machine": describe(), "figures": figures}, indent=2) + "\n")


def _wide(measure: Callable[[NDArray[np.float32], NDArray[np.float32]], Any]) -> None:
    fakes, reals = _features(1, 1.05), _features(2, 1.0)
    _told("", lambda: measure(fakes, reals))


def _features(seed: int, scale: float) -> NDArray[np.float32]:
    spectrum = np.arange(1, DIM + 1) ** -0.5
    drawn = np.random.default_rng(seed).standard_normal((COUNT, DIM), np.float32)
    return np.asarray(drawn * spectrum * scale + 0.4, np.float32)


def _gates() -> None:
    """The whole gate twice: without features kept, and with them."""
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder) / "models"
        shutil.copytree(ZOO, models)
        (models / MODEL / "history.jsonl").unlink(missing_ok=True)
        (models / MODEL / "aliases.json").unlink(missing_ok=True)
        repository = Repository(models)
        version = max(repository.versions(MODEL), key=lambda one: one.number)
        describe_reference(MODEL)
        for what in ("gate, nothing kept", "gate, reals' features kept"):
            cache = Path(folder) / "cache"
            _told(what, lambda cache=cache: run_gate(repository, version, policy=Policy(), cache=cache))  # type: ignore[misc]


def _told(what: str, work: Callable[[], object]) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF)
    start, used = time.perf_counter(), time.process_time()
    work()
    figure = {"cpu_seconds": time.process_time() - used, "wall_seconds": time.perf_counter() - start}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _results.append((what, {**figure, "peak_mb": peak / 1024, "own_mb": (peak - before.ru_maxrss) / 1024}))


_results: list[tuple[str, dict[str, float]]] = []


def _alone(work: Callable[[], None]) -> list[tuple[str, dict[str, float]]]:
    """Runs it in a forked process; what it told."""
    context = multiprocessing.get_context("fork")
    reader, writer = context.Pipe(duplex=False)

    def run() -> None:
        work()
        writer.send(_results)

    process = context.Process(target=run)
    process.start()
    writer.close()
    found: list[tuple[str, dict[str, float]]] = reader.recv()
    process.join()
    return found


if __name__ == "__main__":
    main()
