"""The threads that encode, and a place in their queue for each answer. Knows no samples: an encoding is a call.

A place is taken before anything is drawn, so that nothing is drawn for an answer that could not be encoded in time.
How long an encoding takes is learned from those of its format, by their bytes of samples. Where nothing of a format is
under way that could tell, one is tried whatever was measured before: a stall is not held against it for ever.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self, TypeVar

from serving.errors import DeadlineExceeded, QueueTooLong
from serving.schedule import Deadline

MEMORY = 0.9  # weight that an encoding keeps at each later one of its format: the last ten count
OUTLIER = 2.0  # an encoding counts as at most so many times the expectation

T = TypeVar("T")


class Place:
    """One answer's place: from `Encoders.place` until its request ends, or its encoding where that had begun.

    Args:
        queue: that it is in.
        form: the format.
        size: bytes of samples.
        deadline: of the answer.
        seconds: that its encoding is expected to take; 0 where nothing is known.
    """

    __slots__ = ("_encode", "_future", "_queue", "deadline", "form", "seconds", "size")

    def __init__(self, queue: "Encoders", form: str, size: int, deadline: Deadline, seconds: float) -> None:
        self._queue = queue
        self.form = form
        self.size = size
        self.deadline = deadline
        self.seconds = seconds
        self._encode: Callable[[], Any] | None = None
        self._future: Future[Any] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """The request is over: what has not begun will not, and its samples are let go."""
        self._encode = None
        if self._future is None:
            self._queue.left(self)
        else:
            self._future.cancel()
            self._future.add_done_callback(self._ended)

    async def encode(self, work: Callable[[], T]) -> T:
        """What the work returns, done on a thread; cancelling the caller leaves a thread only what has begun.

        Raises:
            DeadlineExceeded: when its turn came, it could no longer be in time.
        """
        self._encode = work
        self._future = self._queue.submit(self._run)
        encoded: T = await asyncio.wrap_future(self._future)
        return encoded

    def _ended(self, _: "Future[Any]") -> None:
        self._future = None  # no cycle: what nobody waited for is freed now
        self._queue.left(self)

    # On an encoder's thread.

    def _run(self) -> object:
        work = self._encode
        if work is None:  # left at this very moment
            return None
        began = self._queue.begin(self)
        encoded = work()
        self._queue.ended(self, began)
        return encoded


class Encoders:
    """Encodes on threads, first come, first served.

    Args:
        threads: how many.
        clock: seconds, monotonic.
        changed: called when `busy` may have changed, on any thread; None for nobody.
    """

    def __init__(
        self, threads: int, *, clock: Callable[[], float] = time.monotonic, changed: Callable[[], None] | None = None
    ) -> None:
        self._clock = clock
        self._changed = changed
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="encoder")
        self._lock = threading.Lock()  # of everything below
        self._places: set[Place] = set()
        self._measured: dict[str, tuple[float, float]] = {}  # by format: seconds and bytes, the older the lighter

    def place(self, form: str, size: int, deadline: Deadline) -> Place:
        """A place for an answer, to be left by the end of a `with` statement.

        Raises:
            QueueTooLong: with what has a place already, it would be late.
            DeadlineExceeded: it would be late even alone.
        """
        with self._lock:
            left = deadline.at - self._clock()
            seconds = self._expected(form, size)
            own = seconds if self._told(form) else 0.0
            if own > left:
                raise DeadlineExceeded(f"encoding alone takes {own:.3g} s, the request has {max(left, 0.0):.3g} s")
            wait = sum(other.seconds for other in self._places) / self._threads
            if wait and wait + own > left:
                raise QueueTooLong(late_seconds=wait + own - left, wait_seconds=wait)
            place = Place(self, form, size, deadline, seconds)
            self._places.add(place)
            first = len(self._places) == 1
        if first and self._changed is not None:
            self._changed()
        return place

    @property
    def busy(self) -> bool:
        """Whether anybody has a place."""
        return bool(self._places)

    def close(self) -> None:
        """Let the threads end after what they are encoding."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    # What places ask.

    def submit(self, work: Callable[[], Any]) -> "Future[Any]":
        """Have something done on a thread."""
        return self._pool.submit(work)

    def begin(self, place: Place) -> float:
        """When an encoding begins, which is now.

        Raises:
            DeadlineExceeded: it would be late.
        """
        with self._lock:
            began = self._clock()
            own = self._expected(place.form, place.size) if self._told(place.form, place) else 0.0
        if began + own > place.deadline.at:
            raise DeadlineExceeded("the answer could no longer be encoded within the request's time")
        return began

    def ended(self, place: Place, began: float) -> None:
        """An encoding is done: learn from it."""
        with self._lock:
            if place.form not in self._measured:  # the first of a format loads what it needs: it says nothing
                self._measured[place.form] = (0.0, 0.0)
                return
            seconds, size = self._measured[place.form]
            took = self._clock() - began
            if size:
                took = min(took, OUTLIER * seconds / size * place.size)
            self._measured[place.form] = (MEMORY * seconds + took, MEMORY * size + place.size)

    def left(self, place: Place) -> None:
        """A place is free again."""
        with self._lock:
            self._places.discard(place)
            last = not self._places
        if last and self._changed is not None:
            self._changed()

    def _expected(self, form: str, size: int) -> float:
        seconds, measured = self._measured.get(form, (0.0, 0.0))
        return seconds / measured * size if measured else 0.0

    def _told(self, form: str, but: Place | None = None) -> bool:
        """Whether another answer of a format is under way, from which will be known how long it takes."""
        return any(other.form == form for other in self._places if other is not but)
