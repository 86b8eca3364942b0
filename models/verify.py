"""Checks a whole repository, file by file, as a server would before loading. Knows nothing of judging."""

from collections.abc import Iterator
from typing import NamedTuple

from models.errors import GenserveError
from models.opening import open_version
from models.records import fold
from models.repository import Repository, Version


class Finding(NamedTuple):
    """One thing that was checked: what, and what is wrong with it (None: nothing)."""

    subject: str
    fault: str | None


def verify(repository: Repository, name: str | None = None) -> Iterator[Finding]:
    """Check versions, verdicts, aliases and history of one model or of all.

    Yields:
        One finding for each version and one for each model's records, as they are done.
    """
    for model in [name] if name is not None else repository.names():
        for version in repository.versions(model):
            yield Finding(str(version), version_fault(repository, version))
        yield Finding(f"{model}: aliases and history", records_fault(repository, model))


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
    if aliases.champion is not None and repository.passing(repository.resolve(model)) is None:
        return f"servers refuse the champion, {model}@{aliases.champion}: its newest verdict is no pass"
    return None
