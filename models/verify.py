"""Checks a whole repository, file by file, as a server would before loading. Knows nothing of judging."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from models import golden
from models.errors import GenserveError
from models.extractor_store import own_folder, own_folders, refused_folder
from models.extractors import open_extractor
from models.generator import sha256
from models.opening import open_variant_unchecked, open_version
from models.records import fold, promised_variants
from models.repository import EXTRACTORS, Repository, Version
from models.runtime import available_providers, short_name
from models.variants import Variant, variants


class Finding(NamedTuple):
    """One thing that was checked: what, and what is wrong with it (None: nothing)."""

    subject: str
    fault: str | None


def verify(repository: Repository, name: str | None = None) -> Iterator[Finding]:
    """Check versions, verdicts, aliases and history of one model, or of all, and then the extractors too.

    Yields:
        One finding for each version, each of its variants, each model's records and each extractor, as they are done.
    """
    for model in [name] if name is not None else repository.names():
        for version in repository.versions(model):
            yield Finding(str(version), version_fault(repository, version))
            for variant in variants(version):
                yield Finding(*_variant_finding(variant))
        yield Finding(f"{model}: aliases and history", records_fault(repository, model))
    for folder in own_folders(repository.root) if name is None else ():
        yield Finding(f"{EXTRACTORS}/{folder.parent.name}/{folder.name}", extractor_fault(repository, folder))


def version_fault(repository: Repository, version: Version) -> str | None:
    """What is wrong with one version on this machine; None if nothing."""
    try:
        manifest = open_version(version).manifest
        verdicts = repository.verdicts(version)
    except GenserveError as error:
        return error.detail
    if (manifest.name, manifest.version) != (version.name, version.number):
        return f"its manifest says {manifest.name}@{manifest.version}"
    if strange := [v for v in verdicts if (v.version, v.digest) != (version.number, manifest.digest)]:
        return f"{len(strange)} of its verdicts judged another file"
    return None


def variant_fault(variant: Variant) -> str | None:
    """What is wrong with one variant on this machine; None if nothing.

    A failing verdict is none: it is kept for whoever asks why. Raises what `open_variant_unchecked` does where it
    cannot be tried here.
    """
    manifest, verdict, parent = variant.manifest(), variant.verdict(), variant.version.manifest()
    if manifest.name != variant.name:
        return f"its manifest says {manifest.name}"
    if (verdict.digest, verdict.parent, manifest.recipe.parent) != (manifest.digest, parent.digest, parent.digest):
        return "its manifest and verdict are not of this file and this version"
    generator = open_variant_unchecked(variant, manifest)
    if generator.signature != parent.signature:
        return "its signature is not the version's"
    golden.check(generator, manifest.golden)
    return None


def extractor_fault(repository: Repository, folder: Path) -> str | None:
    """What is wrong with an extractor on this machine; None if nothing. To have failed the ladder is no fault."""
    try:
        manifest = open_extractor(folder, threads=1, refused=True).manifest
    except GenserveError as error:
        return error.detail
    belongs = own_folder(repository.root, manifest)
    return None if folder in (belongs, refused_folder(belongs)) else f"it belongs into {belongs}"


def _variant_finding(variant: Variant) -> tuple[str, str | None]:
    """Subject and fault; a variant for other hardware is none, but only its digest could be looked at."""
    try:
        provider = variant.manifest().recipe.provider
        if provider not in available_providers():
            digest, data = variant.manifest().digest, variant.model_path.read_bytes()
            return f"{variant} (digest alone: this ONNX Runtime has no {short_name(provider)})", (
                None if sha256(data) == digest else "the file's sha256 is not the manifest's"
            )
        return str(variant), variant_fault(variant)
    except GenserveError as error:
        return str(variant), error.detail
    except OSError as error:
        return str(variant), f"cannot read {error.filename}: {error.strerror}"


def records_fault(repository: Repository, model: str) -> str | None:
    """What is wrong with a model's aliases and history; None if nothing."""
    try:
        events, aliases = repository.history(model), repository.aliases(model)
        repository.reference(model)
    except GenserveError as error:
        return error.detail
    meant = fold(events)
    if aliases != meant:
        return f"aliases.json says {aliases}, the history means {meant}; the next writing command mends it"
    numbers = {version.number for version in repository.versions(model)}
    if missing := {event.version for event in events} - numbers:
        return f"the history names versions that are not here: {sorted(missing)}"
    for version in repository.versions(model):
        known = {variant.name for variant in variants(version)}
        if gone := sorted(set(promised_variants(events, version.number).values()) - known):
            return f"the promotion of {version} promises variants that are not here: {', '.join(gone)}"
    if aliases.champion is not None and repository.passing(repository.resolve(model)) is None:
        return f"servers refuse the champion, {model}@{aliases.champion}: its newest verdict is no pass"
    return None
