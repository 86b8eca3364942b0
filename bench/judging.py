"""What the gate sees: real images made worse in known ways, judged as fakes. Knows no generator.

    python -m bench.judging [--extractor E] [--json FILE]

The fakes are Fashion-MNIST's validation images, noised, blurred, thinned by a class, replaced by training images or
repeated; they are held against the gate split under the default policy. Nothing is promoted by it.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from bench.machine import describe
from models.datasets import Split, load_dataset
from models.extractors import resolve_extractor
from models.gate import gate
from models.measures import Measures, Parity
from models.measuring import Fakes, measure_fakes, measure_floor
from models.policy import Policy
from models.reference import RealFeatures, cache_folder

Images = NDArray[np.uint8]  # [N, H, W, C]

MISSING_CLASS = 3
HEADER = f"{'fakes':<24}{'FD/Tr':>8}{'prec.':>8}{'recall':>8}{'cover.':>8}{'replay':>8}{'pixels':>8}  refused by"


def main() -> None:
    """Judge every ladder rung, print the table, keep the figures."""
    parser = argparse.ArgumentParser(description="What the gate sees of known faults.")
    parser.add_argument("--extractor", help="a name or a folder (default: the data set's own)")
    parser.add_argument("--json", type=Path, help="keep the figures here")
    args = parser.parse_args()
    dataset = load_dataset("fashion-mnist")
    extractor = resolve_extractor(args.extractor, dataset)
    reals, policy = RealFeatures(dataset, extractor, cache=cache_folder()), Policy()
    floor = measure_floor(reals, "gate", policy)
    print(describe(), extractor.label, HEADER, sep="\n")
    print(_row("training images (floor)", floor.measures, ""))
    figures = [{"fakes": "floor", **_figures(floor.measures), "refused": ""}]
    for name, make in rungs(dataset.split("validation"), dataset.split("train")).items():
        samples = make()
        fakes = Fakes(extractor.extract(samples), None, None, samples[: policy.num_neighbours])
        measures = measure_fakes(fakes, reals, "gate", policy).measures
        decision = gate(measures, floor, [], policy, Parity(ok=True, detail="real images"))
        refused = ", ".join(sorted({reason.split()[0] for reason in decision.reasons}))
        print(_row(name, measures, refused or decision.decision), flush=True)
        figures.append({"fakes": name, **_figures(measures), "refused": refused})
    if args.json:
        document = {"machine": describe(), "extractor": extractor.label, "rungs": figures}
        args.json.write_text(json.dumps(document, indent=2) + "\n")


def rungs(validation: Split, train: Split) -> dict[str, Callable[[], Images]]:
    """The ladder by name; each rung makes its fakes, the same every time."""
    images: Images = validation.samples.astype(np.uint8)
    train_images: Images = train.samples.astype(np.uint8)
    labels = validation.labels
    rng = np.random.RandomState(0)
    others = labels != MISSING_CLASS
    half = others | (rng.random_sample(len(images)) < 0.5)
    noise = rng.normal(0, 20, images.shape)

    def replay(count: int) -> Images:
        return np.concatenate([train_images[:count], images[count:]])

    return {
        "validation images": lambda: images,
        "noise, sd 20 levels": lambda: np.clip(images + noise, 0, 255).astype(np.uint8),
        "blur, sd 0.8 pixels": lambda: gaussian_filter(images.astype(float), (0, 0.8, 0.8, 0)).round().astype(np.uint8),
        "one class missing": lambda: images[others],
        "half a class missing": lambda: images[half],
        "5 % training images": lambda: replay(len(images) // 20),
        "10 % training images": lambda: replay(len(images) // 10),
        "50 images repeated": lambda: images[:50][rng.randint(0, 50, len(images))],
    }


def _figures(measures: Measures) -> dict[str, Any]:
    return {
        "fd_share": measures.fd / measures.trace_real,
        "fd_inf_share": measures.fd_inf / measures.trace_real,
        **measures.scores._asdict(),
        "replay": measures.replay.share if measures.replay else None,
        "pixel_replay": measures.pixel_replay.share if measures.pixel_replay else None,
        "smallest_class_share": min(measures.class_shares) if measures.class_shares else None,
    }


def _row(name: str, measures: Measures, refused: str) -> str:
    figures = _figures(measures)
    keys = ("fd_share", "precision", "recall", "coverage", "replay", "pixel_replay")
    cells = ["" if figures[key] is None else f"{figures[key]:.4f}" for key in keys]
    return f"{name:<24}{''.join(f'{cell:>8}' for cell in cells)}  {refused}"


if __name__ == "__main__":
    main()
