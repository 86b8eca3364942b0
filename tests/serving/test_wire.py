"""The engine's process and a worker's link to it, over a real socket in one process; what crosses, and what is kept."""

import asyncio
import contextlib
import gc
import threading
import time
from dataclasses import fields, replace

import msgspec
import numpy as np
import pytest
import zmq

from models.errors import GenserveError, Invalid, LoadError, NotFound
from models.repository import Repository
from models.testkit import promote_tiny
from serving import wire
from serving.answers import encode_samples
from serving.backend import create_backend
from serving.channel import connect
from serving.errors import DeadlineExceeded, NotReady, Overloaded, QueueFull
from serving.handles import Handles
from serving.hub import Hub
from serving.loading import LiveModel, load
from serving.metrics import Metrics
from serving.orders import LatentOrder, Order
from serving.remote import Link, RemoteSampler
from serving.schedule import Deadline
from serving.settings import Settings
from tests.serving.kit import until


class GatedModel:
    """A network that waits for its gate."""

    def __init__(self, generator, gate):
        self._generator = generator
        self._gate = gate
        self.providers = generator.providers
        self.signature = generator.signature

    def generate(self, z, class_idx=None):
        assert self._gate.wait(20)
        return self._generator.generate(z, class_idx)


@contextlib.asynccontextmanager
async def connected(backend, folder, workers=1):
    """A hub over a backend that has looked at its repository, and links to it."""
    context = zmq.Context()
    end = connect(context, zmq.ROUTER, 1 << 24)
    end.setsockopt(zmq.ROUTER_MANDATORY, 1)
    end.bind(f"ipc://{folder}/engine")
    hub = Hub(backend, end)
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(context.destroy, linger=0)
        stack.callback(hub.close)
        await stack.enter_async_context(backend.running())
        await until(lambda: backend.live.ready)
        links = []
        for number in range(workers):
            other = connect(context, zmq.DEALER, 1 << 24)
            other.setsockopt(zmq.IDENTITY, b"w%d" % number)
            other.connect(f"ipc://{folder}/engine")
            hub.expect(b"w%d" % number)
            links.append(Link(other, Metrics()))
            await stack.enter_async_context(links[-1].running())
        await until(lambda: all(link.models.ready for link in links))
        yield hub, links


def later(seconds=20.0):
    return Deadline(time.monotonic() + seconds)


@pytest.fixture
def backend(zoo, settings):
    return create_backend(settings, zoo)


async def test_samples_are_those_of_the_engines_process(backend, tmp_path):
    """By seeds and by latents, images and vectors, with classes and without."""
    async with connected(backend, tmp_path) as (_, [link]):
        sampler = RemoteSampler(link, None)
        for name, classes in (("tiny", None), ("classes", (3, 1)), ("classes", None), ("vector", None)):
            here, there = await link.models.get(name), await backend.live.get(name)
            for field in fields(LiveModel):
                if field.name not in ("generator", "speed"):  # those are the engines' business
                    assert getattr(here, field.name) == getattr(there, field.name), field.name
            assert (here.provider, here.form) == (there.provider, there.form)
            remote = await sampler.sample(Order(here, (7, 8), classes, 0.5, True), later())
            local = await backend.sampler.sample(Order(there, (7, 8), classes, 0.5, True), later())
            assert (remote.samples == local.samples).all()
            assert remote.samples.dtype == local.samples.dtype
            assert (remote.seeds, remote.class_idx) == (local.seeds, local.class_idx)
            assert (remote.cache, local.cache) == ("miss", "hit")
            z = np.random.RandomState(1).standard_normal((5, here.manifest.z_dim)).astype(np.float32)
            rows = np.arange(5) % 4 if here.manifest.classes else None
            remote = await sampler.sample_latents(LatentOrder(here, z, rows), later())
            local = await backend.sampler.sample_latents(LatentOrder(there, z, rows), later())
            assert (remote.samples == local.samples).all()
            assert (remote.seeds, remote.class_idx, remote.cache) == (None, local.class_idx, "bypass")


async def test_what_was_made_ahead_comes_with_its_own_seed_and_bytes(zoo, settings, tmp_path):
    """An unseeded image from the stock is the one of the seed that it says, and is not encoded again."""
    backend = create_backend(msgspec.structs.replace(settings, stock_images=4), zoo)
    async with connected(backend, tmp_path) as (_, [link]):
        sampler, model = RemoteSampler(link, None), await link.models.get("tiny")

        async def unseeded():
            return await sampler.sample(Order(model, (1,), None, None, False), later())

        drawn = await unseeded()
        async with asyncio.timeout(20):
            while drawn.cache != "stock":
                drawn = await unseeded()
        again = await sampler.sample(Order(model, drawn.seeds, None, None, True), later())
        assert (drawn.samples == again.samples).all()
        assert drawn.png == encode_samples(model, again, "png", truncation=None).body
        assert again.png is None


