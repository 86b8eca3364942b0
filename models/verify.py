"""Checks a whole repository, file by file, as a server would before loading. Knows nothing of judging.

Signatures are checked wherever there are any; where the repository trusts keys, they must be there and be theirs.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from models import attestation, golden
from models.attestation import REFERENCE, Subject
from models.errors import GenserveError
from models.extractor_store import own_folder, own_folders, refused_folder
from models.extractors import open_extractor
from models.generator import sha256
from models.history import first_fault, standing
from models.keys import short
from models.opening import open_variant_unchecked, open_version
from models.records import Event, Verdict, fold, promised_variants, retired
from models.repository import EXTRACTORS, Repository, Version, subject_of
from models.runtime import available_providers, short_name
from models.variants import Variant, variants


class Finding(NamedTuple):
    """One thing that was checked.

    Args:
        subject: what.
        fault: what is wrong with it; None where nothing is.
        note: what else to know of it.
    """

    subject: str
    fault: str | None
    note: str = ""


def verify(repository: Repository, name: str | None = None) -> Iterator[Finding]:
    """Check versions, verdicts, aliases and history of one model, or of all, and then the extractors too.

    Yields:
        One finding for each version, each of its variants, each model's records and each extractor, as they are done.
    """
    for model in [name] if name is not None else repository.names():
        for version in repository.versions(model):
            yield Finding(str(version), version_fault(repository, version), _signed(repository, version))
            for variant in variants(version):
                yield _variant_finding(repository, variant)
        yield Finding(f"{model}: aliases and history", records_fault(repository, model))
    for folder in own_folders(repository.root) if name is None else ():
        yield Finding(f"{EXTRACTORS}/{folder.parent.name}/{folder.name}", extractor_fault(repository, folder))


def version_fault(repository: Repository, version: Version) -> str | None:
    """What is wrong with one version on this machine; None if nothing."""
    try:
        manifest = open_version(version).manifest
        verdicts = repository.verdicts(version)
        for verdict in verdicts:
            if verdict.baseline is not None:
                repository.baseline(version, verdict)
    except GenserveError as error:
        return error.detail
    if (manifest.name, manifest.version) != (version.name, version.number):
        return f"its manifest says {manifest.name}@{manifest.version}"
    if strange := [v for v in verdicts if (v.version, v.digest) != (version.number, manifest.digest)]:
        return f"{len(strange)} of its verdicts judged another file"
    return _baseline_fault(repository, version, verdicts) or _signature_fault(repository, version)


def _baseline_fault(repository: Repository, version: Version, verdicts: Sequence[Verdict]) -> str | None:
    """What is wrong with what servers hold fresh samples against, where a verdict came with it."""
    try:
        for verdict in verdicts:
            if verdict.baseline is not None:
                repository.baseline(version, verdict)
    except GenserveError as error:
        return error.detail
    return None


def _signature_fault(repository: Repository, version: Version) -> str | None:
    """What is wrong with the signatures of a version's verdicts; older ones may be unsigned, the newest decides."""
    paths = repository.verdict_paths(version)
    try:
        for path in paths[:-1]:
            attestation.check(subject_of(version, path), None)
        if paths or repository.last_judged(version):
            repository.attested(version)
    except GenserveError as error:
        return error.detail.removeprefix(f"{version}: ")
    return None


def _signed(repository: Repository, version: Version) -> str:
    """Whether there is a verdict, and who signed it, whatever that is worth."""
    paths = repository.verdict_paths(version)
    if not paths:
        return "no verdict"
    by = signers(subject_of(version, paths[-1]))
    return f"signed by {by}" if by else "unsigned"


def signers(subject: Subject) -> str:
    """Whose signatures lie beside a verdict; "" for nobody's, or what cannot be read."""
    try:
        found = attestation.read_attestation(subject)
    except GenserveError:
        return ""
    return "" if found is None else short(found.signatures)


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


