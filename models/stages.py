"""Tells of the work as it goes on. Knows nothing of what is done."""

import contextlib
from collections.abc import Iterator

from models.reference import Stage


@contextlib.contextmanager
def timed(stage: Stage | None, name: str) -> Iterator[None]:
    """Tells of a stage that cannot say how far it is: begun, then done."""
    done = stage(name, 1) if stage else None
    if done:
        done(0)
    yield
    if done:
        done(1)