async def test_nothing_is_made_ahead_while_workers_are_busy(zoo, settings, tmp_path):
    """With encoding, or with requests that need no engine."""
    backend = create_backend(settings, zoo)
    async with connected(backend, tmp_path, workers=2) as (hub, [one, other]):
        assert not hub.busy
        one.tell_encoding(True)
        await until(lambda: hub.busy)
        one.tell_encoding(True)
        one.tell_encoding(False)
        await until(lambda: not hub.busy)
        other._loop_share.look = lambda: 0.5
        await hub.exposition()
        await until(lambda: hub.busy)


async def test_models_are_found_as_in_the_engines_process(backend, tmp_path):
    """The default, champions, versions on demand, and errors with their fields."""
    async with connected(backend, tmp_path) as (_, [link]):
        models = link.models
        assert (await models.get(None)).version == (await backend.live.get(None)).version
        assert (await models.get("tiny@champion")) is (await models.get("tiny@2"))
        assert {str(model.version) for model in models.loaded} == {str(m.version) for m in backend.live.loaded}
        old = await models.get("tiny@1")
        assert old.version.number == 1
        await until(lambda: old in models.loaded)
        for reference in ("tiny@", "nope", "tiny@9", "tiny@candidate"):
            with pytest.raises(NotFound) as error:
                await models.get(reference)
            assert error.value.field == "model"


@pytest.mark.parametrize(
    "error",
    [
        Invalid("wrong", field="seed"),
        NotFound("no such"),
        LoadError("bad"),
        QueueFull(asked=3, waiting=4, limit=5, retry_after_seconds=2.5),
        DeadlineExceeded("late"),
        NotReady("soon", retry_after_seconds=7.0, field="model"),
    ],
)
def test_errors_cross_as_what_they_are(error):
    """Class, text, field, Retry-After."""
    failed = wire.decode_from_engine(wire.encode(wire.failed_of(3, error)))
    again = wire.error_of(failed)
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)


def test_an_unexpected_error_is_none_of_ours():
    """A client is told nothing of it."""
    again = wire.error_of(wire.failed_of(3, KeyError("x")))
    assert not isinstance(again, GenserveError)
    assert "KeyError" in str(again)


async def test_a_full_queue_is_the_whole_servers(zoo, tmp_path):
    """Two workers share one bound; the error says when to come again."""
    gate = threading.Event()
    settings = Settings(
        default_model="tiny",
        threads=1,
        max_images=8,
        max_queue_images=8,
        max_batch_size=1,
        cache_bytes=0,
        stock_images=0,
    )
    backend = create_backend(settings, zoo, loader=lambda version: gated(zoo, version, gate))
    gate.set()
    async with connected(backend, tmp_path, workers=2) as (_, links):
        model = await links[0].models.get("tiny")
        other = await links[1].models.get("tiny")
        first, second = (RemoteSampler(link, None) for link in links)
        gate.clear()
        order = Order(model, tuple(range(8)), None, None, True)
        running = asyncio.ensure_future(first.sample(order, later()))
        await until(lambda: backend.sampler._batcher.schedule.waiting == 7)
        with pytest.raises(QueueFull) as error:
            await second.sample(Order(other, tuple(range(100, 108)), None, None, True), later())
        assert error.value.retry_after >= 1
        gate.set()
        assert len((await running).samples) == 8


def gated(repository, version, gate):
    model = load(repository, version)
    return replace(model, generator=GatedModel(model.generator, gate))


async def test_who_leaves_takes_his_order_out_of_the_queue(zoo, tmp_path):
    """A caller that is cancelled, and a worker whose process ended."""
    gate = threading.Event()
    gate.set()
    settings = Settings(default_model="tiny", threads=1, max_batch_size=1, cache_bytes=0, stock_images=0)
    backend = create_backend(settings, zoo, loader=lambda version: gated(zoo, version, gate))
    async with connected(backend, tmp_path, workers=2) as (hub, links):
        gate.clear()
        schedule = backend.sampler._batcher.schedule
        tasks = []
        for i, link in enumerate(links):
            order = Order(await link.models.get("tiny"), tuple(range(10 * i, 10 * i + 9)), None, None, True)
            tasks.append(asyncio.ensure_future(RemoteSampler(link, None).sample(order, later())))
        await until(lambda: schedule.waiting >= 16)
        tasks[0].cancel()
        await until(lambda: schedule.waiting <= 9)
        hub.ended(b"w1")
        await until(lambda: schedule.waiting == 0)
        gate.set()
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert not links[0]._asked


async def test_two_workers_asking_for_one_seed_make_it_once(backend, tmp_path):
    """Flights are the whole server's."""
    async with connected(backend, tmp_path, workers=2) as (_, links):
        orders = [Order(await link.models.get("tiny"), (5, 6, 7), None, None, True) for link in links]
        both = await asyncio.gather(
            *(RemoteSampler(link, None).sample(order, later()) for link, order in zip(links, orders, strict=True))
        )
        assert (both[0].samples == both[1].samples).all()
        text = backend.metrics.exposition().decode()
        assert 'genserve_images_generated_total{model="tiny"} 3.0' in text


