"""The encoders' queue: what it runs, what it refuses, and what it learns. By a clock that the tests turn."""

import asyncio
import threading
import weakref

import pytest

from serving.encoding import Encoders
from serving.errors import DeadlineExceeded, QueueTooLong
from serving.schedule import Deadline
from tests.serving.kit import until

NEVER = Deadline(1e12)


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Work:
    """An encoding that goes on until it is told to end, and takes so many seconds by the clock."""

    def __init__(self, clock, seconds=0.0):
        self.began = threading.Event()
        self.end = threading.Event()
        self._clock, self._seconds = clock, seconds

    def __call__(self):
        self.began.set()
        assert self.end.wait(20)
        self._clock.now += self._seconds
        return b"encoded"


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def encoders(clock):
    """With one thread, which has encoded once."""
    made = Encoders(1, clock=clock)
    await teach(made, clock, 1000.0)
    yield made
    made.close()


async def encode(encoders, work, *, form="webp", size=100, deadline=NEVER):
    with encoders.place(form, size, deadline) as place:
        return await place.encode(work)


async def teach(encoders, clock, seconds, form="webp"):
    """Have an encoding of 100 bytes take so many seconds."""
    work = Work(clock, seconds)
    work.end.set()
    assert await encode(encoders, work, form=form) == b"encoded"


async def cancelled(task):
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def test_the_first_of_a_format_says_nothing(encoders, clock):
    """It took a thousand seconds, and one of a second is let in beside another; after a second one it is not."""
    await teach(encoders, clock, 1000.0, form="apng")
    with encoders.place("apng", 100, NEVER), encoders.place("apng", 100, Deadline(clock.now + 1)):
        pass
    await teach(encoders, clock, 1000.0, form="apng")
    with encoders.place("apng", 100, NEVER), pytest.raises(DeadlineExceeded):
        encoders.place("apng", 100, Deadline(clock.now + 1))


async def test_what_has_not_begun_when_its_caller_leaves_never_does(encoders, clock):
    """And what it would have encoded is let go at once."""
    first, second = Work(clock), Work(clock)
    running = asyncio.create_task(encode(encoders, first))
    await asyncio.to_thread(first.began.wait, 20)
    waiting = asyncio.create_task(encode(encoders, second))
    await until(lambda: encoders._pool._work_queue.qsize() == 1)
    left, began = weakref.ref(second), second.began
    del second
    await cancelled(waiting)
    del waiting
    assert left() is None
    first.end.set()
    assert await running == b"encoded"
    await teach(encoders, clock, 1.0)  # behind it in the queue
    assert not began.is_set()


async def test_what_runs_for_nobody_keeps_its_place_until_it_ends(encoders, clock):
    """Others wait for its thread all the same."""
    await teach(encoders, clock, 2.0)
    work = Work(clock)
    running = asyncio.create_task(encode(encoders, work))
    await asyncio.to_thread(work.began.wait, 20)
    await cancelled(running)
    with pytest.raises(QueueTooLong):
        encoders.place("gif", 100, Deadline(clock.now + 1))
    work.end.set()
    await until(lambda: not encoders._places)
    with encoders.place("gif", 100, Deadline(clock.now + 1)):
        pass


async def test_who_would_be_late_is_refused_with_an_honest_time(encoders, clock):
    """Two places of two seconds each before it, and two of its own: six, of which it has five."""
    await teach(encoders, clock, 2.0)
    with encoders.place("webp", 100, NEVER), encoders.place("webp", 100, NEVER):
        with pytest.raises(QueueTooLong) as error:
            encoders.place("webp", 100, Deadline(clock.now + 5))
        assert error.value.retry_after_seconds == pytest.approx(1)
        with encoders.place("webp", 100, Deadline(clock.now + 6)):
            pass
        with pytest.raises(DeadlineExceeded):  # waiting does not help
            encoders.place("webp", 1000, Deadline(clock.now + 19))


async def test_what_comes_to_its_turn_too_late_is_not_run(encoders, clock):
    """It was in time by what was known, but what came before took longer."""
    await teach(encoders, clock, 2.0)
    slow, late = Work(clock, 4.0), Work(clock)
    with encoders.place("webp", 100, NEVER):
        first = asyncio.create_task(encode(encoders, slow))
        await asyncio.to_thread(slow.began.wait, 20)
        second = asyncio.create_task(encode(encoders, late, deadline=Deadline(clock.now + 7)))
        await until(lambda: encoders._pool._work_queue.qsize() == 1)
        clock.now += 2.0
        slow.end.set()
        assert await first == b"encoded"
        with pytest.raises(DeadlineExceeded):
            await second
    assert not late.began.is_set()


async def test_one_alone_is_tried_whatever_was_measured(encoders, clock):
    """A stall is forgotten as soon as what came after it was quick."""
    await teach(encoders, clock, 1000.0)
    quick = Work(clock, 0.1)
    quick.end.set()
    for _ in range(80):
        assert await encode(encoders, quick, deadline=Deadline(clock.now + 1)) == b"encoded"
    with encoders.place("webp", 100, NEVER), encoders.place("webp", 100, Deadline(clock.now + 1)):
        pass


async def test_one_stall_among_many_is_no_more_than_twice_the_expectation(encoders, clock):
    """Ten of a second and one of a thousand: less than two are expected of the next."""
    for seconds in [1.0] * 10 + [1000.0]:
        await teach(encoders, clock, seconds)
    with encoders.place("webp", 100, NEVER), encoders.place("webp", 100, Deadline(clock.now + 4)):
        pass


async def test_an_encoding_that_fails_tells_its_caller_and_leaves(encoders):
    """Nothing is learned from it."""

    def fail():
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        await encode(encoders, fail)
    assert not encoders._places
