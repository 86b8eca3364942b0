"""Single flight."""

import asyncio

import pytest

from serving.calls import run
from serving.flights import Flights
from serving.schedule import Deadline
from tests.serving.kit import until


class Works:
    """Work that ends when told to."""

    def __init__(self):
        self.started: list[list[str]] = []
        self.cancelled = 0
        self.deadlines: list[Deadline] = []
        self.gate = asyncio.Event()
        self.again: list[bool] = []
        self.error: Exception | None = None

    def __call__(self, keys, deadline, again, done):
        if self.error is not None:
            raise self.error
        self.again.append(again)
        return run(self.run(keys, deadline), done)

    async def run(self, keys, deadline):
        self.started.append(keys)
        self.deadlines.append(deadline)
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if "bad" in keys:
            raise ValueError("bad")
        return {key: key.upper() for key in keys}


@pytest.fixture
async def work():
    return Works()


def get(flights, work, *keys, at=10.0):
    return asyncio.create_task(flights.get(keys, Deadline(at), work))


async def test_identical_concurrent_work_is_done_once(work):
    """A thousand callers, one piece of work."""
    flights = Flights()
    tasks = [get(flights, work, "a", "b") for _ in range(1000)]
    await until(lambda: work.started)
    work.gate.set()
    assert await asyncio.gather(*tasks) == [{"a": "A", "b": "B"}] * 1000
    assert work.started == [["a", "b"]]


async def test_overlapping_callers_share_what_overlaps(work):
    """Only what nobody works on is started."""
    flights = Flights()
    tasks = [get(flights, work, "a", "b"), get(flights, work, "b", "c")]
    await until(lambda: len(work.started) == 2)
    work.gate.set()
    assert await asyncio.gather(*tasks) == [{"a": "A", "b": "B"}, {"b": "B", "c": "C"}]
    assert work.started == [["a", "b"], ["c"]]


async def test_work_is_cancelled_only_when_its_last_waiter_leaves(work):
    """The first of two leaving changes nothing; the second ends the work, and the next caller starts anew."""
    flights = Flights()
    first, second = get(flights, work, "a"), get(flights, work, "a")
    await until(lambda: work.started)
    first.cancel()
    await asyncio.wait([first])
    assert work.cancelled == 0
    second.cancel()
    await asyncio.wait([second])
    third = get(flights, work, "a")
    await until(lambda: work.cancelled == 1 and len(work.started) == 2)
    work.gate.set()
    assert await third == {"a": "A"}


async def test_nobody_waits_for_much_more_than_was_asked(work):
    """One of four keys is joined, one of five is worked on once more; whoever wants it next joins the lesser work."""
    flights = Flights()
    tasks = [get(flights, work, *keys) for keys in ("abcd", "ghijk", "b", "h", "h")]
    await until(lambda: len(work.started) == 3)
    work.gate.set()
    assert (await asyncio.gather(*tasks))[2:] == [{"b": "B"}, {"h": "H"}, {"h": "H"}]
    assert work.started == [list("abcd"), list("ghijk"), ["h"]]


async def test_what_only_those_wanted_who_left_is_not_done(work):
    """The work begins again with what is left, and who comes then joins that."""
    flights = Flights()
    first, second, third = get(flights, work, *"abcd"), get(flights, work, *"dx"), get(flights, work, *"bd")
    await until(lambda: len(work.started) == 2)
    first.cancel()
    await until(lambda: len(work.started) == 3)
    fourth = get(flights, work, *"abd")
    await until(lambda: len(work.started) == 4)
    work.gate.set()
    assert await asyncio.gather(second, third) == [{"d": "D", "x": "X"}, {"b": "B", "d": "D"}]
    assert await fourth == {"a": "A", "b": "B", "d": "D"}
    assert work.started == [list("abcd"), ["x"], list("bd"), ["a"]]
    assert work.again == [False, False, True, False]
    assert work.cancelled == 1


async def test_who_stays_is_told_where_the_rest_cannot_begin_again(work):
    """Whatever the reason is."""
    flights = Flights()
    first, second = get(flights, work, "a", "b"), get(flights, work, "a")
    await until(lambda: work.started)
    work.error = ValueError("closed")
    first.cancel()
    with pytest.raises(ValueError, match="closed"):
        await second


async def test_work_takes_the_latest_deadline_of_its_waiters(work):
    """Whoever can wait longer is not cut short by the one who started."""
    flights = Flights()
    tasks = [get(flights, work, "a", at=1.0), get(flights, work, "a", at=5.0), get(flights, work, "a", at=2.0)]
    await until(lambda: work.started)
    await until(lambda: work.deadlines[0].at == 5.0)
    work.gate.set()
    await asyncio.gather(*tasks)


async def test_an_error_reaches_all_waiters_and_is_not_kept(work):
    """The next caller tries again."""
    flights = Flights()
    tasks = [get(flights, work, "bad") for _ in range(3)]
    await until(lambda: work.started)
    work.gate.set()
    assert [str(e) for e in await asyncio.gather(*tasks, return_exceptions=True)] == ["bad"] * 3
    with pytest.raises(ValueError, match="bad"):
        await get(flights, work, "bad")
    assert len(work.started) == 2
