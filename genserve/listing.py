"""`genserve models`, `genserve history` and `genserve verify`: what is in the repository. Changes nothing."""

import argparse
import json
import sys

import msgspec

from genserve.context import readable_repository
from genserve.table import print_table
from models.errors import GenserveError
from models.history import PROMOTIONS
from models.keys import public_keys, short
from models.labels import is_distance
from models.records import Event, Verdict
from models.repository import Repository, Version, subject_of
from models.runtime import short_name
from models.variants import Variant, variants
from models.verify import signers
from models.verify import verify as verify_repository

COLUMNS = ("version", "alias", "kind", "shape", "prior", "classes", "verdict", "signed by", "fd", "digest", "created")
DAMAGED = "damaged"


def models(args: argparse.Namespace) -> int:
    """Print models and versions; for one model its variants and its history too."""
    repository = readable_repository()
    names = [args.name] if args.name else repository.names()
    rows = [_row(repository, version) for name in names for version in repository.require(name)]
    damaged = any(row["verdict"] == DAMAGED for row in rows)
    made = [_variant_row(variant) for version in repository.versions(args.name or "") for variant in variants(version)]
    if args.json:
        more = {"variants": made, "history": msgspec.to_builtins(repository.history(args.name))} if args.name else {}
        json.dump({"repository": str(repository.root), "versions": rows, **more}, sys.stdout, indent=2)
        print()
        return int(damaged)
    print_table(rows)
    if not rows:
        print("no models")
    if made:
        print()
        print_table(made)
        print()
    for event in repository.history(args.name) if args.name else ():
        print(_told(args.name, event))
    return int(damaged)


def history(args: argparse.Namespace) -> int:
    """Print what happened to a model, oldest first; 1 where a line is not as it was written."""
    repository = readable_repository()
    repository.require(args.name)
    lines = list(enumerate(repository.checked_history(args.name), 1))
    if args.promotions:
        lines = [(number, line) for number, line in lines if line.event.event in PROMOTIONS]
    faults = [(number, line.fault) for number, line in lines if line.fault is not None]
    if args.json:
        told = [
            {"line": number, "fault": line.fault, "vouched": line.vouched, **msgspec.to_builtins(line.event)}
            for number, line in lines
        ]
        json.dump(told, sys.stdout, indent=2)
        print()
        return int(bool(faults))
    rows = [_event_row(args.name, line.event) for _, line in lines]
    print_table([{key: row[key] for key in row if any(other[key] for other in rows)} for row in rows])
    for number, fault in faults:
        print(f"FAULT  line {number}: {fault}")
    return int(bool(faults))


def verify(args: argparse.Namespace) -> int:
    """Check every file of the repository; 1 if anything is wrong."""
    repository = readable_repository()
    if args.key:
        repository = Repository(repository.root, trusted=public_keys(args.key))
    if args.name:
        repository.require(args.name)
    faults = 0
    for finding in verify_repository(repository, args.name):
        if finding.fault is not None:
            print(f"FAULT  {finding.subject}: {finding.fault}")
            faults += 1
        else:
            print(f"ok     {finding.subject}{f' ({finding.note})' if finding.note else ''}")
    return 1 if faults else 0


def _row(repository: Repository, version: Version) -> dict[str, object]:
    """One version; one that cannot be read is a row too, so that it does not hide the others."""
    try:
        return _readable_row(repository, version)
    except GenserveError as error:
        row: dict[str, object] = dict.fromkeys(COLUMNS, "")
        return {**row, "version": str(version), "verdict": DAMAGED, "fd": error.detail}


def _readable_row(repository: Repository, version: Version) -> dict[str, object]:
    manifest = version.manifest()
    aliases = repository.written_aliases(version.name)
    verdicts = repository.verdicts(version)
    return {
        "version": str(version),
        "alias": ", ".join(a for a in ("champion", "candidate") if getattr(aliases, a) == version.number),
        "kind": manifest.kind,
        "shape": "x".join(map(str, manifest.shape)),
        "prior": manifest.prior,
        "classes": manifest.num_classes,
        "verdict": verdicts[-1].decision if verdicts else "none",
        "signed by": signers(subject_of(version, repository.verdict_paths(version)[-1])) if verdicts else "",
        "fd": _distance(verdicts[-1]) if verdicts else "",
        "digest": manifest.digest[:12],
        "created": manifest.created,
    }


def _variant_row(variant: Variant) -> dict[str, object]:
    """One variant; one that cannot be read is a row too."""
    keys = ("variant", "provider", "verdict", "signed by", "at 1", "at 16", "mean error", "digest", "created")
    row: dict[str, object] = {**dict.fromkeys(keys, ""), "variant": str(variant)}
    try:
        manifest, verdict = variant.manifest(), variant.verdict()
    except GenserveError as error:
        return {**row, "verdict": DAMAGED, "created": error.detail}
    speeds = {f"at {speed.batch}": f"{speed.ratio:.2f}x" for speed in manifest.speed}
    return {
        **row,
        **{key: value for key, value in speeds.items() if key in row},
        "provider": short_name(manifest.recipe.provider),
        "verdict": verdict.decision,
        "signed by": signers(variant.subject),
        "mean error": f"{verdict.numbers['mean error'].value:.3g}" if "mean error" in verdict.numbers else "",
        "digest": manifest.digest[:12],
        "created": manifest.created,
    }


def _distance(verdict: Verdict) -> str:
    """The verdict's FD_inf with its extractor."""
    for name, number in verdict.numbers.items():
        if is_distance(name, "FD_inf"):
            return f"{name} {number.value:.3g}"
    return ""


def _event_row(name: str, event: Event) -> dict[str, object]:
    """One line of a history, for a table."""
    served = ", ".join(f"{short_name(provider)}={variant}" for provider, variant in event.variants.items())
    return {
        "when": event.when,
        "event": event.event,
        "version": f"{name}@{event.version}",
        "replacing": f"{name}@{event.replaced}" if event.replaced else "",
        "variants": served,
        "verdict": "" if event.verdict is None else f"{event.verdict:03d}",
        "verdict signed by": short(event.verdict_keys),
        "signed by": short([event.key] if event.key else ()),
        "by": event.by,
        "why": event.why or "",
    }


def _told(name: str, event: Event) -> str:
    replaced = f" (replacing {name}@{event.replaced})" if event.replaced else ""
    served = ", ".join(f"{short_name(provider)} by {variant}" for provider, variant in event.variants.items())
    served = f", {served}" if served else ""
    why = f": {event.why}" if event.why else ""
    return f"{event.when}  {event.event} {name}@{event.version}{replaced}{served} by {event.by}{why}"
