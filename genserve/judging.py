"""`genserve evaluate`, `genserve gate` and `genserve policy`. Knows nothing of how anything is measured."""

import argparse
import json
import sys

import msgspec

from genserve.context import readable_repository, writable_repository
from genserve.table import print_table
from models import judge
from models.extractors import Progress as Advance
from models.policies import FILE_NAME, Thresholds, effective_policy, read_policies
from models.progress import Progress
from models.report import format_report, format_verdict


def evaluate(args: argparse.Namespace) -> int:
    """Measure a version on the validation split; decides nothing."""
    repository = readable_repository()
    version = repository.resolve(args.version)
    report = judge.evaluate(repository, version, extractor=args.extractor, num_fake=args.num_fakes, progress=_stage)
    print(_json(report) if args.json else format_report(report))
    return 0


def gate(args: argparse.Namespace) -> int:
    """Judge a version on the gate split and keep the verdict; 1 unless it passes."""
    repository = writable_repository()
    version = repository.resolve(args.version)
    verdict = judge.run_gate(repository, version, progress=_stage)
    print(_json(verdict) if args.json else format_verdict(version.name, verdict))
    key = repository.key
    signed = "unsigned: GENSERVE_SIGNING_KEY names no key" if key is None else f"signed by {key.public}"
    print(signed, file=sys.stderr if args.json else sys.stdout)
    return 0 if verdict.decision == "pass" else 1


def policy(args: argparse.Namespace) -> int:
    """Print what a model is judged by, and where each threshold comes from."""
    repository = readable_repository()
    kind = repository.require(args.name)[-1].manifest().kind
    effective = effective_policy(repository, args.name, kind)
    reference, file = repository.reference(args.name), read_policies(repository.root)
    tables: list[tuple[str, Thresholds]] = [
        (f"{FILE_NAME} [models.{args.name}]", file.models.get(args.name, {})),
        ("as published", reference.policy if reference else {}),
        (f"{FILE_NAME} [{kind}]", file.kinds.get(kind, {})),
        (FILE_NAME, file.every),
    ]
    rows: list[dict[str, object]] = [
        {
            "threshold": name,
            "value": value,
            "from": next((place for place, table in tables if name in table), "default"),
        }
        for name, value in effective.as_dict().items()
    ]
    if args.json:
        print(json.dumps({"name": args.name, "hash": effective.hash, "thresholds": rows}, indent=2))
        return 0
    print_table(rows)
    print(f"\nhash {effective.hash}")
    return 0


def _stage(name: str, total: int) -> Advance:
    """A progress bar for one stage of judging."""
    return Progress(name, total).advance


def _json(record: msgspec.Struct) -> str:
    return msgspec.json.format(msgspec.json.encode(record), indent=2).decode()
