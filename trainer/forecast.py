"""Says early in a long run what the whole of it will take: time, memory, disk. Measures the first steps, no more."""

import math
import resource
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from trainer.progress import duration
from trainer.state import State

WARM_UP_ROUNDS = 2  # of D's and G's periods: kernels are chosen and memory is taken
MEASURED_SECONDS = 5.0
LONG_SECONDS = 60.0
MOMENTS = 2  # that Adam keeps of each weight


class Forecast:
    """Watches the first steps of a run, and its first snapshot, which is when it takes most memory.

    Args:
        state: of the run.
        steps: of D and G in one round of their periods.
        folder: where the run is kept.
        clock: seconds, monotonic.
    """

    def __init__(self, state: State, steps: int, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.state, self.steps, self.folder, self.clock = state, steps, folder, clock
        self._first_step = state.step
        self._began = (0.0, 0)  # seconds and images at the end of the warm-up
        self._image_seconds: float | None = None  # of training, once enough was seen
        self._snapshot_seconds: float | None = None  # of the first snapshot
        self._long = False

    def after_step(self) -> str | None:
        """The forecast, once, when enough whole rounds were seen; None before, afterwards, and for short runs."""
        rounds, rest = divmod(self.state.step - self._first_step, self.steps)
        if self._image_seconds is not None or rest:
            return None
        if rounds <= WARM_UP_ROUNDS:
            self._began = self.clock(), self.state.num_images
            return None
        seconds = self.clock() - self._began[0]
        if seconds < MEASURED_SECONDS:
            return None
        self._image_seconds = seconds / (self.state.num_images - self._began[1])
        self._long = self._images_left * self._image_seconds >= LONG_SECONDS
        return self._line(self._image_seconds) if self._long else None

    def after_snapshot(self, seconds: float) -> str | None:
        """The forecast once more, with what snapshots take, after the first of a long run."""
        if self._snapshot_seconds is not None:
            return None
        self._snapshot_seconds = seconds
        return self._line(self._image_seconds) if self._long and self._image_seconds is not None else None

    @property
    def _images_left(self) -> float:
        return self.state.config.kimg * 1000 - self.state.num_images

    def _line(self, image_seconds: float) -> str:
        left = snapshots_left(self.state)
        each = "" if self._snapshot_seconds is None else f" of {duration(self._snapshot_seconds)} each"
        time_left = f"{duration(self._images_left * image_seconds)} of training and {left} snapshots{each}"
        return f"forecast: {time_left}, {_memory(self.state)}, {self._disk()}"

    def _disk(self) -> str:
        needed = bytes_to_come(self.state, kept=(self.folder / "checkpoint.pt").exists())
        free = shutil.disk_usage(self.folder).free
        short = f", where {needed / 1e6:.0f} MB are still needed and {free / 1e6:.0f} MB are free"
        return f"{disk_bytes(self.state) / 1e6:.0f} MB on disk" + (short if free < needed else "")


def _memory(state: State) -> str:
    parts = [f"{peak_bytes() / 1e9:.1f} GB of memory"]
    if state.crew.device.type == "cuda":
        parts.append(f"{torch.cuda.max_memory_allocated(state.crew.device) / 1e9:.1f} GB of the device's")
    return " and ".join(parts) + " so far"


def num_snapshots(state: State) -> int:
    """How many a whole run keeps."""
    return math.ceil(state.config.kimg / state.config.snapshot_kimg)


def snapshots_left(state: State) -> int:
    """How many are still to come."""
    return num_snapshots(state) - int(state.num_images / 1000 // state.config.snapshot_kimg)


def disk_bytes(state: State) -> int:
    """What a whole run's folder holds: one checkpoint, and what each snapshot leaves."""
    return _checkpoint_bytes(state) + num_snapshots(state) * _snapshot_bytes(state)


def bytes_to_come(state: State, *, kept: bool) -> int:
    """What a run still writes, at most at any time: a checkpoint is whole before it takes the last one's place.

    Args:
        state: of the run.
        kept: whether there is a checkpoint already.
    """
    left = snapshots_left(state)
    checkpoints = 1 if kept or left == 1 else 2
    return checkpoints * _checkpoint_bytes(state) + left * _snapshot_bytes(state)


def _checkpoint_bytes(state: State) -> int:
    G = num_bytes(state.G)
    return (1 + MOMENTS) * (G + num_bytes(state.D)) + G


def _snapshot_bytes(state: State) -> int:
    """Of an averaged generator and a sample grid."""
    return num_bytes(state.G) + 64 * math.prod(state.signature.shape)


def num_bytes(network: nn.Module) -> int:
    """Of all its parameters and buffers."""
    return sum(value.nbytes for value in network.state_dict().values())


def peak_bytes() -> int:
    """The most memory that this process has used so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
