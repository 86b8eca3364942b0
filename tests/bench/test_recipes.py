"""How runs of recipes are compared, on made-up ones."""

import pytest

from bench.recipes import Point, Run, compare, time_share, training_seconds


def run(recipe: str, seed: int, ends: list[float], seconds: float, kimg: float = 100.0, **more: object) -> Run:
    """A run whose snapshots come every `seconds`, FD/Tr of the average as listed and half as much again without it."""
    points = [Point(kimg * (i + 1) / len(ends), seconds * (i + 1), 1.5 * end, end) for i, end in enumerate(ends)]
    best = min(ends)
    return Run(recipe, seed, {"kimg": kimg}, points, 1.5 * best, best, **more)


PRIMERS = run("primers", 0, [0.40, 0.20, 0.10, 0.08], 10.0)


def test_the_share_of_the_time_is_that_of_the_first_snapshot_as_good() -> None:
    """Against the other's best, with and without an average, over all of its seconds."""
    ours = run("ours", 0, [0.30, 0.12, 0.09, 0.07], 5.0)
    assert time_share(ours, PRIMERS, "plain") == pytest.approx(10 / 40)  # .12 is the first within 1.5 * .08
    assert time_share(ours, PRIMERS, "averaged") == pytest.approx(20 / 40)
    assert time_share(PRIMERS, ours, "averaged") is None  # never
    assert time_share(run("ours", 0, [0.01], 5.0, clock="wall"), PRIMERS, "averaged") is None


def test_runs_are_paired_by_seed_and_length() -> None:
    """Another seed or another number of images is no pair; what was never reached is counted."""
    runs = [
        PRIMERS,
        run("primers", 1, [0.10], 10.0),
        run("ours", 0, [0.04], 10.0),
        run("ours", 1, [0.20], 10.0),
        run("ours", 2, [0.01], 10.0),
        run("ours", 0, [0.01], 10.0, kimg=1000.0),
    ]
    told = "\n".join(compare(runs))
    assert "ours, 100 kimg / primers averaged: 1.2500 [0.5000 2.0000]" in told
    assert "ours, 1000 kimg: FD/Tr" in told
    assert "ours, 1000 kimg /" not in told
    assert "reached in 0.2500 [0.2500 0.2500] of its time, never in 1" in told


def test_seconds_of_a_run_are_those_of_its_ticks() -> None:
    """Thousands of images over images a second, up to a snapshot."""
    ticks = [(10.0, 500.0), (20.0, 250.0), (30.0, 1000.0)]
    assert training_seconds(ticks, 20.0) == pytest.approx(20 + 40)
    assert training_seconds(ticks, 30.0) == pytest.approx(70)
