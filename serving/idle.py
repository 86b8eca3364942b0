"""Says when nobody wants anything, for work that can wait. Knows nothing of that work."""

import asyncio

from serving.batcher import Batcher
from serving.loop_share import BUSY_LOOP, LoopShare

QUIET_SECONDS = 0.1  # since somebody last asked for something
LOOK_SECONDS = 0.05  # between two looks while it is not quiet


class Idle:
    """Watches a batcher and the event loop.

    Args:
        batcher: whose engines the work would take.
    """

    def __init__(self, batcher: Batcher) -> None:
        self._batcher = batcher
        self._share = LoopShare()

    @property
    def quiet(self) -> bool:
        """Whether nothing waits or runs, nobody asked for anything a moment ago, and the event loop has time."""
        return self._batcher.quiet_seconds > QUIET_SECONDS and self._share.look() < BUSY_LOOP

    async def wait(self) -> None:
        """Until it is quiet."""
        while not self.quiet:  # noqa: ASYNC110 what is looked at is time, and tells nobody
            await asyncio.sleep(LOOK_SECONDS)
