"""The batcher, with networks that run when told to."""

import asyncio
import threading
import time

import numpy as np
import pytest

from models.latents import Drawn
from serving.batcher import WORTH_WAKING, Batcher
from serving.errors import DeadlineExceeded, QueueFull, QueueTooLong
from serving.schedule import Deadline, Schedule
from serving.speed import Speed
from tests.serving.kit import Gated, Log, until

NEVER = Deadline(1e12)


class Clock:
    """Stands still until it is set."""

    now = 0.0

    def __call__(self):
        return self.now


def made(log, *, engines=1, clock=time.monotonic):
    return Batcher(Schedule(max_queue_images=64, max_batch_images=16, engines=engines), observer=log, clock=clock)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def log():
    return Log()


@pytest.fixture
def network():
    gated = Gated()
    yield gated
    gated.release(1000)


@pytest.fixture
def batcher(log, network, clock):
    one = made(log, clock=clock)
    yield one
    network.release(1000)
    one.close()


class Values:
    """A source of given values, which knows what was drawn, and on which threads."""

    def __init__(self, *values, error=None):
        self.z = np.array(values, np.float32)[:, None]
        self.drawn = []
        self.threads = set()
        self.error = error

    def __call__(self, start, stop):
        self.drawn += range(start, stop)
        self.threads.add(threading.get_ident())
        if self.error is not None:
            raise self.error
        return Drawn(self.z[start:stop], None)


def ask(batcher, network, *values, deadline=NEVER, source=None):
    source = source or Values(*values)
    return asyncio.create_task(batcher.generate(network, source, len(source.z), deadline=deadline))


async def busy(batcher, network):
    """Occupy the only engine."""
    task = ask(batcher, network, 0)
    await until(lambda: network.batches)
    return task


async def test_an_idle_engine_starts_at_once_and_batches_form_while_it_is_busy(batcher, network, log):
    """The first image runs alone; the five that come meanwhile run together; each caller gets its own."""
    tasks = [await busy(batcher, network)]
    tasks += [ask(batcher, network, i) for i in range(1, 6)]
    await until(lambda: batcher.schedule.waiting == 5)
    network.release(2)
    answers = await asyncio.gather(*tasks)
    assert [float(answer.samples[0, 0]) for answer in answers] == [0, 10, 20, 30, 40, 50]
    assert log.batches == [1, 5]


async def test_an_engine_takes_its_next_batch_while_the_event_loop_is_busy(batcher, network):
    """Nothing turns the loop here, and yet two batches run."""
    tasks = [await busy(batcher, network), ask(batcher, network, 1)]
    await until(lambda: batcher.schedule.waiting == 1)
    network.release(2)
    began = time.monotonic()
    while len(network.batches) < 2:  # on purpose without await
        assert time.monotonic() < began + 20
    assert not tasks[0].done()
    await asyncio.gather(*tasks)


async def test_latents_are_drawn_on_an_engine_s_thread_and_only_when_they_run(batcher, network):
    """What waits, is refused or leaves has drawn nothing; each image is drawn once."""
    first = await busy(batcher, network)
    waiting, leaving, refused = Values(1), Values(2), Values(*range(63))
    tasks = [ask(batcher, network, source=source) for source in (waiting, leaving)]
    await until(lambda: batcher.schedule.waiting == 2)
    with pytest.raises(QueueFull):
        await ask(batcher, network, source=refused)
    tasks[1].cancel()
    await asyncio.wait(tasks[1:])
    assert (waiting.drawn, leaving.drawn, refused.drawn) == ([], [], [])
    network.release(2)
    await asyncio.gather(first, tasks[0])
    assert (waiting.drawn, leaving.drawn) == ([0], [])
    assert threading.get_ident() not in waiting.threads


async def test_a_caller_who_leaves_does_not_disturb_the_others(batcher, network, log):
    """Its queued images never run, and its batch-mates are answered."""
    tasks = [await busy(batcher, network), *(ask(batcher, network, i) for i in range(1, 5))]
    await until(lambda: batcher.schedule.waiting == 4)
    tasks[2].cancel()
    await asyncio.wait([tasks[2]])
    network.release(2)
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(answers[2], asyncio.CancelledError)
    assert [float(answers[i].samples[0, 0]) for i in (0, 1, 3, 4)] == [0, 10, 30, 40]
    assert sorted(network.batches[1][:, 0]) == [1, 3, 4]


