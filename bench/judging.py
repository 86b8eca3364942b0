"""What the gate sees of known faults: each at three strengths, what it measures, and what refuses it.

    python -m bench.judging [--extractor E] [--faults NAME ...] [--json FILE]

The fakes are bench.known_bad's, made of Fashion-MNIST's validation images and of the model that ships; they are held
against the gate split under the default policy, and against the shipped model where the comparison is meant for them.
Nothing is promoted by it.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.half_trained import half_trained
from bench.known_bad import Broken, Case, Faults, Samples
from bench.machine import describe
from models.datasets import Dataset, load_dataset
from models.extractors import resolve_extractor
from models.frechet import difference
from models.gate import gate
from models.measures import Comparison, Measures, Parity
from models.measuring import Fakes, Measured, measure_fakes, measure_floor
from models.policy import Policy
from models.reference import RealFeatures, cache_folder

ZOO = Path(__file__).parent.parent / "models" / "zoo" / "fashion-mnist"
HEADER = f"{'fakes':<40}{'FD/Tr':>8}{'prec.':>8}{'recall':>8}{'cover.':>8}{'replay':>8}{'pixels':>8}  refused by"
PARITY = Parity(ok=True, detail="not a file")
SHIPPED = "the shipped model"
HALF_TRAINED_KIMG = 60


def main() -> None:
    """Judge every fault, print the table, keep the figures."""
    parser = argparse.ArgumentParser(description="What the gate sees of known faults.")
    parser.add_argument("--extractor", help="a name or a folder (default: the data set's own)")
    parser.add_argument("--faults", nargs="+", help="only these, such as blurred half-trained (default: all)")
    parser.add_argument("--json", type=Path, help="keep the figures here")
    args = parser.parse_args()
    dataset = load_dataset("fashion-mnist")
    extractor = resolve_extractor(args.extractor, dataset)
    reals, policy = RealFeatures(dataset, extractor, cache=cache_folder()), Policy()
    floor = measure_floor(reals, "gate", policy)
    print(describe(), extractor.label, HEADER, sep="\n")
    print(_row("training images (floor)", floor.measures, ""))
    figures = [{"fakes": "floor", **_figures(floor.measures), "refused": ""}]
    champion: Measured | None = None
    for case in all_cases(dataset):
        if args.faults and case.gates and case.fault not in args.faults:
            continue
        samples = case.make()
        names = dataset.class_names if samples.asked is not None else None
        fakes = Fakes(extractor.extract(samples.images), samples.asked, names, samples.images[: policy.num_neighbours])
        found = measure_fakes(fakes, reals, "gate", policy)
        champion = champion or (found if case.fault == SHIPPED else None)
        others = [_against(found, champion)] if "G2" in case.gates and champion is not None else []
        decision = gate(found.measures, floor, others, policy, PARITY)
        refused = ", ".join(sorted({reason.split()[0] for reason in decision.reasons}))
        name = f"{case.fault}, {case.strength}".strip(", ")
        missed = "" if not case.gates or case.gates & set(refused.split(", ")) else "   NOT BY WHAT IS MEANT FOR IT"
        print(_row(name, found.measures, (refused or decision.decision) + missed), flush=True)
        figures.append({"fakes": name, **_figures(found.measures), "refused": refused})
    if args.json:
        document = {"machine": describe(), "extractor": extractor.label, "rungs": figures}
        args.json.write_text(json.dumps(document, indent=2) + "\n")


def all_cases(dataset: Dataset) -> Iterator[Case]:
    """What is sound first, then every fault."""
    validation, train = dataset.split("validation"), dataset.split("train")
    images, labels = np.asarray(validation.samples, np.uint8), validation.labels
    assert labels is not None
    newest = max(ZOO.glob("*/model.onnx"), key=lambda path: int(path.parent.name))
    broken = Broken(newest.read_bytes(), len(images))
    yield Case(SHIPPED, "", frozenset(), broken.sound)
    yield Case("validation images", "", frozenset(), lambda: Samples(images))
    yield Case("validation images", "classes asked for", frozenset(), lambda: Samples(images, labels))
    yield from Faults(images, labels, np.asarray(train.samples, np.uint8))
    yield from broken
    with tempfile.TemporaryDirectory() as folder:
        for stage, model in half_trained(Path(folder) / "run", HALF_TRAINED_KIMG, "--threads", "1"):
            yield Case("half-trained", stage, frozenset({"G1", "G2"}), partial(broken.of, model))


def _against(found: Measured, champion: Measured) -> Comparison:
    delta, se = difference(found.frechet, champion.frechet)
    return Comparison(role="champion", version=1, digest="", fd_inf=champion.frechet.fd_inf, delta=delta, se=se)


def _figures(measures: Measures) -> dict[str, Any]:
    figures = {
        "fd_share": measures.fd / measures.trace_real,
        "fd_inf_share": measures.fd_inf / measures.trace_real,
        **measures.scores._asdict(),
        "replay": measures.replay.share if measures.replay else None,
        "pixel_replay": measures.pixel_replay.share if measures.pixel_replay else None,
        "smallest_class_share": min(measures.class_shares) if measures.class_shares else None,
        "ndb": measures.bins.different.value if measures.bins else None,
        "near_duplicates": measures.twins.value if measures.twins else None,
        "worst_class_share": measures.worst_class.fd_inf / measures.trace_real if measures.worst_class else None,
        "inception_score": measures.inception_score.value if measures.inception_score else None,
        "c_t_auc": measures.overfitting.auc.value if measures.overfitting else None,
        "authentic": measures.overfitting.authentic.value if measures.overfitting else None,
    }
    return {name: value if value is not None and np.isfinite(value) else None for name, value in figures.items()}


def _row(name: str, measures: Measures, refused: str) -> str:
    figures = _figures(measures)
    keys = ("fd_share", "precision", "recall", "coverage", "replay", "pixel_replay")
    cells = ["" if figures[key] is None else f"{figures[key]:.4f}" for key in keys]
    return f"{name:<40}{''.join(f'{cell:>8}' for cell in cells)}  {refused}"


if __name__ == "__main__":
    main()
