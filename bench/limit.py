"""The yardstick of every serving figure: raw ONNX Runtime and Pillow PNG, nothing else. Knows nothing of servers.

Two processes of one thread each run batches of 16 and encode every image as PNG at level 1. The machine's speed drifts
within seconds, so a served figure is quoted over the mean of the probes just before and just after it.

    python -m bench.limit MODEL.onnx [SECONDS]
"""

import io
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

BATCH_SIZE = 16
PROCESSES = 2


class Limit:
    """Idle processes that measure the limit when called; close them when done.

    Args:
        model: an ONNX file with an input z [N, z_dim], perhaps one of classes, and one output uint8 [N, H, W, C].
        batch_size: images in one run.
    """

    def __init__(self, model: Path, batch_size: int = BATCH_SIZE) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes = []
        for _ in range(PROCESSES):
            here, there = context.Pipe()
            process = context.Process(target=_probe, args=(str(model), batch_size, there), daemon=True)
            process.start()
            self._pipes.append(here)
            self._processes.append(process)
        for pipe in self._pipes:
            pipe.recv()

    def __call__(self, seconds: float = 0.7) -> float:
        """Images per second, all processes together, over so many seconds."""
        for pipe in self._pipes:
            pipe.send(seconds)
        return float(sum(pipe.recv() for pipe in self._pipes))

    def close(self) -> None:
        """End the processes."""
        for pipe in self._pipes:
            pipe.send(0.0)
        for process in self._processes:
            process.join()


class Raw:
    """One image alone, without a server: ONNX Runtime at batch 1 on one thread, plus Pillow PNG level 1."""

    def __init__(self, model: Path) -> None:
        self._step = _stepper(str(model), 1)
        self._step()

    def __call__(self, seconds: float = 0.3) -> float:
        """Median time of an image in seconds, measured for so long."""
        times, end = [], time.perf_counter() + seconds
        while (began := time.perf_counter()) < end:
            self._step()
            times.append(time.perf_counter() - began)
        return float(np.median(times))


def _probe(model: str, batch_size: int, pipe: Connection) -> None:
    step = _stepper(model, batch_size)
    step()
    pipe.send(0)
    while seconds := pipe.recv():
        start, count = time.perf_counter(), 0
        while (spent := time.perf_counter() - start) < seconds:
            step()
            count += batch_size
        pipe.send(count / spent)


def _stepper(model: str, batch_size: int) -> Callable[[], None]:
    """Draws and encodes a batch at each call; a conditional model draws its class 0."""
    session, rng = _session(model), np.random.default_rng()
    z, *others = session.get_inputs()
    classes = {other.name: np.zeros(batch_size, np.int64) for other in others}

    def step() -> None:
        latents = rng.standard_normal((batch_size, z.shape[1]), dtype=np.float32)
        for image in session.run(None, {z.name: latents, **classes})[0]:
            _png(image)

    return step


def _session(model: str) -> Any:  # noqa: ANN401 onnxruntime publishes no types
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # as in the server
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = 1, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _png(image: NDArray[np.uint8]) -> bytes:  # [H, W, C]
    buffer = io.BytesIO()
    Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


if __name__ == "__main__":
    limit = Limit(Path(sys.argv[1]))
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 1.0
    print("images/s, five probes:", *(f"{limit(seconds):.0f}" for _ in range(5)))
    limit.close()
