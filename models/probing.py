"""Tries ONNX Runtime's providers on this machine with a tiny generator. Knows no repository and no server."""

import functools
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from models.errors import GenserveError, Unavailable
from models.runtime import make_session
from models.testkit import tiny_model, tiny_signature


class Probe(NamedTuple):
    """What came of trying a provider.

    Args:
        provider: that was tried, alone.
        nodes: how many of the tiny network's nodes each provider ran.
        fault: why it cannot be used; None where it can.
    """

    provider: str
    nodes: dict[str, int]
    fault: str | None


@functools.cache
def used_provider(providers: Sequence[str]) -> str:
    """The provider that sessions with this preference really use here; a tuple, since the answer is kept.

    Raises:
        Unavailable: none of them can be used.
    """
    try:
        name: str = make_session(tiny_model(), providers=providers).get_providers()[0]
    except GenserveError:
        raise
    except Exception as error:  # ONNX Runtime raises a dozen classes of its own, with no common base
        raise Unavailable(f"{', '.join(providers)}: {error}") from error
    return name


def probe(provider: str) -> Probe:
    """Run a tiny generator on one provider, and count from ONNX Runtime's own profile who ran its nodes."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            session = make_session(tiny_model(), providers=(provider,), profile=Path(folder) / "probe")
            session.run(None, {"z": np.zeros((2, tiny_signature().z_dim), np.float32)})
            events = json.loads(Path(session.end_profiling()).read_text())
        except GenserveError as error:
            return Probe(provider, {}, error.detail)
        except Exception as error:  # ONNX Runtime raises a dozen classes of its own, with no common base
            return Probe(provider, {}, f"{type(error).__name__}: {error}")
    nodes: dict[str, int] = {}
    for event in events:
        ran = event.get("args", {}).get("provider")
        if event.get("cat") == "Node" and ran:
            nodes[ran] = nodes.get(ran, 0) + 1
    return Probe(provider, nodes, None if provider in nodes else f"it ran none of the nodes: {nodes or 'no profile'}")
