"""Reads the model repository; models.repository says what lies where. Writes nothing, and knows no judging or serving.

Where public keys are trusted, verdicts and promotions count only with a signature by one of them, and whatever is said
here follows from that: which version is the champion, which may be served.
"""

import hashlib
import os
import re
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from models import attestation, files
from models.attestation import Attestation, Subject
from models.errors import Invalid, LoadError, NotFound
from models.history import Line, check_lines, first_fault, read_events, standing
from models.manifest import Manifest
from models.records import Aliases, Event, Reference, Verdict, fold

NAME_PATTERN = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")
ALIASES = ("champion", "candidate")
BASELINE_SUFFIX = ".baseline.npz"  # beside a verdict: what servers hold fresh samples against
BETWEEN_WRITES_SECONDS = 0.05  # a writer changes the history first, and the aliases an instant later

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


class ReadOnlyRepository:
    """A model repository at a folder, as everybody may see it.

    Args:
        root: the folder.
        trusted: public keys; where there are any, verdicts and promotions count only with a signature by one of them.
    """

    def __init__(self, root: str | os.PathLike[str], *, trusted: Collection[str] = ()) -> None:
        self.root = Path(root)
        self.trusted = frozenset(trusted)

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
        """Which versions are champion and candidate; where keys are trusted, by the promotions that they vouch for.

        Raises:
            LoadError: damaged; where keys are trusted also: not what the history means, or that was changed.
        """
        if not self.trusted:
            return self.written_aliases(name)
        for last in (False, True):
            aliases, events = self.written_aliases(name), self.history(name)
            if aliases == fold(events):
                return fold(self.standing(name))
            if not last:
                time.sleep(BETWEEN_WRITES_SECONDS)
        raise LoadError(
            f"{name}/aliases.json is not what {name}/history.jsonl means. Mend: restore both from a good copy; if the "
            f"history is right (genserve history {name}), any writing command brings the aliases up to it"
        )

    def written_aliases(self, name: str) -> Aliases:
        """aliases.json as it stands."""
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
        return [decode_file(path, Verdict) for path in self.verdict_paths(version)]

    def verdict_paths(self, version: Version) -> list[Path]:
        """The files of a version's verdicts, oldest first."""
        return sorted((version.path / "verdicts").glob("[0-9]*.json"), key=lambda path: int(path.stem))

    def baseline(self, version: Version, verdict: Verdict) -> bytes:
        """The NNN.baseline.npz beside a verdict that has one; see models.baseline.

        Raises:
            LoadError: it is gone, or not what the verdict vouches for.
        """
        known = (path for path in reversed(self.verdict_paths(version)) if decode_file(path, Verdict) == verdict)
        path = next(known, version.path / "verdicts" / "none.json").with_suffix(BASELINE_SUFFIX)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise LoadError(f"cannot read {path}: {error.strerror}") from error
        if (found := hashlib.sha256(data).hexdigest()) != verdict.baseline:
            raise LoadError(f"{path}: its sha256 is {found[:12]}..., not what its verdict says")
        return data

    def passing(self, version: Version) -> Verdict | None:
        """The newest verdict over this very model.onnx, if it is a pass."""
        digest = version.manifest().digest
        judged = [v for v in self.verdicts(version) if v.digest == digest and v.version == version.number]
        passed = judged[-1] if judged and judged[-1].decision == "pass" else None
        return None if passed is not None and self.distrusted(version) else passed

    def distrusted(self, version: Version) -> str | None:
        """Why the newest verdict of a version does not count here; None where it does, or all count."""
        if not self.trusted:
            return None
        try:
            self.attested(version)
        except LoadError as error:
            return error.detail
        return None

    def attested(self, version: Version) -> Attestation | None:
        """The signatures of a version's newest verdict, where they hold; None for an unsigned one where that counts.

        Raises:
            LoadError: there is no verdict, the newest one is gone, or a trusted key's signature over these files is
                missing; it names the file and the mend.
        """
        paths = self.verdict_paths(version)
        newest = int(paths[-1].stem) if paths else 0
        if (known := self.last_judged(version)) > newest:
            raise LoadError(
                f"{version}: verdicts/{known:03d}.json is gone, though the history names it. Mend: restore it from a "
                f"good copy, or judge again: genserve gate {version}"
            )
        if not paths:
            raise LoadError(f"{version} has no verdict. Mend: genserve gate {version}")
        return attestation.check(subject_of(version, paths[-1]), self.trusted or None)

    def last_judged(self, version: Version) -> int:
        """The number of the newest verdict that the history names; 0 for none."""
        judged = (e.verdict or 0 for e in self.history(version.name) if e.version == version.number)
        return max(judged, default=0)

    def unheeded(self, name: str) -> str | None:
        """Why the newest promotion of a model does not count here; None where it does.

        Raises:
            LoadError: as `aliases`.
        """
        if not self.trusted:
            return None
        written, heeded = self.written_aliases(name), self.aliases(name)
        if (written.champion, written.variants) == (heeded.champion, heeded.variants):
            return None
        return f"no trusted key signed the promotion of {name}@{written.champion}. Mend: genserve sign {name}"

    def history(self, name: str) -> list[Event]:
        """All events of a model, oldest first, as they stand."""
        return read_events(name, self.lines(name))

    def lines(self, name: str) -> tuple[bytes, ...]:
        """The whole lines of a model's history."""
        return tuple(files.read_lines(self._folder(name) / "history.jsonl"))

    def checked_history(self, name: str) -> tuple[Line, ...]:
        """The lines of a history with what speaks against each, and whether a trusted key (or any) vouches for it."""
        return check_lines(name, self.lines(name), self.trusted or None)

    def standing(self, name: str) -> list[Event]:
        """The events that count here: where keys are trusted, without promotions that none of them vouches for.

        Raises:
            LoadError: damaged; where keys are trusted also: a line is not as it was written.
        """
        if not self.trusted:
            return self.history(name)
        lines = self.checked_history(name)
        if fault := first_fault(name, lines):
            raise LoadError(
                f"{fault}. Mend: restore it from a good copy; or, if `genserve history {name}` tells nothing but the "
                f"truth, vouch for it as it stands: genserve sign {name}"
            )
        return standing(lines)

    def reference(self, name: str) -> Reference | None:
        """What a model is judged against; None where it was published without data."""
        path = self._folder(name) / "reference.json"
        return decode_file(path, Reference) if path.exists() else None

    def _folder(self, name: str) -> Path:
        return self.root / name

    def _numbers(self, name: str) -> list[int]:
        if not NAME_PATTERN.fullmatch(name) or not self._folder(name).is_dir():
            return []
        found = (_version_number(entry.name) for entry in self._folder(name).iterdir() if entry.is_dir())
        return sorted(number for number in found if number is not None)


def subject_of(version: Version, verdict: Path) -> Subject:
    """What a verdict of a version speaks of."""
    return Subject(str(version), version.path, f"verdicts/{verdict.name}")


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


def _version_number(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[1-9][0-9]{0,8}", text) else None


def _listed(numbers: list[int]) -> str:
    shown = ", ".join(str(number) for number in numbers[-8:])
    return f"..., {shown}" if len(numbers) > 8 else shown