async def test_a_caller_may_leave_while_its_batch_runs(batcher, network):
    """The running batch ends, its other callers are answered, and the engine takes the next one."""
    first = await busy(batcher, network)
    leaving, staying = ask(batcher, network, 1), ask(batcher, network, 2)
    await until(lambda: batcher.schedule.waiting == 2)
    network.release()
    await until(lambda: len(network.batches) == 2)
    leaving.cancel()
    await asyncio.wait([leaving])
    network.release(2)
    assert float((await staying).samples[0, 0]) == 20
    assert float((await ask(batcher, network, 3)).samples[0, 0]) == 30
    await first


async def test_an_error_reaches_only_the_callers_of_its_batch(batcher, network):
    """The next batch is another network's and runs well; the failed job's remaining pieces do not run."""
    broken = Gated(error=ValueError("broken"))
    first = await busy(batcher, network)
    bad = ask(batcher, broken, *range(40))
    also = ask(batcher, broken, 1)
    good = ask(batcher, network, 5)
    await until(lambda: batcher.schedule.waiting == 42)
    network.release(2)
    broken.release(10)
    for task in (bad, also):
        with pytest.raises(ValueError, match="broken"):
            await task
    assert float((await good).samples[0, 0]) == 50
    await first
    assert len(broken.batches) == 2
    assert batcher.schedule.waiting == 0


async def test_an_error_of_a_source_reaches_only_its_own_caller(batcher, network, log):
    """The others of its batch are answered, and it counts no image."""
    first = await busy(batcher, network)
    bad = ask(batcher, network, source=Values(1, 2, error=ValueError("no latents")))
    good = ask(batcher, network, 3)
    await until(lambda: batcher.schedule.waiting == 3)
    network.release(5)
    with pytest.raises(ValueError, match="no latents"):
        await bad
    assert float((await good).samples[0, 0]) == 30
    await first
    assert sum(log.batches) == 2


async def test_a_caller_s_own_fault_is_not_the_others(batcher, network, log):
    """One of a batch fails when it is told, and so does who is shown what ran: the others are answered."""
    batcher.tap = _faulty
    first = await busy(batcher, network)
    batcher.submit(network, Values(1), 1, deadline=NEVER, done=_faulty)
    good = ask(batcher, network, 3)
    await until(lambda: batcher.schedule.waiting == 2)
    network.release(5)
    assert float((await good).samples[0, 0]) == 30
    await first
    assert log.batches == [1, 2]


def _faulty(*told):
    raise ValueError("cannot be told")


async def test_who_waits_decides_what_is_counted(batcher, network, log):
    """Images that are made ahead count as made, and neither as waiting nor as refused; what nobody waits for, not."""
    network.release(10)
    asked = batcher._asked
    for purpose, counted in (("ahead", [1]), ("background", [1])):
        await batcher.generate(network, Values(1), 1, deadline=NEVER, purpose=purpose)
        assert (log.batches, log.waits) == (counted, [])
        with pytest.raises(DeadlineExceeded):
            await batcher.generate(network, Values(1), 1, deadline=Deadline(0.0), purpose=purpose)
    assert log.rejections == []
    assert batcher._asked == asked
    await batcher.generate(network, Values(1), 1, deadline=NEVER)
    assert (log.batches, len(log.waits)) == ([1, 1], 1)


async def test_a_large_request_is_cut_and_put_together_in_order(batcher, network, log):
    """40 images in batches of at most 16."""
    network.release(10)
    answer = await ask(batcher, network, *range(40))
    assert answer.samples[:, 0].tolist() == [10.0 * i for i in range(40)]
    assert max(log.batches) <= 16
    assert sum(log.batches) == 40


async def test_what_is_too_much_is_refused_at_once(batcher, network, log):
    """The bound is in images; the refusal says when to come back."""
    tasks = [await busy(batcher, network), ask(batcher, network, *range(60))]
    await until(lambda: batcher.schedule.waiting == 60)
    with pytest.raises(QueueFull, match="60 images are waiting and 5 more would pass the limit of 64") as error:
        await ask(batcher, network, *range(5))
    assert error.value.retry_after >= 1
    assert log.rejections == [(5, "full")]
    network.release(100)
    await asyncio.gather(*tasks)


