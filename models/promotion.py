"""Promotion and rollback: which version is the champion. Knows nothing of measuring; it reads verdicts.

Decide purely, act elsewhere: the gate decides, its verdict is a file, and this only lets through what that file allows.
"""

from models.errors import NotFound, Refused
from models.generator import sha256
from models.records import Event, Verdict
from models.repository import Repository, Version, now, whoami


def promote(repository: Repository, version: Version, *, why: str | None = None) -> Event:
    """Make a version the champion.

    Args:
        repository: the one it lies in.
        version: what to promote.
        why: a person's reason, for the history.

    Returns:
        The event that was recorded.

    Raises:
        Refused: its file was changed, it has no passing verdict over this very file against the present champion, or
            it is the champion already.
    """
    with repository.writing(version.name):
        champion = repository.aliases(version.name).champion
        if champion == version.number:
            raise Refused(f"{version} is the champion already")
        verdict = _allowing_verdict(repository, version, champion)
        event = Event(
            event="promoted",
            version=version.number,
            when=now(),
            by=whoami(),
            why=why,
            replaced=champion,
            verdict=repository.verdicts(version).index(verdict) + 1,
        )
        repository.record(version.name, event)
        return event


def rollback(repository: Repository, name: str, *, why: str | None = None) -> Event:
    """Make the champion before the present one champion again.

    A second rollback goes one step further back, not forward again.

    Raises:
        NotFound: no such model.
        Refused: there is no earlier champion.
    """
    if not repository.versions(name):
        raise NotFound(f"there is no model {name!r} (models here: {', '.join(repository.names())})", field="model")
    with repository.writing(name):
        champions = champion_stack(repository.history(name))
        if len(champions) < 2:
            raise Refused(f"{name!r} has no earlier champion to roll back to")
        event = Event(
            event="rolled back", version=champions[-2], when=now(), by=whoami(), why=why, replaced=champions[-1]
        )
        repository.record(name, event)
        return event


def champion_stack(history: list[Event]) -> list[int]:
    """The champions that a rollback would return to, oldest first, the present one last."""
    stack: list[int] = []
    for event in history:
        if event.event == "promoted":
            stack.append(event.version)
        elif event.event == "rolled back":
            stack.pop()
    return stack


def _allowing_verdict(repository: Repository, version: Version, champion: int | None) -> Verdict:
    """The newest verdict over this file, if it allows the promotion over the present champion."""
    manifest = version.manifest()
    actual = sha256(version.model_path.read_bytes())
    if actual != manifest.digest:
        raise Refused(f"{version}'s model.onnx has digest {actual[:12]}..., published was {manifest.digest[:12]}...")
    judged = [verdict for verdict in repository.verdicts(version) if verdict.digest == actual]
    if not judged:
        raise Refused(f"{version} has no verdict: run `genserve gate {version}` first")
    verdict = judged[-1]
    if verdict.decision != "pass":
        raise Refused(f"{version}'s verdict is {verdict.decision!r}: {'; '.join(verdict.reasons)}")
    if verdict.champion != champion:
        then = "no champion" if verdict.champion is None else f"champion {verdict.champion}"
        present = "none" if champion is None else str(champion)
        raise Refused(f"{version} was judged against {then}, the champion now is {present}: gate it again")
    return verdict
