"""Promotion and rollback: which version is the champion. Knows nothing of measuring; it reads verdicts.

Decide purely, act elsewhere: the gate decides, its verdict is a file, and this only lets through what that file allows.
"""

from collections.abc import Mapping

from models.errors import Invalid, LoadError, Refused
from models.generator import sha256
from models.keys import short
from models.policies import check_policy
from models.records import Event, Verdict, promised_variants
from models.repository import Repository, Version, now, whoami
from models.variants import best_variants, find_variant

MIN_SPEEDUP = 1.1  # a variant that gains less is not worth samples that differ from its parent's


def promote(
    repository: Repository,
    version: Version,
    *,
    why: str | None = None,
    variants: Mapping[str, str | None] | None = None,
) -> Event:
    """Make a version the champion, and fix which of its variants serves each provider, for all replicas.

    The champion itself can be promoted again where that changes its variants; a rollback undoes that too.

    Args:
        repository: the one it lies in.
        version: what to promote.
        why: a person's reason, for the history.
        variants: by a provider's full name, the variant that shall serve it, or None for the version itself; providers
            that are not named get the fastest that passed, where it is at least 1.1 times as fast as the version.

    Returns:
        The event that was recorded.

    Raises:
        Refused: its file was changed, it has no passing verdict over this very file against the present champion under
            the policy of now, or it is the champion already with these variants; or a variant that was named has not
            passed. Where keys are trusted also: the verdict is signed by none of them, or the promotion would not be.
        LoadError: its files or the model's history are damaged.
        Invalid: a variant is for another provider.
        NotFound: no such variant.
    """
    check_signing(repository)
    with repository.writing(version.name):
        champion = repository.aliases(version.name).champion
        chosen = _chosen_variants(repository, version, variants or {})
        if champion == version.number and promised_variants(repository.standing(version.name), champion) == chosen:
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
            variants=chosen,
            verdict_keys=_verdict_keys(repository, version),
        )
        return repository.record(version.name, event)


def rollback(repository: Repository, name: str, *, why: str | None = None) -> Event:
    """Make the champion before the present one champion again.

    A second rollback goes one step further back, not forward again.

    Raises:
        NotFound: no such model, or the version to return to is gone.
        Refused: there is no earlier champion, or it could not serve any more: its file is gone or was changed, or its
            newest verdict is no pass, or not signed by a key that is trusted here.
    """
    repository.require(name)
    check_signing(repository)
    with repository.writing(name):
        champions = champion_stack(repository.standing(name))
        if len(champions) < 2:
            raise Refused(f"{name!r} has no earlier champion to roll back to")
        before, present = champions[-2:]
        version = repository.resolve(f"{name}@{before.version}")
        _check_servable(repository, version)
        event = Event(
            event="rolled back",
            version=before.version,
            when=now(),
            by=whoami(),
            why=why,
            replaced=present.version,
            verdict=len(repository.verdict_paths(version)),
            variants=before.variants,
            verdict_keys=_verdict_keys(repository, version),
        )
        return repository.record(name, event)


def champion_stack(history: list[Event]) -> list[Event]:
    """The promotions that a rollback would return to, oldest first, the present champion's last.

    Raises:
        LoadError: the history rolls back to what was not the champion before.
    """
    stack: list[Event] = []
    for event in history:
        if event.event == "promoted":
            stack.append(event)
        elif event.event == "rolled back":
            if [entry.version for entry in stack[-2:-1]] != [event.version]:
                raise LoadError(f"history.jsonl is damaged: {event.version} was not the champion before")
            stack.pop()
    return stack


def check_signing(repository: Repository) -> None:
    """Raises Refused where a promotion would count for nobody who trusts the same keys."""
    if not repository.trusted:
        return
    if repository.key is None:
        raise Refused(
            "only keys in GENSERVE_TRUSTED_KEYS are trusted here, and nothing signs: name the private key's file in "
            "GENSERVE_SIGNING_KEY"
        )
    if repository.key.public not in repository.trusted:
        raise Refused(
            f"GENSERVE_SIGNING_KEY is {short([repository.key.public])}, which GENSERVE_TRUSTED_KEYS does not name"
        )


def _verdict_keys(repository: Repository, version: Version) -> tuple[str, ...]:
    """Who signed the newest verdict of a version."""
    signed = repository.attested(version)
    return () if signed is None else tuple(sorted(signed.signatures))


def _chosen_variants(repository: Repository, version: Version, named: Mapping[str, str | None]) -> dict[str, str]:
    """What serves each provider: what a person named, else the fastest that passed."""
    chosen = best_variants(version, min_speedup=MIN_SPEEDUP, trusted=repository.trusted)
    for provider, name in named.items():
        chosen.pop(provider, None)
        if name is None:
            continue
        try:
            manifest = find_variant(version, name).passing(repository.trusted)
        except LoadError as error:
            raise Refused(error.detail, field="variant") from error
        if manifest.recipe.provider != provider:
            raise Invalid(f"{name} is for {manifest.recipe.provider}, not for {provider}", field="variant")
        chosen[provider] = name
    return dict(sorted(chosen.items()))


def _check_servable(repository: Repository, version: Version) -> None:
    """Refuse a former champion that a server would not load."""
    digest = _checked_digest(version)
    if repository.passing(version) is None:
        judged = [verdict for verdict in repository.verdicts(version) if verdict.digest == digest]
        found = f"its newest verdict is {judged[-1].decision!r}" if judged else "its verdict is gone"
        if judged and judged[-1].decision == "pass":
            found = repository.distrusted(version) or found
        raise Refused(f"{version} was the champion before, but {found}: promote another version")


def _checked_digest(version: Version) -> str:
    """The sha256 of a version's model.onnx, which must be the published one."""
    published = version.manifest().digest
    try:
        actual = sha256(version.model_path.read_bytes())
    except OSError as error:
        raise LoadError(f"cannot read {version.model_path}: {error.strerror}") from error
    if actual != published:
        raise Refused(f"{version}'s model.onnx has digest {actual[:12]}..., published was {published[:12]}...")
    return actual


def _allowing_verdict(repository: Repository, version: Version, champion: int | None) -> Verdict:
    """The newest verdict over this file, if it allows the promotion over the present champion."""
    digest = _checked_digest(version)
    judged = [verdict for verdict in repository.verdicts(version) if verdict.digest == digest]
    if not judged:
        raise Refused(f"{version} has no verdict: run `genserve gate {version}` first")
    verdict = judged[-1]
    if verdict.decision != "pass":
        raise Refused(f"{version}'s verdict is {verdict.decision!r}: {'; '.join(verdict.reasons)}")
    if why := repository.distrusted(version):
        raise Refused(why)
    if champion != version.number and verdict.champion != champion:
        then = "no champion" if verdict.champion is None else f"champion {verdict.champion}"
        present = "none" if champion is None else str(champion)
        raise Refused(f"{version} was judged against {then}, the champion now is {present}: gate it again")
    if champion != version.number:
        check_policy(repository, version.name, version.manifest().kind, verdict)
    return verdict
