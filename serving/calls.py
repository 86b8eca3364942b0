"""Work that ends by calling back, and its two ways to and from coroutines. Knows nothing of what is done.

A task, its future and a frame for each layer are a fifth of what a small image costs on the event loop; a callback
costs a call. So what every request goes through calls back, and what is seldom or long is written as coroutines.
"""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")
Done = Callable[[T | BaseException], None]  # told once of the value or the error; never after `Leave`
Leave = Callable[[], object]  # nobody waits any more: the work may end


def nothing() -> None:
    """The Leave of what is done already."""


def run(work: Coroutine[Any, Any, T], done: Done[T]) -> Leave:
    """Do it in a task; leaving cancels it."""

    def ended(task: asyncio.Task[T]) -> None:
        if not task.cancelled():
            done(task.exception() or task.result())

    task = asyncio.get_running_loop().create_task(work)
    task.add_done_callback(ended)

    def leave() -> None:
        task.remove_done_callback(ended)
        task.cancel()

    return leave


async def outcome(begin: Callable[[Done[T]], Leave]) -> T:
    """Wait for what was begun; cancelling the caller leaves it.

    Raises:
        Exception: what it ended with.
    """
    future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    leave = begin(partial(_settle, future))
    try:
        return await future
    except asyncio.CancelledError:
        leave()
        raise
    finally:
        del future, leave  # they know the error, which knows this frame: no cycles


def _settle(future: "asyncio.Future[T]", ended: T | BaseException) -> None:
    if future.done():  # the caller is being cancelled
        return
    if isinstance(ended, BaseException):
        future.set_exception(ended)
    else:
        future.set_result(ended)
