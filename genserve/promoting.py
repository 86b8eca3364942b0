"""`genserve promote` and `genserve rollback`. Knows nothing of measuring."""

import argparse

from genserve.context import writable_repository
from models import promotion


def promote(args: argparse.Namespace) -> int:
    """Make a version the champion, if its verdict allows it."""
    repository = writable_repository()
    version = repository.resolve(args.version)
    event = promotion.promote(repository, version, why=args.why)
    before = "there was none before" if event.replaced is None else f"was {version.name}@{event.replaced}"
    print(f"{version} is the champion of {version.name} ({before})")
    return 0


def rollback(args: argparse.Namespace) -> int:
    """Return to the champion before the present one."""
    event = promotion.rollback(writable_repository(), args.name, why=args.why)
    print(f"{args.name}@{event.version} is the champion again (was {args.name}@{event.replaced})")
    return 0
