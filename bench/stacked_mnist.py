"""How many of stacked MNIST's 1000 modes a trained generator covers, beside what is published.

    python -m bench.stacked_mnist [--seeds 0 1 2] [--runs FOLDER] [--classifier mnist-cnn] [--json FILE]

Every run is `genserve train stacked-mnist` and `genserve export`, as a person gives them; then 26,000 samples of the
exported file, a classifier of digits on each channel (Lin et al. 2018, section 4.2). Real stacks of the gate split,
counted in the same way, say what the classifier costs. A run that is in the folder already is gone on with.
"""

import argparse
import json
import tempfile
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from bench.machine import describe
from genserve.cli import main as genserve
from models.datasets import load_dataset
from models.extractors import Extractor, open_extractor
from models.generator import Generator
from models.latents import draw
from models.stacked import NUM_SAMPLES, ModesCovered, modes_covered
from trainer.run_records import RunRecord

DATA = "stacked-mnist"
FIRST_SEED = 10_000_000  # of the samples: none that a validation score has seen
# Lin et al. 2018 (PacGAN), Table 3: modes, KL
PUBLISHED = {"DCGAN": (99.0, 3.40), "VEEGAN": (150.0, 2.95), "PacDCGAN2": (1000.0, 0.06)}


class Result(msgspec.Struct, frozen=True):
    """Of a run: what its samples cover, and its seconds of training, snapshots and scores included."""

    seed: int
    covered: ModesCovered
    kimg: float
    seconds: float | None


def classify(extractor: Extractor, images: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Digits [N, H, W, 1] -> classes [N]."""
    found = extractor.classify(images)
    if found is None:
        raise SystemExit(f"{extractor.label} does not classify")
    return found


def measure(seed: int, folder: Path, extractor: Extractor) -> Result:
    """Train or go on, export, sample and count."""
    run_dir = folder / f"{DATA}-{seed}"
    words = ["--resume", str(run_dir)] if run_dir.exists() else [DATA, "--seed", str(seed), "--run-dir", str(run_dir)]
    if genserve(["train", *words]):
        raise SystemExit(f"training {run_dir} was stopped: the same command goes on")
    genserve(["export", str(run_dir)])
    generator = Generator.from_bytes((run_dir / "export" / "model.onnx").read_bytes())
    z = draw(generator.signature, np.arange(NUM_SAMPLES) + FIRST_SEED).z
    samples = np.concatenate([generator.generate(part) for part in np.array_split(z, NUM_SAMPLES // 250)])
    record = RunRecord(run_dir)
    return Result(seed, modes_covered(samples, partial(classify, extractor)), record.kimg, record.seconds)


def main() -> None:
    """Print a line for the real data, each run and each published figure; keep the figures where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, help="folder of the runs, kept (default: a temporary one)")
    parser.add_argument("--classifier", default="mnist-cnn", help="an extractor with classes: a name or a folder")
    parser.add_argument("--json", type=Path, help="keep the figures here")
    args = parser.parse_args()
    extractor = open_extractor(args.classifier)
    digits = load_dataset("mnist").split("gate")
    accuracy = float((classify(extractor, np.asarray(digits.samples, np.uint8)) == digits.labels).mean())
    real = modes_covered(np.asarray(load_dataset(DATA).split("gate").samples, np.uint8), partial(classify, extractor))
    lines = [describe(), f"{extractor.label}: {accuracy:.2%} of the gate split's digits right", f"real: {told(real)}"]
    with tempfile.TemporaryDirectory() as temporary:
        results = [measure(seed, args.runs or Path(temporary), extractor) for seed in args.seeds]
    for result in results:
        spent = "" if result.seconds is None else f", {result.seconds / 60:.0f} minutes of training"
        lines.append(f"seed {result.seed}, {result.kimg:g} kimg: {told(result.covered)}{spent}")
    if len(results) > 1:
        least, most = min(one.covered.modes for one in results), max(one.covered.kl for one in results)
        lines.append(f"{len(results)} seeds: at least {least} modes, KL at most {most:.3f}")
    lines += [f"{model}, published: {modes:g} of 1000 modes, KL {kl:.2f}" for model, (modes, kl) in PUBLISHED.items()]
    print("\n".join(lines))
    if args.json:
        runs = msgspec.to_builtins(results)
        kept = {"machine": describe(), "accuracy": accuracy, "real": msgspec.to_builtins(real), "runs": runs}
        args.json.write_text(json.dumps(kept, indent=2) + "\n")


def told(covered: ModesCovered) -> str:
    """For a person."""
    return f"{covered.modes} of 1000 modes, KL {covered.kl:.3f}"


if __name__ == "__main__":
    main()
