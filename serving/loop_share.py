"""How busy the event loop is. Knows nothing of what it does."""

import time

LOOK_SECONDS = 0.02
BUSY_LOOP = 0.3  # above which it is busy with what needs no engine


class LoopShare:
    """The share of a core that the event loop's thread took of late; asked on that thread.

    Args:
        weight: of what was since the last look, in (0, 1]; what was before it has the rest.
    """

    def __init__(self, weight: float = 0.2) -> None:
        self._weight = weight
        self._share = 0.0
        self._looked: tuple[float, float] | None = None  # time of the clock, and of the thread

    def look(self) -> float:
        """0 .. 1, of the last looks that were LOOK_SECONDS apart or more."""
        clock, thread = time.perf_counter(), time.thread_time()
        if self._looked is None:
            self._looked = (clock, thread)
        elif clock - self._looked[0] > LOOK_SECONDS:
            share = (thread - self._looked[1]) / (clock - self._looked[0])
            self._share += self._weight * (min(1.0, share) - self._share)
            self._looked = (clock, thread)
        return self._share