async def test_who_would_be_late_is_refused_at_once(batcher, network, log):
    """Thirty-one seconds of work run and wait; somebody has 32 for three seconds' more."""
    network.speed = Speed(0.0, 1.0)
    tasks = [await busy(batcher, network)]
    tasks.append(ask(batcher, network, *range(30), deadline=Deadline(31.5)))
    await until(lambda: batcher.schedule.waiting == 30)
    assert batcher.wait_seconds == 31
    with pytest.raises(QueueTooLong) as error:
        await ask(batcher, network, 1, 2, 3, deadline=Deadline(32.0))
    assert error.value.retry_after == 3  # 2.02
    assert log.rejections == [(3, "wait")]
    network.release(100)
    await asyncio.gather(*tasks)


async def test_what_cannot_be_in_time_is_not_run(batcher, network, log, clock):
    """Too late at once, and too late when the queue is reached: 504, and the network never sees it."""
    first = await busy(batcher, network)
    with pytest.raises(DeadlineExceeded):
        await ask(batcher, network, 7, deadline=Deadline(0.0))
    late = ask(batcher, network, 8, 9, deadline=Deadline(60.0))
    await until(lambda: batcher.schedule.waiting == 2)
    clock.now = 59.9999
    network.release(5)
    with pytest.raises(DeadlineExceeded):
        await late
    await first
    assert log.rejections == [(1, "deadline"), (2, "deadline")]
    assert len(network.batches) == 1


async def test_all_engines_work_at_once(log, network, monkeypatch):
    """Two engines run two halves of one request at the same time, where there are cores for them."""
    monkeypatch.setattr("serving.batcher.available_cores", lambda: 2)
    batcher = made(log, engines=2)
    task = ask(batcher, network, *range(8))
    await until(lambda: len(network.batches) == 2)
    network.release(2)
    assert (await task).samples[:, 0].tolist() == [10.0 * i for i in range(8)]
    assert log.batches == [4, 4]
    batcher.close()


async def test_the_speed_is_learned_from_what_runs(log, network):
    """From half a second to what a network that does nothing takes."""
    batcher = made(log)
    network.speed = Speed(0.5, 0.5)
    network.release(1000)
    for _ in range(200):
        await ask(batcher, network, 1, 2)
    assert network.speed.seconds(2) < 0.1
    batcher.close()


async def test_what_comes_together_runs_together(batcher, network, log):
    """Ten requests of one turn of the event loop are one batch: engines are woken when all of them wait."""
    network.release(10)
    tasks = [ask(batcher, network, float(i)) for i in range(10)]
    await asyncio.gather(*tasks)
    assert log.batches == [10]


async def test_beside_a_busy_event_loop_an_engine_wakes_for_several_images(log, network, clock):
    """Two cores, of which the event loop takes one: the second engine sleeps until more than a batch waits."""
    two = made(log, engines=2, clock=clock)
    two._cores, two._share.look = 2, lambda: 1.0
    tasks = [ask(two, network, 0.0)]
    await until(lambda: len(network.batches) == 1)
    tasks += [ask(two, network, float(i)) for i in range(WORTH_WAKING)]
    await until(lambda: two.schedule.waiting == WORTH_WAKING and not two._calling)
    assert len(network.batches) == 1
    tasks += [ask(two, network, float(i)) for i in range(2)]
    await until(lambda: len(network.batches) == 2)
    network.release(1000)
    await asyncio.gather(*tasks)
    two.close()


@pytest.mark.parametrize("where", ["observe", "take"])
async def test_an_engine_outlives_a_fault_of_the_policy(batcher, network, monkeypatch, where):
    """It raises once, when a batch has ended: that batch is answered, and so is what comes afterwards."""
    first = await busy(batcher, network)
    owner = network.speed if where == "observe" else batcher.schedule
    proper, faults = getattr(owner, where), []

    def faulty(*args):
        if not faults:
            faults.append(where)
            raise ValueError("cannot convert float NaN to integer")
        return proper(*args)

    monkeypatch.setattr(owner, where, faulty)
    network.release(1000)
    async with asyncio.timeout(20):
        assert float((await first).samples[0, 0]) == 0
        assert float((await ask(batcher, network, 7)).samples[0, 0]) == 70
    assert faults == [where]
