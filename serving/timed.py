"""Called-back work under a deadline. Knows nothing of what is done."""

import asyncio
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from serving.calls import Done, Leave, nothing
from serving.errors import DeadlineExceeded
from serving.schedule import Deadline

T = TypeVar("T")
R = TypeVar("R")

TOO_LATE = "the request's time was over before its answer was ready"


class Timed(Generic[T, R]):
    """One piece of work that is left when its time is over.

    Args:
        deadline: of the answer.
        start: starts the work; it may call back at once.
        make: the answer from what it made.
        done: called back with the answer, with DeadlineExceeded, or with what the work or `make` raised.
    """

    __slots__ = ("_deadline", "_done", "_leave", "_make", "_start", "_timer")

    def __init__(
        self, deadline: Deadline, start: Callable[[Done[T]], Leave], make: Callable[[T], R], done: Done[R]
    ) -> None:
        self._deadline = deadline
        self._start = start
        self._make = make
        self._done = done
        self._leave: Leave = nothing
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> Leave:
        """Start it.

        Raises:
            Exception: what `start` raised.
        """
        seconds = max(0.0, self._deadline.at - time.monotonic())
        self._timer = asyncio.get_running_loop().call_later(seconds, self._late)
        try:
            self._leave = self._start(self._ended)
        except BaseException:
            self._timer.cancel()
            raise
        return self._left

    def _ended(self, outcome: T | BaseException) -> None:
        self._leave = nothing
        if self._timer is not None:
            self._timer.cancel()
        if isinstance(outcome, BaseException):
            self._done(outcome)
            return
        try:
            answer = self._make(outcome)
        except Exception as error:
            self._done(error)
        else:
            self._done(answer)

    def _late(self) -> None:
        self._leave()
        self._done(DeadlineExceeded(TOO_LATE))

    def _left(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._leave()
