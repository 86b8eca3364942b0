"""`genserve optimize`: variants of a version for this machine. Knows nothing of how they are made or judged."""

import argparse

import msgspec

from genserve.context import writable_repository
from models.optimizing import Outcome
from models.optimizing import optimize as optimize_version
from models.runtime import short_name
from models.variants import Speed

SHOWN = (
    ("mean error", " levels"),
    ("99.9 %", " levels"),
    ("largest", " levels"),
    ("FD to parent", ""),
    ("FD loss", ""),
)


def optimize(args: argparse.Namespace) -> int:
    """Make, measure, judge and record each variant; 1 where none passed, now or before."""
    repository = writable_repository()
    version = repository.resolve(args.version)
    outcomes = []
    for outcome in optimize_version(repository, version, only=args.only or ()):
        outcomes.append(outcome)
        if not args.json:
            print(_told(outcome), flush=True)
    if args.json:
        print(msgspec.json.format(msgspec.json.encode([_document(outcome) for outcome in outcomes]), indent=2).decode())
    passed = [outcome for outcome in outcomes if outcome.verdict and outcome.verdict.decision == "pass"]
    if passed and not args.json:
        print(f"`genserve promote {version}` lets the fastest that passed serve its provider")
    return 0 if passed else 1


def _told(outcome: Outcome) -> str:
    """One candidate in a few lines."""
    name = outcome.variant.name if outcome.variant else outcome.method
    head = f"{name} for {short_name(outcome.provider)}"
    if outcome.manifest is None or outcome.verdict is None:
        return f"{head}: {outcome.reason}"
    numbers = outcome.verdict.numbers
    speeds = ", ".join(_speed(speed) for speed in outcome.manifest.speed)
    lines = [f"{head}: {outcome.verdict.decision}" + (f" ({outcome.reason})" if outcome.reason else "")]
    lines.append(f"  {speeds} of its parent's speed")
    lines += [
        f"  {name}: {number.value:.4g}{unit}"
        for prefix, unit in SHOWN
        for name, number in numbers.items()
        if name.startswith(prefix)
    ]
    lines += [f"  {reason}" for reason in outcome.verdict.reasons]
    return "\n".join(lines)


def _speed(speed: Speed) -> str:
    return f"{speed.ratio:.2f} [{speed.low:.2f}, {speed.high:.2f}] x at batch {speed.batch}"


def _document(outcome: Outcome) -> dict[str, object]:
    return {
        "variant": outcome.variant.name if outcome.variant else None,
        "method": outcome.method,
        "provider": outcome.provider,
        "reason": outcome.reason,
        "digest": outcome.manifest.digest if outcome.manifest else None,
        "speed": outcome.manifest.speed if outcome.manifest else None,
        "verdict": outcome.verdict,
    }
