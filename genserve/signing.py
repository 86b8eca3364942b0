"""`genserve key new`, `genserve key show` and `genserve sign`. Knows nothing of what is signed, or how."""

import argparse
import sys
from pathlib import Path

from genserve.context import readable_repository, writable_repository
from models.errors import Refused
from models.keys import new_key, read_key
from models.repository import Repository
from models.vouching import vouch


def key_new(args: argparse.Namespace) -> int:
    """Make a private key; prints its public key alone, the rest goes to stderr."""
    path = Path(args.file).resolve()
    if path.is_relative_to(readable_repository().root.resolve()):
        raise Refused(f"{path} lies in the model repository, which others read: keep the key elsewhere", field="key")
    key = new_key(path)
    print(
        f"{path}: a private key, readable by its owner alone; keep a copy where only you can reach it.\n"
        f"To sign with it:    GENSERVE_SIGNING_KEY={path}\n"
        f"To serve what it signed, and nothing else:    GENSERVE_TRUSTED_KEYS={key.public}",
        file=sys.stderr,
    )
    print(key.public)
    return 0


def key_show(args: argparse.Namespace) -> int:
    """Print the public key of a private one."""
    print(read_key(Path(args.file)).public)
    return 0


def sign(args: argparse.Namespace) -> int:
    """Sign verdicts that are there already."""
    found = writable_repository()
    repository = Repository(found.root, key=found.key)  # whatever is trusted: this is how it comes to be
    for signed in vouch(repository, args.version, why=args.why):
        print(f"signed {signed}")
    return 0
