"""A run's folder: configuration, checkpoint, snapshots, statistics, sample grids. Knows nothing of how they are made.

config.json                     the configuration, and what the data was
checkpoint.pt                   everything, to resume from; replaced atomically
snapshots/000050.000.pt         the averaged generator after 50 kimg, to export from
samples/000050.000.png          its samples of fixed z
stats.jsonl                     one line a tick, and one with a score a snapshot
export/                         model.onnx, parity.json, export.json
.lock                           held by the process that trains
"""

import contextlib
import fcntl
import io
import os
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import torch

from models.errors import Invalid, NotFound, Refused
from models.files import append_line, pretty_json, read_lines, replace_file
from models.manifest import Classes
from trainer.config import Config
from trainer.run_records import checkpoint_images
from trainer.signals import Score, Stats

NEAR_KIMG = 0.5
SNAPSHOT_NAME = re.compile(r"\d+\.\d{3}")


class Run(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """config.json: a configuration and the data it was used on.

    Args:
        config: of the run.
        data_hash: sha256 of the data's content.
        licence: of the data.
        shape: of an image, (H, W, C), or of a vector, (d,).
        classes: of a conditional run.
        code_version: of genserve when the run began.
    """

    config: Config
    data_hash: str
    licence: str | None
    shape: tuple[int, ...]
    classes: Classes | None = None
    code_version: str


class RunDir:
    """Reads and writes the files of a run.

    Args:
        path: of the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoint_path = path / "checkpoint.pt"
        self.stats_path = path / "stats.jsonl"
        self.export_dir = path / "export"

    def create(self, run: Run) -> None:
        """Make the folder of a new run.

        Raises:
            Invalid: there is a run already.
        """
        if (self.path / "config.json").exists():
            raise Invalid(f"{self.path} holds a run already: --resume {self.path}, or name another", field="run_dir")
        for name in ("snapshots", "samples"):
            (self.path / name).mkdir(parents=True, exist_ok=True)
        replace_file(self.path / "config.json", pretty_json(run))

    def read(self) -> Run:
        """The run's configuration.

        Raises:
            NotFound: there is no run.
            Invalid: config.json is damaged.
        """
        try:
            return msgspec.json.decode((self.path / "config.json").read_bytes(), type=Run)
        except FileNotFoundError as error:
            raise NotFound(f"{self.path} holds no run (no config.json)", field="run_dir") from error
        except (msgspec.DecodeError, Invalid) as error:
            raise Invalid(f"{self.path / 'config.json'}: {error}", field="run_dir") from error

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Be the one process that trains this run; the kernel lets go when the process dies.

        Raises:
            Refused: another process trains it.
        """
        descriptor = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError as error:
            raise Refused(f"another process trains {self.path}", field="run_dir") from error
        finally:
            os.close(descriptor)

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Replace checkpoint.pt atomically."""
        replace_file(self.checkpoint_path, _dump(state))

    def load_checkpoint(self) -> dict[str, Any]:
        """The last checkpoint.

        Raises:
            NotFound: the run has none yet.
            Invalid: it is damaged.
        """
        try:
            return _load(self.checkpoint_path)
        except Invalid as error:
            mend = "remove it, and --resume begins at the beginning"
            raise Invalid(f"{error.detail}; {mend}", field="run_dir") from error

    def kept(self) -> str:
        """What a training that broke off has left, and how it goes on, for a person."""
        images, again = None, f"mend that, and `genserve train --resume {self.path}`"
        with contextlib.suppress(OSError):
            images = checkpoint_images(self.checkpoint_path)
        if images is None:
            return f"no checkpoint is kept yet: {again} begins at the beginning"
        return f"{self.checkpoint_path} is kept, at {images / 1000:g} kimg: {again} goes on from there"

    def save_snapshot(self, kimg: float, weights: dict[str, Any]) -> None:
        """Keep an averaged generator."""
        replace_file(self._snapshot_path(kimg), _dump(weights))

    def load_snapshot(self, kimg: float) -> dict[str, Any]:
        """The averaged generator of a snapshot.

        Raises:
            NotFound: there is none at this kimg.
            Invalid: it is damaged.
        """
        return _load(self._snapshot_path(kimg))

    def snapshots(self) -> list[float]:
        """The kimg of every snapshot, ascending."""
        names = (path.stem for path in (self.path / "snapshots").glob("*.pt"))
        return sorted(float(name) for name in names if SNAPSHOT_NAME.fullmatch(name))

    def find_snapshot(self, kimg: float) -> float:
        """The kimg of the one snapshot that was made at `kimg`, give or take half a kimg (batches do not divide it).

        Raises:
            NotFound: there is none; names those there are.
        """
        there = self.snapshots()
        if not there:
            raise NotFound(f"no snapshot yet: go on with `genserve train --resume {self.path}`", field="run_dir")
        nearest = min(there, key=lambda k: abs(k - kimg))
        if abs(nearest - kimg) > NEAR_KIMG:
            names = ", ".join(f"{k:g}" for k in there)
            raise NotFound(f"no snapshot at {kimg:g} kimg; there are: {names}", field="checkpoint")
        return nearest

    def grid_path(self, kimg: float) -> Path:
        """Where a snapshot's sample grid belongs."""
        return self.path / "samples" / f"{kimg:010.3f}.png"

    def append_stats(self, stats: Stats) -> None:
        """Add a line to stats.jsonl."""
        append_line(self.stats_path, msgspec.json.encode(stats))

    def stats(self) -> list[Stats]:
        """Every whole line of stats.jsonl.

        Raises:
            Invalid: a line is damaged.
        """
        stats = []
        for number, line in enumerate(read_lines(self.stats_path), 1):
            try:
                stats.append(msgspec.json.decode(line, type=Stats))
            except msgspec.DecodeError as error:
                detail = f"{self.stats_path} is damaged in line {number}: {error}"
                raise Invalid(detail, field="run_dir") from error
        return stats

    def scores(self) -> dict[float, Score]:
        """The scores of snapshots, by kimg."""
        return {line.kimg: line.score for line in self.stats() if line.score is not None}

    def forget_stats_after(self, kimg: float) -> None:
        """Drop the lines of what a resumed run will do again."""
        stats = self.stats()
        kept = [msgspec.json.encode(line) + b"\n" for line in stats if line.kimg <= kimg]
        if len(kept) < len(stats):
            replace_file(self.stats_path, b"".join(kept))

    def _snapshot_path(self, kimg: float) -> Path:
        return self.path / "snapshots" / f"{kimg:010.3f}.pt"


def _dump(state: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def _load(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise NotFound(f"{path} does not exist: the run has saved nothing yet", field="run_dir")
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        raise Invalid(f"{path} is damaged: torch cannot read it", field="run_dir") from error
    if not isinstance(loaded, dict):
        raise Invalid(f"{path} is damaged: it holds no weights", field="run_dir")
    return loaded
