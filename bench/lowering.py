"""How much faster generators are as matrix products: the published graph and its two lowered forms, in turns.

One thread, and that thread's processor time, so that what else runs on the machine counts little; a round runs each
graph once, and a ratio is one round's. Read with docs/decisions/0004-lowering.md.

    python -m bench.lowering [MODEL.onnx ...] [--batches 1 2 4 8 16] [--rounds 60]
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from bench import machine, reference_models
from models.lowering import lower
from models.repository import ZOO, Repository
from models.runtime import make_session


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "models", nargs="*", type=Path, help="ONNX files; default: the reference models, the shipped one"
    )
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 2, 4, 8, 16])
    parser.add_argument("--rounds", type=int, default=60)
    options = parser.parse_args()
    files = {path.stem: path.read_bytes() for path in options.models}
    files = files or {
        **{name: reference_models.build(name) for name in reference_models.WIDTHS},
        "fashion-mnist": Repository(ZOO).resolve("fashion-mnist").model_path.read_bytes(),
    }
    print(machine.describe())
    print("| model | batch | published us/image | fastest us/image | ratio | windows us/image | ratio |")
    print("|---|---|---|---|---|---|---|")
    for name, data in files.items():
        for batch in options.batches:
            print(f"| {name} | {batch} | {' | '.join(measure(data, batch, options.rounds))} |", flush=True)


def measure(data: bytes, batch: int, rounds: int) -> list[str]:
    """Cells of one row: microseconds of processor time for each image, and ratios as median [quartiles]."""
    model = onnx.load_model_from_string(data)
    graphs = [data, *(lower(model, form=form).SerializeToString() for form in ("fastest", "windows"))]
    sessions = [make_session(graph) for graph in graphs]
    feed = _feed(model, batch)
    times = np.array([[_run(session, feed) for session in sessions] for _ in range(rounds + 3)])[3:] / batch * 1e6
    cells = [f"{np.median(times[:, 0]):.0f}"]
    for i in (1, 2):
        low, middle, high = np.percentile(times[:, 0] / times[:, i], [25, 50, 75])
        cells += [f"{np.median(times[:, i]):.0f}", f"{middle:.2f} [{low:.2f}, {high:.2f}]"]
    return cells


def _feed(model: onnx.ModelProto, batch: int) -> dict[str, Any]:
    """Latents for the first input, and class 0 for a second one."""
    latent, *classes = model.graph.input
    dims = [dim.dim_value for dim in latent.type.tensor_type.shape.dim[1:]]
    z = np.random.RandomState(0).standard_normal((batch, *dims)).astype(np.float32)
    return {latent.name: z, **{port.name: np.zeros(batch, np.int64) for port in classes}}


def _run(session: Any, feed: dict[str, Any]) -> float:  # noqa: ANN401 onnxruntime publishes no types
    start = time.thread_time()
    session.run(None, feed)
    return time.thread_time() - start


if __name__ == "__main__":
    main()
