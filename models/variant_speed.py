"""Measures how much faster a variant is than its parent, both as they are served. Keeps nothing."""

import statistics
import time
from collections.abc import Sequence

from models.generator import Generator
from models.latents import draw
from models.variants import Speed

BATCHES = (1, 16)
ROUNDS = 11
ROUND_SECONDS = 0.15


def measure_speed(
    variant: Generator,
    parent: Generator,
    *,
    batches: Sequence[int] = BATCHES,
    rounds: int = ROUNDS,
    round_seconds: float = ROUND_SECONDS,
) -> tuple[Speed, ...]:
    """Run both in turns, A B A B, since a machine's speed drifts: each round has a ratio of its own.

    Args:
        variant: opened, with its golden samples checked.
        parent: likewise.
        batches: images in one call, each measured on its own.
        rounds: of A and B.
        round_seconds: of one of them.
    """
    return tuple(_measure(variant, parent, batch, rounds, round_seconds) for batch in batches)


def _measure(variant: Generator, parent: Generator, batch: int, rounds: int, round_seconds: float) -> Speed:
    for generator in (variant, parent):
        _rate(generator, batch, 0)
    pairs = [(_rate(variant, batch, round_seconds), _rate(parent, batch, round_seconds)) for _ in range(rounds)]
    ratios = [ours / theirs for ours, theirs in pairs]
    return Speed(
        batch=batch,
        ratio=statistics.median(ratios),
        low=min(ratios),
        high=max(ratios),
        images_per_second=statistics.median(ours for ours, _ in pairs),
        parent_images_per_second=statistics.median(theirs for _, theirs in pairs),
    )


def _rate(generator: Generator, batch: int, seconds: float) -> float:
    """Images per second by the median call of so long a time, so that a call that was interrupted does not count."""
    drawn = draw(generator.signature, range(batch))
    end, calls = time.perf_counter() + seconds, []
    while True:
        start = time.perf_counter()
        generator.generate(*drawn)
        now = time.perf_counter()
        calls.append(now - start)
        if now >= end:
            return batch / statistics.median(calls)
