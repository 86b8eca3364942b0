"""Waits for something to become true, by looking again and again; tests never sleep for a fixed time."""

import threading
import time
from collections.abc import Callable


def wait_until(predicate: Callable[[], object], seconds: float = 30.0) -> None:
    """Return as soon as the predicate is true; fail if it is not within `seconds`."""
    pause = threading.Event()
    deadline = time.monotonic() + seconds
    while not predicate():
        assert time.monotonic() < deadline, f"still not true after {seconds} s: {predicate}"
        pause.wait(0.02)
