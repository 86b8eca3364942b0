"""What /models says of the repository and of what is loaded. Reads files, so it is called on threads; knows no HTTP."""

import re
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

import msgspec

from models.attestation import Attestation
from models.errors import LoadError, NotFound
from models.labels import Form, is_distance
from models.manifest import Manifest
from models.records import Event, Verdict
from models.repository import Repository, Version
from models.variants import Variant, variants
from serving.loading import LiveModel
from serving.ports import Models

UNTOLD = {"by", "previous", "signature"}
DATA_SET_NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")  # anything else that names data is a path


def describe_all(repository: Repository, live: Models) -> dict[str, Any]:
    """GET /models."""
    models = []
    for name in repository.names():
        try:
            models.append(describe_name(repository, live, name, brief=True))
        except LoadError as error:  # one damaged name must not hide the others
            champion = live.champion(name)
            models.append({"name": name, "error": error.detail, "serving": _loaded(champion) if champion else None})
    return {"models": models}


def describe_name(repository: Repository, live: Models, name: str, *, brief: bool = False) -> dict[str, Any]:
    """GET /models/{name}; `brief` leaves the history out.

    Raises:
        NotFound: no such model.
    """
    if name not in repository.names():
        raise NotFound(f"there is no model {name[:64]!r}", field="model")
    aliases = repository.aliases(name)
    champion = live.champion(name)
    document: dict[str, Any] = {
        "name": name,
        "champion": aliases.champion,
        "candidate": aliases.candidate,
        "versions": [version.number for version in repository.versions(name)],
        "serving": None if champion is None else _loaded(champion),
    }
    if not brief:
        document["history"] = [_told(event) for event in repository.history(name)]
    return document


def describe_version(repository: Repository, live: Models, version: Version) -> dict[str, Any]:
    """GET /models/{name}/versions/{v}: manifest and verdicts, and numerics and provider where it is loaded."""
    loaded = next((model for model in live.loaded if model.version == version), None)
    verdicts = repository.verdicts(version)
    return {
        "name": version.name,
        "version": version.number,
        "passing": repository.passing(version) is not None,
        "signed_by": _signers(partial(repository.attested, version)),
        "serving": None if loaded is None else _loaded(loaded),
        "manifest": _public(version.manifest()),
        "verdicts": msgspec.to_builtins(verdicts),
        "variants": [_variant(variant, repository.trusted) for variant in variants(version)],
    }


def verdict_fd(verdict: Verdict | None) -> tuple[str, float] | None:
    """(extractor, value) of a verdict's Fréchet distance; None where it has none."""
    if verdict is None:
        return None
    forms: tuple[Form, ...] = ("FD", "FD_inf")
    found = (number.value for form in forms for name, number in verdict.numbers.items() if is_distance(name, form))
    value = next(found, None)
    return None if value is None else (verdict.extractor, value)


def _public(manifest: Manifest) -> dict[str, Any]:
    """A manifest for everybody: data that is a path, as a person typed it on some machine, is left out."""
    document: dict[str, Any] = msgspec.to_builtins(manifest)
    provenance = document["provenance"]
    for place in (provenance, provenance["configuration"] or {}):
        data = place.get("data")
        if data is not None and not DATA_SET_NAME.fullmatch(str(data)):
            del place["data"]
    return document


def _variant(variant: Variant, trusted: Collection[str]) -> dict[str, Any]:
    """One recorded variant; a damaged one is told too, so that it does not hide the others."""
    try:
        manifest, verdict = variant.manifest(), variant.verdict()
    except LoadError as error:
        return {"name": variant.name, "error": error.detail}
    return {
        "name": variant.name,
        "digest": manifest.digest,
        "recipe": msgspec.to_builtins(manifest.recipe),
        "speed": msgspec.to_builtins(manifest.speed),
        "verdict": msgspec.to_builtins(verdict),
        "signed_by": _signers(partial(variant.attested, trusted)),
    }


def _told(event: Event) -> dict[str, Any]:
    """An event without who did it, and without seals that nobody could check then."""
    return {key: value for key, value in msgspec.to_builtins(event).items() if key not in UNTOLD}


def _signers(attested: Callable[[], Attestation | None]) -> list[str]:
    """Public keys whose signatures hold here; none where they do not."""
    try:
        signed = attested()
    except LoadError:
        return []
    return sorted(signed.signatures) if signed is not None else []


def _loaded(model: LiveModel) -> dict[str, Any]:
    manifest = model.manifest
    fd = verdict_fd(model.verdict)
    return {
        "version": model.version.number,
        "digest": manifest.digest,
        "numerics": model.numerics,
        "provider": model.provider,
        "asked_provider": model.asked,
        "variant": model.variant,
        "variant_passed_over": model.passed_over,
        "unjudged": model.verdict is None,
        "loaded": model.loaded,
        "kind": manifest.kind,
        "prior": manifest.prior,
        "z_dim": manifest.z_dim,
        "shape": list(manifest.shape),
        "classes": list(manifest.classes.names) if manifest.classes else None,
        "fd": None if fd is None else {"extractor": fd[0], "value": fd[1]},
    }
