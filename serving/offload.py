"""Keeps the event loop free of long copies: small work is done at once, large work on a thread. Knows no work."""

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

INLINE_BYTES = 256 * 1024  # hashing or copying so much takes 0.1 to 0.3 ms; a thread's two hops take about 0.1 ms

P = ParamSpec("P")
T = TypeVar("T")


async def offload(size: int, work: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
    """What `work` returns or raises.

    Args:
        size: bytes that it goes through; above INLINE_BYTES it runs on a thread.
        work: must be callable from any thread.
        arguments: its own.
        options: its own.
    """
    if size <= INLINE_BYTES:
        return work(*arguments, **options)
    return await asyncio.to_thread(work, *arguments, **options)
