"""Where extractors lie, and which one a name or a digest means. Opens no networks.

    models/feature_nets/<name>/                 those that ship
    <repository>/extractors/<name>/<digest>/    one's own; the folder is named by the first 12 digits, and never changes

A name may have several: each is meant by name@digest, and a model's reference finds the very one that it was published
against by its whole digest, wherever it lies. One that failed the ladder is kept aside, in <digest>.refused/, where
only its path finds it.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from models.errors import Invalid, LoadError, NotFound, Refused
from models.extractor_manifest import ExtractorManifest, read_extractor_manifest
from models.files import pretty_json, replace_file
from models.repository import EXTRACTORS, NAME_PATTERN

SHIPPED = Path(__file__).parent / "feature_nets"
BUILT_IN = ("random-conv", "random-fourier")  # made anew for each data set: models.random_features
DIGITS = 12  # of the digest, that name a folder
REFUSED = ".refused"  # ends the name of a folder


class Kept(NamedTuple):
    """An extractor that is kept somewhere."""

    folder: Path
    manifest: ExtractorManifest


def folders(repository: Path | None, *, refused: bool = False) -> Iterator[Path]:
    """The folders of extractors: those that ship, then the repository's own, each by name; refused ones if asked."""
    yield from (path.parent for path in sorted(SHIPPED.glob("*/manifest.json")))
    own = own_folders(repository) if repository is not None else []
    yield from (folder for folder in own if refused or folder.suffix != REFUSED)


def own_folders(repository: Path) -> list[Path]:
    """The folders of a repository's own extractors, refused ones among them."""
    return sorted(path for path in (repository / EXTRACTORS).glob("[!.]*/[!.]*") if path.is_dir())


def kept(repository: Path | None) -> list[Kept]:
    """All extractors whose manifest can be read, one for each digest."""
    found: dict[str, Kept] = {}
    for folder in folders(repository):
        try:
            manifest = read_extractor_manifest(folder)
        except LoadError:
            continue  # told by whoever names it, and by `genserve extractor list`
        found.setdefault(manifest.digest, Kept(folder, manifest))
    return list(found.values())


def find(wanted: str, *, repository: Path | None = None, digest: str | None = None) -> Path:
    """The folder of the extractor that is meant.

    Args:
        wanted: a name, name@digest with the first digits of it, or a folder (or the model.onnx in it).
        repository: whose own extractors count too.
        digest: whole, of the very one that is needed; it is taken before any name, and where none has it, `wanted` is.

    Raises:
        NotFound: there is none; the detail lists those that are there.
        Invalid: a name alone, of which there are several.
    """
    everything = kept(repository)
    if digest is not None:
        for folder, manifest in everything:
            if manifest.digest == digest:
                return folder
    named = _named(wanted, everything)
    if len(named) > 1:
        labels = ", ".join(entry.manifest.label for entry in named)
        raise Invalid(f"{wanted!r} are several: say which of {labels}", field="extractor")
    if named:
        return named[0].folder
    path = SHIPPED / wanted if (SHIPPED / wanted / "manifest.json").is_file() else Path(wanted)
    path = path.parent if path.name == "model.onnx" else path
    if not (path / "manifest.json").is_file():
        known = ", ".join(dict.fromkeys([*(entry.manifest.name for entry in everything), *BUILT_IN]))
        raise NotFound(f"{wanted!r} is no extractor's folder and none of {known}", field="extractor")
    return path


def check_extractor_name(name: str) -> None:
    """Raises Invalid for a name that a repository cannot keep."""
    if not NAME_PATTERN.fullmatch(name):
        raise Invalid(f"{name!r}: a-z, 0-9, '.', '_' and '-', a letter or digit at both ends", field="name")


def own_folder(repository: Path, manifest: ExtractorManifest) -> Path:
    """Where a repository keeps an extractor."""
    check_extractor_name(manifest.name)
    return repository / EXTRACTORS / manifest.name / manifest.digest[:DIGITS]


def refused_folder(folder: Path) -> Path:
    """Where an extractor is kept aside that failed the ladder."""
    return folder.with_name(folder.name.removesuffix(REFUSED) + REFUSED)


def set_manifest(folder: Path, manifest: ExtractorManifest) -> Path:
    """Writes another outcome of the ladder into an extractor's manifest, and brings it back if it was aside.

    Returns:
        Its folder then.

    Raises:
        Refused: there is another one where it belongs.
    """
    replace_file(folder / "manifest.json", pretty_json(manifest))
    if folder.suffix != REFUSED or manifest.refused:
        return folder
    back = folder.with_name(folder.name.removesuffix(REFUSED))
    if back.exists():
        raise Refused(f"{back} is there already: remove one of the two", field="extractor")
    return folder.rename(back)


def adopt(folder: Path, repository: Path) -> str:
    """Keep a copy of an extractor in a repository, unless it ships or is there already; returns its name@digest.

    Raises:
        LoadError: its manifest is damaged.
        Invalid: its name is none that a repository can keep.
    """
    manifest = read_extractor_manifest(folder)
    if all(entry.manifest.digest != manifest.digest for entry in kept(repository)):
        target = own_folder(repository, manifest)
        staging = target.with_name(f".{target.name}.tmp")
        shutil.rmtree(staging, ignore_errors=True)
        shutil.copytree(folder, staging)
        staging.rename(target)
    return f"{manifest.name}@{manifest.digest[:DIGITS]}"


def _named(wanted: str, everything: list[Kept]) -> list[Kept]:
    name, _, digits = wanted.partition("@")
    return [entry for entry in everything if entry.manifest.name == name and entry.manifest.digest.startswith(digits)]
