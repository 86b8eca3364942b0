"""What several want of the sampler, and some of them no longer, where the queue is full of it."""

import asyncio
import threading
import time
from dataclasses import replace

import pytest

from models.repository import Repository
from models.testkit import promote_tiny, tiny_signature
from serving.batcher import Batcher
from serving.cache_memory import ByteLRU, MemoryCache
from serving.loading import load
from serving.orders import Order
from serving.sampler import Sampler
from serving.schedule import Deadline, Schedule
from tests.serving.kit import Log, until

ALL, SOME = 100, 30


class Held:
    """A network that waits until it is let go, and counts its images."""

    def __init__(self, network):
        self._network = network
        self.gate = threading.Event()
        self.images = 0

    def __getattr__(self, name):
        return getattr(self._network, name)

    def generate(self, z, class_idx=None):
        assert self.gate.wait(20)
        self.images += len(z)
        return self._network.generate(z, class_idx)


@pytest.mark.parametrize("shape", [(8, 8, 1), (64, 64, 3)], ids=["kept on the event loop", "kept on a thread"])
async def test_who_joined_is_not_refused_because_another_left(tmp_path, shape):
    """Who left takes along what only it wanted, and its place is the place of those who stay."""
    repository = Repository(tmp_path)
    model = load(repository, promote_tiny(repository, "tiny", signature=tiny_signature(shape=shape)))
    network = Held(model.generator)
    model, log = replace(model, generator=network), Log()
    batcher = Batcher(Schedule(max_queue_images=ALL + 1, max_batch_images=8, engines=1), observer=log)
    sampler = Sampler(batcher, MemoryCache(ByteLRU(max_bytes=1 << 27, ttl_seconds=99.0), log), None)

    def ask(first, count):
        order = Order(model, tuple(range(first, first + count)), None, None, True)
        return asyncio.create_task(sampler.sample(order, Deadline(time.monotonic() + 20)))

    try:
        one = ask(1_000, 1)
        await until(lambda: batcher.schedule.idle_engines == 0)
        first = ask(0, ALL)
        await until(lambda: batcher.schedule.waiting == ALL)
        second = ask(0, SOME)
        for _ in range(5):  # it has joined by then
            await asyncio.sleep(0)
        first.cancel()
        await until(lambda: batcher.schedule.waiting == SOME)
        network.gate.set()
        assert len((await second).samples) == SOME
        await one
    finally:
        network.gate.set()
        await sampler.close()
    assert log.rejections == []
    assert network.images == 1 + SOME