async def test_a_replaced_model_is_kept_for_requests_that_hold_it_and_no_longer(tmp_path):
    """An order for the old champion is answered by it after the promotion; then its memory goes."""
    repository = Repository(tmp_path / "models")
    promote_tiny(repository, seed=1)
    backend = create_backend(Settings(threads=1, poll_seconds=600), repository)
    async with connected(backend, tmp_path, workers=2) as (hub, links):
        old = await links[0].models.get("tiny")
        promote_tiny(repository, seed=2)
        await backend.live.refresh()
        await until(lambda: all(link.models.champion("tiny").version.number == 2 for link in links))
        drawn = await RemoteSampler(links[0], None).sample(Order(old, (7,), None, None, True), later())
        z_of_old = await RemoteSampler(links[0], None).sample(Order(old, (7,), None, None, False), later())
        new = await RemoteSampler(links[0], None).sample(
            Order(await links[0].models.get("tiny"), (7,), None, None, True), later()
        )
        assert (drawn.samples == z_of_old.samples).all()
        assert (drawn.samples != new.samples).any()
        for link in links:
            link._report(0)
        await until(lambda: links[0].models.replaced() != ())
        assert len(hub._handles) == 2
        del old
        gc.collect()
        for link in links:
            link._report(0)
        await until(lambda: len(hub._handles) == 1)


def test_a_handle_outlives_nobody():
    """Not let go of while a worker has not seen the new snapshot, or holds it; then it is."""

    class Model:
        pass

    handles, old, new = Handles(), Model(), Model()
    number = handles.handle(old)
    assert handles.handle(old) == number
    handles.retire_others([new], snapshot=5)
    handles.release(seen=4, held=())
    assert handles.model(number) is old
    handles.release(seen=5, held=(number,))
    assert handles.model(number) is old
    handles.release(seen=5, held=())
    assert handles.model(number) is None
    assert handles.model(handles.handle(new)) is new
    handles.retire_others([], snapshot=6)
    handles.retire_others([new], snapshot=7)
    handles.release(seen=7, held=())
    assert handles.model(handles.handle(new)) is new


async def test_what_is_under_way_to_a_worker_is_bounded(backend, tmp_path, monkeypatch):
    """One order always passes; with others, only up to the bound."""
    monkeypatch.setattr("serving.remote.MAX_OWED_BYTES", 100)
    async with connected(backend, tmp_path) as (_, [link]):
        sampler = RemoteSampler(link, None)
        model = await link.models.get("tiny")
        results = await asyncio.gather(
            *(sampler.sample(Order(model, (seed,) * 4, None, None, True), later()) for seed in range(3)),
            return_exceptions=True,
        )
        assert [type(result).__name__ for result in results] == ["Drawn", "Overloaded", "Overloaded"]
        assert isinstance(results[1], Overloaded)
        await sampler.sample(Order(model, (9,), None, None, True), later())


async def test_a_scrape_asks_every_worker_and_waits_for_none_that_sleeps(backend, tmp_path, monkeypatch):
    """What they counted until now is in it; a silent one is shown as it was."""
    monkeypatch.setattr("serving.hub.SCRAPE_SECONDS", 2.0)
    async with connected(backend, tmp_path, workers=2) as (hub, links):
        for link in links:
            link._metrics.served("tiny", 3)
        assert b'genserve_images_served_total{model="tiny"} 6.0' in await hub.exposition()
        for link in links:
            link._metrics.served("tiny", 1)
        links[1]._report = lambda number: None
        assert b'genserve_images_served_total{model="tiny"} 7.0' in await links[0].scrape()
        assert not hub._collects


async def test_draining_and_stopping_reach_workers(backend, tmp_path, monkeypatch):
    """Also one that comes up later."""
    monkeypatch.setattr("serving.remote.REPORT_SECONDS", 600.0)
    async with connected(backend, tmp_path, workers=2) as (hub, links):
        seen = []
        for link in links:
            link.obey(drain=lambda: seen.append("drain"), stop=seen.append)
        assert hub.up == 2
        assert hub.ready
        hub.drain()
        await until(lambda: seen == ["drain", "drain"])
        assert not hub.ready
        hub.stop(force=False)
        await until(lambda: seen[2:] == [False, False])
        links[0]._report(0)
        await until(lambda: seen[4:] == [False])


async def test_a_worker_is_not_ready_without_the_engines_process(backend, tmp_path):
    """One that says nothing any more cannot make samples."""
    async with connected(backend, tmp_path) as (_, [link]):
        assert link.models.ready
        link._heard -= 6
        assert not link.models.ready


async def test_a_stranger_on_the_socket_is_not_heard(backend, tmp_path):
    """Only workers that were announced are answered."""
    async with connected(backend, tmp_path) as (hub, [link]):
        context = zmq.Context.instance()
        stranger = connect(context, zmq.DEALER, 1 << 24)
        stranger.setsockopt(zmq.IDENTITY, b"stranger")
        stranger.connect(f"ipc://{tmp_path}/engine")
        stranger.send(wire.encode(wire.Scrape(1)))
        assert b"genserve_workers" in await link.scrape()
        assert hub.up == 1
        assert not stranger.poll(100)
        stranger.close(linger=0)
