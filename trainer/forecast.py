"""Says early in a long run what the whole of it will take: time, memory, disk. Measures the first steps, no more."""

import math
import resource
import sys
import time
from collections.abc import Callable

from torch import nn

from trainer.progress import duration
from trainer.state import State

WARM_UP_ROUNDS = 2  # of D's and G's periods: kernels are chosen and memory is taken
MEASURED_SECONDS = 5.0
LONG_SECONDS = 60.0
MOMENTS = 2  # that Adam keeps of each weight


class Forecast:
    """Watches the first steps of a run.

    Args:
        state: of the run.
        steps: of D and G in one round of their periods.
        clock: seconds, monotonic.
    """

    def __init__(self, state: State, steps: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.state, self.steps, self.clock = state, steps, clock
        self._first_step = state.step
        self._began = (0.0, 0)  # seconds and images at the end of the warm-up
        self._over = False

    def after_step(self) -> str | None:
        """The forecast, once, when enough whole rounds were seen; None before, afterwards, and for short runs."""
        rounds, rest = divmod(self.state.step - self._first_step, self.steps)
        if self._over or rest:
            return None
        if rounds <= WARM_UP_ROUNDS:
            self._began = self.clock(), self.state.num_images
            return None
        seconds = self.clock() - self._began[0]
        if seconds < MEASURED_SECONDS:
            return None
        self._over = True
        left = (self.state.config.kimg * 1000 - self.state.num_images) * seconds
        seconds_left = left / (self.state.num_images - self._began[1])
        return self._line(seconds_left) if seconds_left >= LONG_SECONDS else None

    def _line(self, seconds_left: float) -> str:
        time_left = f"{duration(seconds_left)} of training and {num_snapshots(self.state)} snapshots"
        memory, disk = f"{peak_bytes() / 1e9:.1f} GB of memory so far", f"{disk_bytes(self.state) / 1e6:.0f} MB on disk"
        return f"forecast: {time_left}, {memory}, {disk}"


def num_snapshots(state: State) -> int:
    """How many a whole run keeps."""
    return math.ceil(state.config.kimg / state.config.snapshot_kimg)


def disk_bytes(state: State) -> int:
    """What a whole run's folder holds: one checkpoint, and a generator and a sample grid a snapshot."""
    G, D, pixels = num_bytes(state.G), num_bytes(state.D), 64 * math.prod(state.signature.shape)
    checkpoint = (1 + MOMENTS) * (G + D) + G
    return checkpoint + num_snapshots(state) * (G + pixels)


def num_bytes(network: nn.Module) -> int:
    """Of all its parameters and buffers."""
    return sum(value.nbytes for value in network.state_dict().values())


def peak_bytes() -> int:
    """The most memory that this process has used so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
