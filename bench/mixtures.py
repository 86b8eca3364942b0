"""How well generators of the preset `mlp` cover ring and grid, seed by seed, beside what is published.

    python -m bench.mixtures [--data ring grid] [--seeds 0 1 2 3 4] [--runs FOLDER] [--json FILE]

Every run is `genserve train` and `genserve export` as a person gives them; measured is the exported file, by 25,000
samples of the service's own z. Runs that are in the folder already are measured and not trained again.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import msgspec
import numpy as np

from bench.machine import describe
from genserve.cli import main as genserve
from models.generator import Generator
from models.latents import draw
from models.mixtures import CEILING, GRID, RING, Coverage, Mixture

NUM_SAMPLES = 25_000
FIRST_SEED = 10_000_000  # of the samples: none that a validation score has seen
MIXTURES: dict[str, Mixture] = {"ring": RING, "grid": GRID}
# Lin et al. 2018 (PacGAN), Tables 1 and 2: modes, and high quality in %; 2,500 samples.
PUBLISHED = {
    "ring": {"GAN": (6.3, 98.2), "PacGAN4": (7.8, 95.9)},
    "grid": {"GAN": (17.3, 94.8), "PacGAN4": (24.8, 93.6)},
}


def cover(name: str, seed: int, folder: Path) -> tuple[Coverage, tuple[float, float] | None]:
    """Train where that is not done, export, measure; and training's seconds on the clock and of all cores together.

    They are None where the training was done before.
    """
    run_dir = folder / f"{name}-{seed}"
    seconds = None
    if not (run_dir / "export" / "model.onnx").exists():
        began = time.perf_counter(), time.process_time()
        if genserve(["train", name, "--seed", str(seed), "--run-dir", str(run_dir)]):
            raise SystemExit(f"training {run_dir} was stopped")
        seconds = time.perf_counter() - began[0], time.process_time() - began[1]
        genserve(["export", str(run_dir)])
    generator = Generator.from_bytes((run_dir / "export" / "model.onnx").read_bytes())
    z = draw(generator.signature, np.arange(NUM_SAMPLES) + FIRST_SEED).z
    return MIXTURES[name].coverage(generator.generate(z)), seconds


def main() -> None:
    """Print a line for each run and each published figure; keep the figures where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=MIXTURES, default=list(MIXTURES))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--runs", type=Path, help="folder of the runs, kept (default: a temporary one)")
    parser.add_argument("--json", type=Path, help="keep the figures here")
    args = parser.parse_args()
    lines: list[str] = [describe()]
    figures: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as temporary:
        for name in args.data:
            for seed in args.seeds:
                coverage, seconds = cover(name, seed, args.runs or Path(temporary))
                took = "" if seconds is None else f", {seconds[0]:.0f} s of training, {seconds[1]:.0f} s of cores"
                lines.append(f"{name} seed {seed}: {coverage}{took}")
                figures.append({"data": name, "seed": seed, "seconds": seconds, **msgspec.to_builtins(coverage)})
            for model, (modes, good) in PUBLISHED[name].items():
                lines.append(f"{name} {model}, published: {modes} modes, {good} % high quality")
    print("\n".join([*lines, f"a perfect sampler: {CEILING:.1%} high quality"]))
    if args.json:
        args.json.write_text(json.dumps({"machine": describe(), "runs": figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
