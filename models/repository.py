"""The model repository: a folder of published generators. Knows nothing of judging, running or serving them.

    <root>/<name>/aliases.json                     the fold of history.jsonl
    <root>/<name>/history.jsonl                    append-only, written first: the truth
    <root>/<name>/reference.json                   what this name is judged against
    <root>/<name>/<version>/model.onnx, manifest.json, samples.png     never change
    <root>/<name>/<version>/verdicts/NNN.json      append-only
    <root>/<name>/<version>/verdicts/NNN.sig       its signatures, where somebody signed it
    <root>/<name>/<version>/verdicts/NNN.closest.png   a picture that came with it
    <root>/<name>/<version>/verdicts/NNN.baseline.npz  what servers hold fresh samples against: see models.baseline
    <root>/extractors/                             feature extractors: see models.extractor_store

One writer at a time for each name (a file lock); readers need none. A writer first mends what a killed one left.
"""

import contextlib
import datetime
import getpass
import os
import socket
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import msgspec

from models import attestation, files
from models.attestation import CLOSEST_SUFFIX
from models.errors import Invalid, Refused
from models.history import seal
from models.keys import SigningKey
from models.manifest import Manifest
from models.records import Event, Reference, Verdict, fold, retired
from models.repository_reading import (
    BASELINE_SUFFIX,
    NAME_PATTERN,
    ReadOnlyRepository,
    Version,
    decode_file,
    subject_of,
)

__all__ = [
    "BASELINE_SUFFIX",
    "CLOSEST_SUFFIX",
    "EXTRACTORS",
    "NAME_PATTERN",
    "ZOO",
    "Repository",
    "Version",
    "check_name",
    "decode_file",
    "now",
    "subject_of",
    "whoami",
]

ZOO = Path(__file__).parent / "zoo"
EXTRACTORS = "extractors"  # the folder of feature extractors, and so no model's name


class Repository(ReadOnlyRepository):
    """A model repository at a folder, which need not exist before the first publishing.

    Args:
        root: the folder.
        key: signs what is written; None leaves it unsigned.
        trusted: see ReadOnlyRepository.
    """

    def __init__(
        self, root: str | os.PathLike[str], *, key: SigningKey | None = None, trusted: Collection[str] = ()
    ) -> None:
        super().__init__(root, trusted=trusted)
        self.key = key

    # Each of these is one atomic step for every reader.

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
            number = max([*self._numbers(name), *(event.version for event in self.history(name))], default=0) + 1
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

    def add_verdict(
        self, version: Version, verdict: Verdict, *, closest: bytes | None = None, baseline: bytes | None = None
    ) -> Path:
        """Append a verdict to a version and to the history.

        Args:
            version: that was judged.
            verdict: on it.
            closest: a PNG of its samples nearest to training images, to lie beside it.
            baseline: what servers hold fresh samples against, whose sha256 the verdict holds; to lie beside it too.

        Returns:
            The verdict's file.
        """
        with self.writing(version.name):
            number = len(self.verdict_paths(version)) + 1
            path = version.path / "verdicts" / f"{number:03d}.json"
            path.parent.mkdir(exist_ok=True)
            subject, data = subject_of(version, path), files.pretty_json(verdict)
            # The verdict comes last, so that nobody sees one whose signature or picture is still to come.
            _put(version.path / subject.closest, closest)
            _put(path.with_suffix(BASELINE_SUFFIX), baseline)
            signed = None if self.key is None else attestation.attest(subject, self.key, {subject.verdict: data})
            _put(subject.path, signed)
            files.replace_file(path, data)
            self._record(version.name, self._judged(version, number, verdict))
        return path

    def record(self, name: str, event: Event) -> Event:
        """Append an event, sealed and signed, then bring the aliases up to date. Call it inside `writing`."""
        return self._record(name, event)

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

    def clear_retired(self, name: str) -> None:
        """Remove the files of versions that the history calls retired. Call it inside `writing`."""
        gone = retired(self.history(name))
        for version in self.versions(name):
            if version.number in gone:
                files.remove_folder(version.path)

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[None]:
        """Hold the lock of a model, after mending what a killed writer left."""
        with files.lock(self._folder(check_name(name))):
            self._mend(name)
            yield

    def _mend(self, name: str) -> None:
        """Finish what was cut off: leftovers, files of retired versions, events, aliases behind the history."""
        files.clear_leftovers(self._folder(name))
        self.clear_retired(name)
        events = self.history(name)
        published = {event.version for event in events if event.event == "published"}
        judged = {(event.version, event.verdict) for event in events if event.event == "judged"}
        for version in self.versions(name):
            if version.number not in published:
                why = "recovered: the publisher was cut off"
                self._record(name, Event(event="published", version=version.number, when=now(), by=whoami(), why=why))
            for number, path in enumerate(self.verdict_paths(version), start=1):
                if (version.number, number) not in judged:
                    self._record(name, self._judged(version, number, decode_file(path, Verdict)))
        if self.written_aliases(name) != fold(self.history(name)):
            self._fold_aliases(name)

    def _judged(self, version: Version, number: int, verdict: Verdict) -> Event:
        return Event(
            event="judged", version=version.number, when=now(), by=whoami(), why=verdict.decision, verdict=number
        )

    def _record(self, name: str, event: Event) -> Event:
        before = b"".join(line + b"\n" for line in self.lines(name))
        sealed = seal(name, before, event, self.key)
        files.append_line(self._folder(name) / "history.jsonl", msgspec.json.encode(sealed))
        self._fold_aliases(name)
        return sealed

    def _fold_aliases(self, name: str) -> None:
        files.replace_file(self._folder(name) / "aliases.json", files.pretty_json(fold(self.history(name))))


def _put(path: Path, data: bytes | None) -> None:
    """A file that belongs to a verdict; what a killed writer left in its place goes."""
    if data is None:
        path.unlink(missing_ok=True)
    else:
        files.replace_file(path, data)


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
