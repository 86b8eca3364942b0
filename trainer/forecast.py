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
from trainer.schedule import Turn, d_steps_before, turn
from trainer.state import State

WARM_UP_STEPS = 2  # of each player: kernels are chosen and memory is taken
MEASURED_SECONDS = 5.0
LONG_SECONDS = 60.0
MOMENTS = 2  # that Adam keeps of each weight


class Pace:
    """How long the steps of one player take, without its first ones."""

    def __init__(self) -> None:
        self.seconds = 0.0  # of the steps that count
        self._steps = -WARM_UP_STEPS

    def add(self, seconds: float) -> None:
        """One more step."""
        self._steps += 1
        if self._steps > 0:
            self.seconds += seconds

    @property
    def step_seconds(self) -> float:
        """Of a step, on average; 0 where none counts yet."""
        return self.seconds / max(1, self._steps)


class Forecast:
    """Watches the first steps of a run, and its first snapshot, which is when it takes most memory.

    D's steps and G's are timed apart, so that no whole round of their periods must be waited for; where one's turn is
    long in coming, the other's steps alone say the least that the run will take.

    Args:
        state: of the run.
        d_steps: of D's period.
        g_steps: of G's.
        folder: where the run is kept.
        clock: seconds, monotonic.
    """

    def __init__(
        self, state: State, d_steps: int, g_steps: int, folder: Path, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.state, self.d_steps, self.g_steps, self.folder, self.clock = state, d_steps, g_steps, folder, clock
        self._paces: dict[Turn, Pace] = {"D": Pace(), "G": Pace()}
        self._since = clock()
        self._alone: Turn | None = None  # whose steps alone have been told of
        self._known = False  # what the steps of both take
        self._snapshot_seconds: float | None = None  # of the first snapshot

    def after_step(self) -> str | None:
        """The forecast of a long run, once, when enough was seen; that of one player, once, where this takes long."""
        if self._known:
            return None
        now, player = self.clock(), turn(self.state.step - 1, self.d_steps, self.g_steps)
        self._paces[player].add(now - self._since)
        self._since = now
        settled = self._settled(player)
        if self._timed and (settled or self._enough):
            self._known = True
        elif settled and self._alone is None:
            self._alone = player
        else:
            return None
        return self._line() if self._long else None

    def after_snapshot(self, seconds: float) -> str | None:
        """The forecast once more, with what snapshots take, after the first of a long run."""
        self._since = self.clock()
        if self._snapshot_seconds is not None:
            return None
        self._snapshot_seconds = seconds
        return self._line() if self._known and self._long else None

    @property
    def _timed(self) -> bool:
        """Whether both players were, be it for a step."""
        return all(pace.seconds for pace in self._paces.values())

    @property
    def _enough(self) -> bool:
        """Whether both were timed for long, or together for as long as some rounds take."""
        each = [pace.seconds for pace in self._paces.values()]
        whole = self.state.step % (self.d_steps + self.g_steps) == 0
        return min(each) >= MEASURED_SECONDS or (whole and sum(each) >= MEASURED_SECONDS)

    def _settled(self, player: Turn) -> bool:
        """Whether a player was timed for long, and the other's turn is far."""
        pace, length = self._paces[player], self.d_steps + self.g_steps
        left = (self.d_steps if player == "D" else length) - ((self.state.step - 1) % length + 1)
        return pace.seconds >= MEASURED_SECONDS and left * pace.step_seconds >= LONG_SECONDS

    @property
    def _long(self) -> bool:
        return self._seconds_left >= LONG_SECONDS

    @property
    def _seconds_left(self) -> float:
        """Of training; a run ends with D's last step."""
        config, step = self.state.config, self.state.step
        last = math.ceil(config.kimg * 1000 / config.batch_size)  # of D's steps
        d_done = d_steps_before(step, self.d_steps, self.g_steps)
        g_left = (last - 1) // self.d_steps * self.g_steps - (step - d_done)
        return (last - d_done) * self._paces["D"].step_seconds + g_left * self._paces["G"].step_seconds

    def _line(self) -> str:
        left = snapshots_left(self.state)
        each = "" if self._snapshot_seconds is None else f" of {duration(self._snapshot_seconds)} each"
        alone = "" if self._known else f" for {self._alone}'s steps alone"
        least = "" if self._known else "at least "
        time_left = f"{least}{duration(self._seconds_left)} of training{alone} and {left} snapshots{each}"
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
