"""What a run's folder tells, for commands that only look: light to import, and forgiving to other versions' runs.

Fields that a run lacks are None and fields that this version does not know are passed over. Knows no torch, and changes
nothing.
"""

import fcntl
import itertools
import os
import pickletools
import re
import struct
import zipfile
import zlib
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any, Literal

import msgspec

from models.errors import GenserveError, Invalid, NotFound
from models.export_record import FILE_NAME, ExportRecord, read_export_record
from models.files import read_lines
from trainer.config import Config
from trainer.diagnosis import Verdict, diagnose
from trainer.signals import Score, Stats

Setting = bool | int | float | str | None
SNAPSHOT_NAME = re.compile(r"\d+\.\d{3}")
RunState = Literal["done", "training", "stopped"]
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)  # how msgspec says that a text is damaged
BROKEN = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, IndexError, RuntimeError, ValueError)  # likewise


class ClassNames(msgspec.Struct, frozen=True):
    """Of a conditional run."""

    names: tuple[str, ...] = ()


class RunFile(msgspec.Struct, frozen=True):
    """config.json, as trainer.run_dir.Run writes it."""

    config: dict[str, Any]
    data_hash: str = ""
    licence: str | None = None
    shape: tuple[int, ...] = ()
    classes: ClassNames | None = None
    code_version: str = ""


class RunRecord:
    """A run as it is now.

    Args:
        path: of its folder.

    Raises:
        NotFound: there is no run.
        Invalid: config.json or a line of stats.jsonl is damaged.
        OSError: one of them cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = _read_config(path)
        self.lines = _read_stats(path / "stats.jsonl")

    def setting(self, name: str) -> Setting:
        """A setting of the run; where an older run lacks it, the default of today."""
        value: Setting = self.file.config.get(name, DEFAULTS.get(name))
        return value

    @cached_property
    def ticks(self) -> list[Stats]:
        """The lines with means over steps."""
        return [line for line in self.lines if line.d_loss is not None or line.g_loss is not None]

    @cached_property
    def scores(self) -> dict[float, Score]:
        """By kimg, ascending; only those of the extractor that scored last, since others do not compare."""
        scored = {line.kimg: line.score for line in self.lines if line.score is not None}
        label = list(scored.values())[-1].extractor if scored else ""
        return {kimg: score for kimg, score in sorted(scored.items()) if score.extractor == label}

    @property
    def best(self) -> float | None:
        """The kimg of the lowest FD, the later of equals, as trainer.exporting.choose takes it; None without scores."""
        return min(self.scores, key=lambda kimg: (self.scores[kimg].share, -kimg), default=None)

    @cached_property
    def snapshots(self) -> list[float]:
        """The kimg of every snapshot that is kept, ascending."""
        names = (path.stem for path in (self.path / "snapshots").glob("*.pt"))
        return sorted(float(name) for name in names if SNAPSHOT_NAME.fullmatch(name))

    @cached_property
    def verdicts(self) -> tuple[Verdict, ...]:
        """What is the matter with the run, by the rules of today."""
        return diagnose(self.lines, str(self.setting("loss")))

    @property
    def kimg(self) -> float:
        """Thousands of real images shown so far."""
        return max((line.kimg for line in self.lines), default=0.0)

    @property
    def state(self) -> RunState:
        """Whether all is on disk that a run ends with; if not, whether a process is at it now."""
        if self._is_done():
            return "done"
        return "training" if _is_held(self.path / ".lock") else "stopped"

    @property
    def images_per_second(self) -> float | None:
        """The median over the run, which pauses and neighbours disturb least."""
        return median(speeds) if (speeds := [t.images_per_second for t in self.ticks if t.images_per_second]) else None

    @property
    def seconds(self) -> float | None:
        """Of training, by each line's speed, and of snapshots where the run kept that; None without speeds."""
        steps = itertools.pairwise([0.0, *(tick.kimg for tick in self.ticks)])
        parts = [
            (after - before) * 1000 / tick.images_per_second
            for (before, after), tick in zip(steps, self.ticks, strict=True)
            if tick.images_per_second
        ]
        return sum(parts) + sum(line.snapshot_seconds or 0.0 for line in self.lines) if parts else None

    def _is_done(self) -> bool:
        """A run's last act is a checkpoint, after its last snapshot; a sweep drops both of a training that is done."""
        total = float(self.setting("kimg") or 0)
        if self.kimg < total:
            return False
        if not (self.path / "snapshots").exists():
            return not any(line.fault for line in self.lines)
        images = checkpoint_images(self.path / "checkpoint.pt")
        return images is not None and images >= total * 1000

    @cached_property
    def export(self) -> ExportRecord | None:
        """The record of the run's own export; None without one, or where it cannot be read."""
        try:
            return read_export_record(self.path / "export" / FILE_NAME)
        except GenserveError:
            return None


DEFAULTS: dict[str, Any] = {
    field.name: field.default for field in msgspec.structs.fields(Config) if field.default is not msgspec.NODEFAULT
}
NUMBERS = {name for name, value in DEFAULTS.items() if isinstance(value, int | float) and not isinstance(value, bool)}


def find_runs(folder: Path) -> list[Path]:
    """Every folder below this one, itself too, that holds a run; in order of their names.

    Raises:
        NotFound: there is no such folder.
    """
    if not folder.is_dir():
        raise NotFound(f"{folder} is no folder", field="folder")
    return sorted(path.parent for path in folder.rglob("config.json"))


def checkpoint_images(path: Path) -> int | None:
    """How many images a run had shown at its checkpoint; None where there is none, or a damaged one.

    Found among the names and numbers of torch's file, without torch, and without making anything that it asks for.

    Raises:
        OSError: it cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            (name,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
            told = [value for code, value, _ in pickletools.genops(archive.read(name)) if "PUT" not in code.name]
        images = told[told.index("num_images") + 1]
    except (FileNotFoundError, *BROKEN):
        return None
    return images if isinstance(images, int) else None


def _read_config(path: Path) -> RunFile:
    name = path / "config.json"
    try:
        file = msgspec.json.decode(name.read_bytes(), type=RunFile)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound(f"{path} holds no run (no config.json)", field="run_dir") from error
    except UNREADABLE as error:
        raise Invalid(f"{name}: {error}", field="run_dir") from error
    for setting in sorted(NUMBERS & file.config.keys()):
        try:
            msgspec.convert(file.config[setting], float)
        except (msgspec.ValidationError, OverflowError) as error:
            raise Invalid(f"{name}: {setting}: {error}", field="run_dir") from error
    return file


def _read_stats(path: Path) -> list[Stats]:
    lines = []
    for number, line in enumerate(read_lines(path), 1):
        try:
            lines.append(msgspec.json.decode(line, type=Stats))
        except UNREADABLE as error:
            raise Invalid(f"{path} is damaged in line {number}: {error}", field="run_dir") from error
    return lines


def _is_held(path: Path) -> bool:
    """Whether a process trains the run: it holds this lock for as long as it lives."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
