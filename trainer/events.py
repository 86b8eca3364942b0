"""A run's statistics and sample grids as TensorBoard shows them. Knows nothing of how they are made.

The position on TensorBoard's axis is the number of real images shown, as in every figure of this trainer.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
from tensorboardX import SummaryWriter

from models.pictures import Images
from trainer.signals import Stats

FLUSH_SECONDS = 10
FOLDER = "tensorboard"


class EventLog:
    """Writes event files to a folder that `tensorboard --logdir` reads.

    Args:
        run_dir: of the run; the files lie in its folder `tensorboard`.
        kimg: where the run goes on; what an earlier process logged beyond is struck out. 0 for a new run.
    """

    def __init__(self, run_dir: Path, kimg: float) -> None:
        purge = _step(kimg) + 1 if kimg else None
        self.writer = SummaryWriter(str(run_dir / FOLDER), purge_step=purge, flush_secs=FLUSH_SECONDS)

    def record(self, stats: Stats) -> None:
        """Every number of a line of statistics."""
        for name, value in _numbers(msgspec.to_builtins(stats)):
            if name != "kimg":
                self.writer.add_scalar(name, value, _step(stats.kimg))

    def show(self, kimg: float, picture: Images) -> None:
        """A sample grid, [H, W, C] uint8."""
        self.writer.add_image("samples", picture, _step(kimg), dataformats="HWC")

    def close(self) -> None:
        """Write what is not written yet."""
        self.writer.close()


def _step(kimg: float) -> int:
    return round(kimg * 1000)


def _numbers(fields: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Of nested structs too: score/share."""
    for name, value in fields.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield prefix + name, float(value)
