"""`genserve evaluate` and `genserve gate`. Knows nothing of how anything is measured."""

import argparse

import msgspec

from genserve.context import readable_repository, writable_repository
from models import judge
from models.extractors import Progress as Advance
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
    return 0 if verdict.decision == "pass" else 1


def _stage(name: str, total: int) -> Advance:
    """A progress bar for one stage of judging."""
    return Progress(name, total).advance


def _json(record: msgspec.Struct) -> str:
    return msgspec.json.format(msgspec.json.encode(record), indent=2).decode()
