"""The model repository: a folder of published generators. Knows nothing of judging, running or serving them.

    <root>/<name>/aliases.json                     the fold of history.jsonl
    <root>/<name>/history.jsonl                    append-only, written first: the truth
    <root>/<name>/reference.json                   what this name is judged against
    <root>/<name>/<version>/model.onnx, manifest.json, samples.png     never change
    <root>/<name>/<version>/verdicts/NNN.json      append-only
    <root>/extractors/                             feature extractors: see models.extractor_store

One writer at a time for each name (a file lock); readers need none. A writer first mends what a killed one left.
"""

import contextlib
import datetime
import getpass
import os
import re
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from models import files
from models.errors import Invalid, LoadError, NotFound, Refused
from models.manifest import Manifest
from models.records import Aliases, Event, Reference, Verdict, fold

NAME_PATTERN = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")
ZOO = Path(__file__).parent / "zoo"
ALIASES = ("champion", "candidate")
CLOSEST_SUFFIX = ".closest.png"  # beside a verdict: the samples nearest to training images
EXTRACTORS = "extractors"  # the folder of feature extractors, and so no model's name

T = TypeVar("T")


@dataclass(frozen=True, order=True)
class Version:
    """One published version; its files never change."""

    name: str
    number: int
    path: Path

    def __str__(self) -> str:
        return f"{self.name}@{self.number}"

    @property
    def model_path(self) -> Path:
        """The ONNX file."""
        return self.path / "model.onnx"

    @property
    def samples_path(self) -> Path:
        """The sample grid, a PNG; vector models have none."""
        return self.path / "samples.png"

    def manifest(self) -> Manifest:
        """Read manifest.json.

        Raises:
            LoadError: missing or damaged.
        """
        return decode_file(self.path / "manifest.json", Manifest)


