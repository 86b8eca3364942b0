"""How Python itself is set for serving. Knows nothing of what is served."""

import gc
import sys

# What an engine that comes back from ONNX Runtime waits for Python's lock at most; by default 5 ms, a batch's time.
SWITCH_SECONDS = 0.0005
# Objects made and not yet freed before the collector looks for cycles among the young. Requests leave none; by default
# it looks after 700, which 20 requests under way have, and took 14 % of the event loop's time at 64 connections.
YOUNG_OBJECTS = 50_000


def prepare() -> None:
    """Once, when everything is imported: what is there now is never looked at again."""
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.set_threshold(YOUNG_OBJECTS)
    gc.collect()
    gc.freeze()