def _variant_finding(repository: Repository, variant: Variant) -> Finding:
    """A variant for other hardware is no fault, but only its digest and signature could be looked at."""
    subject = str(variant)
    try:
        variant.attested(repository.trusted)
        note = f"signed by {by}" if (by := signers(variant.subject)) else "unsigned"
        provider = variant.manifest().recipe.provider
        if provider in available_providers():
            return Finding(subject, variant_fault(variant), note)
        digest, data = variant.manifest().digest, variant.model_path.read_bytes()
        note = f"{note}; digest alone: this ONNX Runtime has no {short_name(provider)}"
        return Finding(subject, None if sha256(data) == digest else "the file's sha256 is not the manifest's", note)
    except GenserveError as error:
        return Finding(subject, error.detail.removeprefix(f"{variant.subject.name}: "))
    except OSError as error:
        return Finding(subject, f"cannot read {error.filename}: {error.strerror}")


def records_fault(repository: Repository, model: str) -> str | None:
    """What is wrong with a model's aliases and history; None if nothing."""
    try:
        lines, events, aliases = (
            repository.checked_history(model),
            repository.history(model),
            repository.written_aliases(model),
        )
        repository.reference(model)
    except GenserveError as error:
        return error.detail
    if fault := first_fault(model, lines):
        return fault
    meant = fold(events)
    if aliases != meant:
        return f"aliases.json says {aliases}, the history means {meant}; the next writing command mends it"
    if fault := _untold(repository, model, events):
        return fault
    for version in repository.versions(model):
        known = {variant.name for variant in variants(version)}
        if gone := sorted(set(promised_variants(events, version.number).values()) - known):
            return f"the promotion of {version} promises variants that are not here: {', '.join(gone)}"
    if repository.trusted and fold(standing(lines)) != meant:
        return (
            f"no trusted key signed the promotion of {model}@{meant.champion}: servers that trust keys only serve "
            f"{fold(standing(lines)).champion or 'none'}. Mend: genserve sign {model}"
        )
    if aliases.champion is not None and (why := _refusal(repository, repository.resolve(model))):
        return f"servers refuse the champion, {model}@{aliases.champion}: {why}"
    return _reference_fault(repository, model, events)


def _refusal(repository: Repository, champion: Version) -> str | None:
    """Why servers refuse a version for what its records say; None where they do not."""
    try:
        passing = repository.passing(champion)
    except GenserveError as error:
        return error.detail
    return None if passing else repository.distrusted(champion) or "its newest verdict is no pass"


def _untold(repository: Repository, model: str, events: Sequence[Event]) -> str | None:
    """Versions and verdicts that the history names and are not there, or the other way round."""
    versions = {version.number: version for version in repository.versions(model)}
    if left := retired(events) & set(versions):
        return f"the history calls {sorted(left)} retired; the next writing command removes them"
    if missing := {event.version for event in events} - set(versions) - retired(events):
        return f"the history names versions that are not here: {sorted(missing)}"
    published = {event.version for event in events if event.event == "published"}
    if untold := set(versions) - published:
        return f"the history does not tell of the publishing of {sorted(untold)}; the next writing command adds it"
    for number, version in versions.items():
        told = {event.verdict for event in events if event.event == "judged" and event.version == number}
        there = {int(path.stem) for path in repository.verdict_paths(version)}
        if gone := sorted(verdict for verdict in told - there if verdict is not None):
            return f"the history names verdicts of {version} that are not here: {gone}"
        if untold := there - told:
            return f"the history does not tell of verdicts {sorted(untold)} of {version}; the next writing command does"
    return None


def _reference_fault(repository: Repository, model: str, events: Sequence[Event]) -> str | None:
    """Whether what the model is judged against is what its newest signed verdict was made under."""
    path = repository.root / model / "reference.json"
    for event in reversed(events):
        if event.event != "judged" or event.verdict is None or event.version in retired(events):
            continue
        version = repository.resolve(f"{model}@{event.version}")
        verdict = Path("verdicts") / f"{event.verdict:03d}.json"
        try:
            found = attestation.read_attestation(subject_of(version, verdict))
        except GenserveError:  # version_fault tells of it
            continue
        if found is None:
            continue
        if found.files.get(REFERENCE) != (sha256(path.read_bytes()) if path.exists() else None):
            return (
                f"reference.json is not the one that {version}'s {verdict} was signed with. Mend: restore it, or, if "
                "it was changed on purpose, judge the next candidate by it"
            )
        break
    return None
