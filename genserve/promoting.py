"""`genserve promote`, `genserve rollback` and `genserve retire`. Knows nothing of measuring."""

import argparse
from collections.abc import Sequence

from genserve.context import writable_repository
from models import promotion, retiring
from models.errors import Invalid
from models.runtime import PROVIDERS, short_name


def promote(args: argparse.Namespace) -> int:
    """Make a version the champion, if its verdict allows it."""
    repository = writable_repository()
    version = repository.resolve(args.version)
    event = promotion.promote(repository, version, why=args.why, variants=_named(args.variant or ()))
    before = "there was none before" if event.replaced is None else f"was {version.name}@{event.replaced}"
    print(f"{version} is the champion of {version.name} ({before})")
    for provider, variant in event.variants.items():
        print(f"{short_name(provider)} is served by its variant {variant}")
    return 0


def rollback(args: argparse.Namespace) -> int:
    """Return to the champion before the present one."""
    event = promotion.rollback(writable_repository(), args.name, why=args.why)
    print(f"{args.name}@{event.version} is the champion again (was {args.name}@{event.replaced})")
    return 0


def retire(args: argparse.Namespace) -> int:
    """Remove a version's files."""
    repository = writable_repository()
    version = repository.resolve(args.version)
    size = sum(path.stat().st_size for path in version.path.rglob("*") if path.is_file())
    retiring.retire(repository, version, why=args.why)
    print(f"{version} is retired: {size / 1e6:.1f} MB freed; its history stays, and its number is not given again")
    return 0


def _named(wishes: Sequence[str]) -> dict[str, str | None]:
    """PROVIDER=NAME as provider's full name and variant; NAME none is the version itself."""
    named: dict[str, str | None] = {}
    for wish in wishes:
        provider, equals, variant = wish.partition("=")
        if provider not in PROVIDERS or not equals or not variant:
            raise Invalid(f"{wish!r} is not PROVIDER=NAME, with a provider of {', '.join(PROVIDERS)}", field="variant")
        named[PROVIDERS[provider]] = None if variant == "none" else variant
    return named
