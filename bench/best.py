"""A repository in which the fastest variant of a model serves, as a person would have it. Knows no servers."""

import os
import subprocess
import sys
from pathlib import Path

from models.records import Event
from models.repository import Repository, now, whoami
from models.variants import best_variants


def serve_fastest(root: Path, model: str) -> dict[str, str]:
    """Let genserve make and judge variants of a model's newest version, and promote it with the fastest that passed.

    Returns the chosen variants by provider. The promotion is written into the history without the gate, which the
    reference models, having no data, could not pass.

    Raises:
        RuntimeError: no variant passed.
    """
    environment = {**os.environ, "GENSERVE_MODELS": str(root)}
    repository = Repository(root)
    version = max(repository.versions(model), key=lambda one: one.number)
    command = [sys.executable, "-m", "genserve", "optimize", str(version)]
    subprocess.run(command, env=environment, check=False, stdout=subprocess.DEVNULL)
    chosen = best_variants(version, min_speedup=1.0)
    if not chosen:
        raise RuntimeError(f"no variant of {model} passed")
    event = Event(event="promoted", version=version.number, when=now(), by=whoami(), why="benchmark", variants=chosen)
    repository.record(model, event)
    return chosen
