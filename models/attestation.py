"""Signatures of verdicts: which files they cover, and whether they hold. Knows no history and no judging.

    <version>/verdicts/NNN.sig              beside NNN.json
    <version>/variants/<variant>/verdict.sig

What is signed is a statement: whose verdict it is, and the sha256 of each file that it rests on, its own included. So a
verdict cannot be moved to another version, renumbered, or kept beside other files than those that it was made for.
"""

import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from models import files
from models.errors import LoadError
from models.keys import SigningKey, short, verifies

CONTEXT = b"genserve attestation 1\n"  # what a signature is for, and the format of what is signed
COVERED = ("model.onnx", "manifest.json", "samples.png")  # as far as they are there
CLOSEST_SUFFIX = ".closest.png"  # beside a version's verdict: the samples nearest to training images
REFERENCE = "../reference.json"  # of a version: what it was judged against; only judging reads it, so only verify asks


class Attestation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A signature file.

    Args:
        files: sha256 of each file that the verdict rests on, by its name from the folder of the version or variant.
        signatures: by public key: several people may vouch for one verdict.
        format: of this file.
    """

    files: dict[str, str]
    signatures: dict[str, str]
    format: int = 1


class Subject(NamedTuple):
    """Whose verdict it is.

    Args:
        name: of the version or variant: "shoes@4", "shoes@4/variants/int8".
        folder: where it lies.
        verdict: the verdict's file, from there: "verdicts/001.json", "verdict.json".
    """

    name: str
    folder: Path
    verdict: str

    @property
    def path(self) -> Path:
        """The signature file."""
        return (self.folder / self.verdict).with_suffix(".sig")

    @property
    def closest(self) -> str:
        """The picture beside the verdict, which not every verdict has."""
        return str(Path(self.verdict).with_suffix(CLOSEST_SUFFIX))

    @property
    def file(self) -> str:
        """The signature file's name."""
        return str(Path(self.verdict).with_suffix(".sig"))


class _Digest(msgspec.Struct):
    """Of a manifest, the only thing that is asked here."""

    digest: str


def attest(
    subject: Subject, key: SigningKey, contents: Mapping[str, bytes] | None = None, present: Attestation | None = None
) -> bytes:
    """A signature file's content.

    Args:
        subject: what is signed for.
        key: that signs.
        contents: of files that are not written yet, by name.
        present: a signature file over the same files, whose other signatures are kept.

    Raises:
        LoadError: a file cannot be read.
    """
    given = contents or {}
    hashes = {name: _sha256(data) for name, data in given.items()}
    for name in _covered(subject):
        if name not in hashes:
            hashes[name] = _sha256(_read(subject.folder / name))
    signature = key.sign(_message(subject, hashes))
    others = present.signatures if present is not None and present.files == hashes else {}
    signed = Attestation(files=dict(sorted(hashes.items())), signatures={**others, key.public: signature})
    return files.pretty_json(signed)


def read_attestation(subject: Subject) -> Attestation | None:
    """The signature file of a verdict; None where there is none.

    Raises:
        LoadError: it is not as it was written.
    """
    try:
        data = subject.path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LoadError(f"{subject.name}: cannot read {subject.file}: {error.strerror}") from error
    try:
        found = msgspec.json.decode(data, type=Attestation)
    except msgspec.DecodeError as error:
        raise LoadError(f"{subject.name}: {subject.file} is damaged: {error}. {_mend(subject)}") from error
    known = {*COVERED, REFERENCE, subject.verdict, subject.closest}
    if files.pretty_json(found) != data or not set(found.files) <= known:
        raise LoadError(f"{subject.name}: {subject.file} is damaged: it is not as it was written. {_mend(subject)}")
    return found


def check(subject: Subject, trusted: Collection[str] | None) -> Attestation | None:
    """A verdict's signatures, where they hold over the files as they are.

    model.onnx is not read: its manifest speaks for it, and everybody who opens the file holds it against that.

    Args:
        subject: whose verdict.
        trusted: public keys of which one must have signed; None where none need have.

    Returns:
        The signature file; None for an unsigned verdict where that is allowed.

    Raises:
        LoadError: unsigned, signed by others alone, or not over these files; it says which, and how to mend it.
    """
    found = read_attestation(subject)
    if found is None:
        if trusted is None:
            return None
        raise LoadError(f"{subject.name}: {subject.verdict} is not signed. {_mend(subject)}")
    message = _message(subject, found.files)
    if broken := [key for key, signature in found.signatures.items() if not verifies(key, signature, message)]:
        by = short(broken)
        raise LoadError(f"{subject.name}: the signature of {subject.verdict} by {by} does not hold. {_mend(subject)}")
    if trusted is not None and not set(trusted) & set(found.signatures):
        by = short(found.signatures) or "nobody"
        raise LoadError(
            f"{subject.name}: {subject.verdict} is signed by {by}, which is not trusted here. Mend: name that key in "
            f"GENSERVE_TRUSTED_KEYS, or have a trusted one sign: genserve sign {_version(subject)}"
        )
    if changed := _changed(subject, found):
        raise LoadError(
            f"{subject.name}: {changed} is not as it was signed in {subject.file}. Mend: restore the files of "
            f"{subject.name} from a good copy, or publish and judge it again"
        )
    return found


def manifest_digest(folder: Path) -> str:
    """sha256 of model.onnx as the manifest beside it has it.

    Raises:
        LoadError: it is missing or damaged.
    """
    path = folder / "manifest.json"
    try:
        return msgspec.json.decode(_read(path), type=_Digest).digest
    except msgspec.DecodeError as error:
        raise LoadError(f"{path} is damaged: {error}") from error


def _changed(subject: Subject, found: Attestation) -> str | None:
    """The first file that is not the one that was signed for; None where all are, whatever the reference is now."""
    for name in dict.fromkeys([*_covered(subject), *found.files]):
        if name == REFERENCE:
            continue
        if name not in found.files:
            return name
        path = subject.folder / name
        if not path.exists():
            return name
        digest = manifest_digest(subject.folder) if name == "model.onnx" else _sha256(_read(path))
        if digest != found.files[name]:
            return name
    return None


def _covered(subject: Subject) -> list[str]:
    names = (*COVERED, REFERENCE, subject.closest) if subject.verdict.startswith("verdicts/") else COVERED
    return [*(name for name in names if (subject.folder / name).exists()), subject.verdict]


def _message(subject: Subject, hashes: Mapping[str, str]) -> bytes:
    statement = {"subject": subject.name, "verdict": subject.verdict, "files": dict(hashes)}
    return CONTEXT + msgspec.json.encode(statement, order="sorted")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise LoadError(f"cannot read {path}: {error.strerror}") from error


def _mend(subject: Subject) -> str:
    return f"Mend: genserve sign {_version(subject)}, with a key that is trusted here"


def _version(subject: Subject) -> str:
    return subject.name.partition("/")[0]


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