class Repository:
    """A model repository at a folder, which need not exist before the first publishing."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)

    # Reading.

    def names(self) -> list[str]:
        """The models that have at least one version, sorted."""
        if not self.root.is_dir():
            return []
        return sorted(e.name for e in self.root.iterdir() if NAME_PATTERN.fullmatch(e.name) and self._numbers(e.name))

    def versions(self, name: str) -> list[Version]:
        """All versions of a model, oldest first; [] for an unknown name."""
        return [Version(name, number, self._folder(name) / str(number)) for number in self._numbers(name)]

    def require(self, name: str) -> list[Version]:
        """All versions of a model that must be there, oldest first.

        Raises:
            NotFound: no such model; the detail lists what there is.
        """
        if versions := self.versions(name):
            return versions
        raise NotFound(f"there is no model {name!r} (models here: {', '.join(self.names()) or 'none'})", field="model")

    def aliases(self, name: str) -> Aliases:
        """Which versions are champion and candidate."""
        path = self._folder(name) / "aliases.json"
        return decode_file(path, Aliases) if path.exists() else Aliases()

    def resolve(self, reference: str) -> Version:
        """The version that "name" (its champion), "name@3", "name@champion" or "name@candidate" means.

        Raises:
            NotFound: no such model, version or alias; the detail lists what there is.
        """
        name, _, which = reference.partition("@")
        which = which or "champion"
        numbers = [version.number for version in self.require(name)]
        number = getattr(self.aliases(name), which) if which in ALIASES else _version_number(which)
        if number is None and which in ALIASES:
            raise NotFound(f"{name!r} has no {which} (versions: {_listed(numbers)})", field="model")
        if number not in numbers:
            raise NotFound(f"{name!r} has no version {which!r} (versions: {_listed(numbers)})", field="model")
        return Version(name, number, self._folder(name) / str(number))

    def verdicts(self, version: Version) -> list[Verdict]:
        """All verdicts of a version, oldest first."""
        return [decode_file(path, Verdict) for path in self._verdict_paths(version)]

    def passing(self, version: Version) -> Verdict | None:
        """The newest verdict over this very model.onnx, if it is a pass."""
        digest = version.manifest().digest
        judged = [v for v in self.verdicts(version) if v.digest == digest and v.version == version.number]
        return judged[-1] if judged and judged[-1].decision == "pass" else None

    def history(self, name: str) -> list[Event]:
        """All events of a model, oldest first."""
        lines = files.read_lines(self._folder(name) / "history.jsonl")
        try:
            return [msgspec.json.decode(line, type=Event) for line in lines]
        except msgspec.DecodeError as error:
            raise LoadError(f"{name}/history.jsonl is damaged: {error}") from error

    def reference(self, name: str) -> Reference | None:
        """What a model is judged against; None where it was published without data."""
        path = self._folder(name) / "reference.json"
        return decode_file(path, Reference) if path.exists() else None

    # Writing. Each is one atomic step for every reader.

    def publish(self, name: str, contents: Mapping[str, bytes], *, manifest: Manifest, why: str | None) -> Version:
        """Add a version and make it the candidate.

        Args:
            name: lower-case letters, digits, ".", "_" and "-", at most 64.
            contents: the version's files by name, without manifest.json.
            manifest: its name and version are set here.
            why: for the history.

        Raises:
            Invalid: the name is not one.
        """
        check_name(name)
        with self.writing(name):
            number = max(self._numbers(name), default=0) + 1
            staging = self._folder(name) / f".staging-{number}-{os.getpid()}"
            staging.mkdir()
            (staging / "verdicts").mkdir()
            numbered = msgspec.structs.replace(manifest, name=name, version=number)
            for filename, data in {**contents, "manifest.json": files.pretty_json(numbered)}.items():
                files.write_file(staging / filename, data)
            version = Version(name, number, self._folder(name) / str(number))
            files.publish_folder(staging, version.path)
            self._record(name, Event(event="published", version=number, when=now(), by=whoami(), why=why))
        return version

    def add_verdict(self, version: Version, verdict: Verdict) -> Path:
        """Append a verdict to a version and to the history; returns its file."""
        with self.writing(version.name):
            number = len(self._verdict_paths(version)) + 1
            path = version.path / "verdicts" / f"{number:03d}.json"
            path.parent.mkdir(exist_ok=True)
            files.replace_file(path, files.pretty_json(verdict))
            self._record(version.name, self._judged(version, number, verdict))
        return path

    def record(self, name: str, event: Event) -> None:
        """Append an event, then bring the aliases up to date. Call it inside `writing`."""
        self._record(name, event)

    def set_reference(self, name: str, reference: Reference) -> None:
        """Say what a model is judged against; what is there already stays, since the same content is the same data.

        Raises:
            Refused: it is judged against something else already; verdicts would no longer compare.
        """
        check_name(name)
        with self.writing(name):
            present = self.reference(name)
            if present is not None and msgspec.structs.replace(present, resolution=reference.resolution) == reference:
                return
            if present is not None and self._numbers(name):
                raise Refused(
                    f"{name!r} is judged against {present.data} with {present.extractor}; publish under another name "
                    f"to judge against {reference.data} with {reference.extractor}",
                    field="data",
                )
            files.replace_file(self._folder(name) / "reference.json", files.pretty_json(reference))

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[None]:
        """Hold the lock of a model, after mending what a killed writer left."""
        with files.lock(self._folder(check_name(name))):
            self._mend(name)
            yield

    def _mend(self, name: str) -> None:
        """Finish what was cut off: leftovers, versions and verdicts without their event, aliases behind the history."""
        files.clear_leftovers(self._folder(name))
        events = self.history(name)
        published = {event.version for event in events if event.event == "published"}
        judged = {(event.version, event.verdict) for event in events if event.event == "judged"}
        for version in self.versions(name):
            if version.number not in published:
                why = "recovered: the publisher was cut off"
                self._record(name, Event(event="published", version=version.number, when=now(), by=whoami(), why=why))
            for number, path in enumerate(self._verdict_paths(version), start=1):
                if (version.number, number) not in judged:
                    self._record(name, self._judged(version, number, decode_file(path, Verdict)))
        if self.aliases(name) != fold(self.history(name)):
            self._fold_aliases(name)

    def _judged(self, version: Version, number: int, verdict: Verdict) -> Event:
        return Event(
            event="judged", version=version.number, when=now(), by=whoami(), why=verdict.decision, verdict=number
        )

    def _record(self, name: str, event: Event) -> None:
        files.append_line(self._folder(name) / "history.jsonl", msgspec.json.encode(event))
        self._fold_aliases(name)

    def _fold_aliases(self, name: str) -> None:
        files.replace_file(self._folder(name) / "aliases.json", files.pretty_json(fold(self.history(name))))

    def _folder(self, name: str) -> Path:
        return self.root / name

    def _numbers(self, name: str) -> list[int]:
        if not NAME_PATTERN.fullmatch(name) or not self._folder(name).is_dir():
            return []
        found = (_version_number(entry.name) for entry in self._folder(name).iterdir() if entry.is_dir())
        return sorted(number for number in found if number is not None)

    def _verdict_paths(self, version: Version) -> list[Path]:
        return sorted((version.path / "verdicts").glob("[0-9]*.json"), key=lambda path: int(path.stem))


def check_name(name: str) -> str:
    """The name itself.

    Raises:
        Invalid: it is not 1 to 64 of a-z, 0-9, ".", "_", "-", beginning and ending with a letter or digit, or it is
            the name of the folder of extractors.
    """
    if not NAME_PATTERN.fullmatch(name):
        raise Invalid(
            f"{name!r} is not a model name: 1 to 64 of a-z, 0-9, '.', '_' and '-', a letter or digit at both ends",
            field="name",
        )
    if name == EXTRACTORS:
        raise Invalid(f"{name!r} is where the repository keeps feature extractors", field="name")
    return name


def now() -> str:
    """ISO 8601, UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def whoami() -> str:
    """user@host, for the history."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's numeric user has no name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def _version_number(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[1-9][0-9]{0,8}", text) else None


def _listed(numbers: list[int]) -> str:
    shown = ", ".join(str(number) for number in numbers[-8:])
    return f"..., {shown}" if len(numbers) > 8 else shown


def decode_file(path: Path, kind: type[T]) -> T:
    """A JSON file as a record.

    Raises:
        LoadError: missing or damaged.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except OSError as error:
        raise LoadError(f"cannot read {path}: {error.strerror}") from error
    except (msgspec.DecodeError, Invalid) as error:
        raise LoadError(f"{path} is damaged: {error}") from error
