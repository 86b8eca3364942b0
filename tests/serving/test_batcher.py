"""The batcher, with networks that run when told to."""

import asyncio
import threading

import numpy as np
import pytest

from serving import batcher as batcher_module
from serving.batcher import Batcher
from serving.errors import DeadlineExceeded, QueueFull
from serving.schedule import Deadline, Schedule
from tests.serving.kit import Gated, Log, until

NEVER = Deadline(1e12)


@pytest.fixture
def log():
    return Log()


@pytest.fixture
def batcher(log):
    made = Batcher(Schedule(max_queue_images=64, max_batch_images=16), engines=1, observer=log)
    yield made
    made.close()


@pytest.fixture
def network(batcher):
    made = Gated()
    yield made
    made.release(1000)


def latents(*values):
    return np.array(values, np.float32)[:, None]


def ask(batcher, network, *values, deadline=NEVER):
    return asyncio.create_task(batcher.generate(network, latents(*values), None, deadline=deadline))


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
    bad = asyncio.create_task(batcher.generate(broken, np.zeros((40, 1), np.float32), None, deadline=NEVER))
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
    assert len(broken.batches) == 1
    assert batcher.schedule.waiting == 0


async def test_a_large_request_is_cut_and_put_together_in_order(batcher, network, log):
    """40 images in batches of at most 16."""
    network.release(10)
    answer = await ask(batcher, network, *range(40))
    assert answer.samples[:, 0].tolist() == [10.0 * i for i in range(40)]
    assert max(log.batches) <= 16
    assert sum(log.batches) == 40


async def test_large_parts_are_put_together_off_the_event_loop(batcher, network, monkeypatch):
    """40 samples of 16 KB: copying them is no work for the thread that answers everybody."""
    threads = []
    joined = batcher_module._joined

    def record(parts):
        threads.append(threading.get_ident())
        return joined(parts)

    monkeypatch.setattr(batcher_module, "_joined", record)
    network.release(10)
    z = np.arange(40 * 4096, dtype=np.float32).reshape(40, 4096)
    answer = await batcher.generate(network, z, None, deadline=NEVER)
    assert (answer.samples == z * 10).all()
    assert len(threads) > len(network.batches)  # one for each batch's latents, and one for the samples
    assert threading.get_ident() not in threads


async def test_what_is_too_much_is_refused_at_once(batcher, network, log):
    """The bound is in images; the refusal says when to come back."""
    tasks = [await busy(batcher, network), ask(batcher, network, *range(60))]
    await until(lambda: batcher.schedule.waiting == 60)
    with pytest.raises(QueueFull, match="60 images are waiting and 5 more would pass the limit of 64") as error:
        await batcher.generate(network, latents(*range(5)), None, deadline=NEVER)
    assert error.value.retry_after >= 1
    assert log.rejections == [(5, "full")]
    network.release(100)
    await asyncio.gather(*tasks)


async def test_what_cannot_start_in_time_is_not_run(batcher, network, log):
    """The queue is reached after the deadline: 504, and the network never sees it."""
    first = await busy(batcher, network)
    late = ask(batcher, network, 7, deadline=Deadline(0.0))
    await until(lambda: batcher.schedule.waiting == 1)
    network.release(5)
    with pytest.raises(DeadlineExceeded):
        await late
    await first
    assert log.rejections == [(1, "deadline")]
    assert len(network.batches) == 1


async def test_all_engines_work_at_once(log):
    """Two engines run two halves of one request at the same time."""
    batcher, network = Batcher(Schedule(max_queue_images=64, max_batch_images=16), engines=2, observer=log), Gated()
    task = ask(batcher, network, *range(8))
    await until(lambda: len(network.batches) == 2)
    network.release(2)
    assert (await task).samples[:, 0].tolist() == [10.0 * i for i in range(8)]
    assert log.batches == [4, 4]
    batcher.close()
