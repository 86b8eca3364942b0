"""Finds the model repository that commands and servers mean. Knows nothing of what is in it."""

import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path

from models.errors import Refused
from models.repository import ZOO, Repository

LOCAL = "repository"


def readable_repository(environment: Mapping[str, str] = os.environ) -> Repository:
    """GENSERVE_MODELS, else ./repository where it exists, else the shipped zoo."""
    if named := environment.get("GENSERVE_MODELS"):
        return Repository(named)
    return Repository(LOCAL if Path(LOCAL).is_dir() else ZOO)


def writable_repository(environment: Mapping[str, str] = os.environ) -> Repository:
    """GENSERVE_MODELS, which begins empty; else ./repository, which begins as a copy of the shipped zoo.

    Raises:
        Refused: that is the shipped zoo, which commands never change.
    """
    named = environment.get("GENSERVE_MODELS")
    root = Path(named or LOCAL)
    if root.resolve() == ZOO.resolve():
        raise Refused(f"{root} is the shipped zoo, which is read-only: set GENSERVE_MODELS to another folder")
    if not named and not root.exists():
        _start_from_zoo(root)
    return Repository(root)


def _start_from_zoo(root: Path) -> None:
    """Make a repository that begins as a copy of the zoo; whole or not at all, whoever else does the same."""
    staging = root.with_name(f".{root.name}.{secrets.token_hex(8)}.tmp")
    try:
        shutil.copytree(ZOO, staging)
        staging.rename(root)
    except OSError:
        if not root.exists():  # else another first command was quicker, and its copy is as good
            raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)
