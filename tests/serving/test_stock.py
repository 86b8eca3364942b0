"""Images made ahead: through the application, and alone."""

import asyncio
import contextlib
import time
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from models.latents import Drawn
from models.repository import Repository
from models.testkit import promote_tiny, tiny_signature
from serving.app import create_app
from serving.batcher import Batcher
from serving.loading import load
from serving.metrics import Metrics
from serving.schedule import Deadline, Schedule
from serving.stock import Stock
from tests.serving.kit import Gated, Log, field_of, running, until

NEVER = Deadline(1e12)


def stock_of(app, model):
    line = f'genserve_stock_images{{model="{model}"}} '
    text = app.service.metrics.exposition().decode()
    return next((float(row.rsplit(" ", 1)[1]) for row in text.splitlines() if row.startswith(line)), 0.0)


def encodings(app):
    """How many times the time of encoding was noted."""
    line = 'genserve_stage_duration_seconds_count{stage="encode"} '
    text = app.service.metrics.exposition().decode()
    return next((float(row.removeprefix(line)) for row in text.splitlines() if row.startswith(line)), 0.0)


@pytest.fixture
def stocked(settings):
    return msgspec.structs.replace(settings, stock_images=8)


@pytest.fixture
def two(tmp_path):
    """A grey model and one with classes, in a repository that may change."""
    repository = Repository(tmp_path)
    promote_tiny(repository, "tiny", seed=0)
    promote_tiny(repository, "classes", signature=tiny_signature(classes=4, shape=(8, 6, 3)))
    return repository


async def shown(predicate):
    """Looks seldom: nothing is made ahead while the event loop is busy."""
    await until(predicate, pause_seconds=0.03)


async def full(app, **images):
    await shown(lambda: {name: stock_of(app, name) for name in images} == images)


class Watched(Batcher):
    """Counts how often somebody looks whether there is anything to spare."""

    looks = 0

    @property
    def spare(self):
        self.looks += 1
        return super().spare


class Failing:
    """A network that fails while its name is in a set."""

    def __init__(self, network, name, bad):
        self._network, self._name, self._bad = network, name, bad

    def __getattr__(self, name):
        return getattr(self._network, name)

    def generate(self, z, class_idx=None):
        if self._name in self._bad:
            raise MemoryError("no room")
        return self._network.generate(z, class_idx)


class Inverted:
    """A network whose memory has become wrong."""

    def __init__(self, network):
        self._network = network

    def __getattr__(self, name):
        return getattr(self._network, name)

    def generate(self, z, class_idx=None):
        return 255 - self._network.generate(z, class_idx)


def _zeros(start, stop):
    return Drawn(np.zeros((stop - start, 1), np.float32), None)


async def test_a_request_without_a_seed_is_answered_from_the_stock(two, stocked):
    """As a PNG and in another format, with a class where there are any; its seed gives the same bytes again."""
    app = create_app(stocked, two)
    async with running(app) as client:
        await full(app, tiny=4, classes=4)
        for wish in ({"model": "tiny"}, {"model": "classes"}, {"model": "classes", "format": "json"}):
            answer = await client.post("/sample", json=wish)
            assert answer.headers["x-cache"] == "stock"
            again = await client.post("/sample", json={**wish, "seed": int(answer.headers["x-seed"])})
            assert again.content == answer.content
            assert again.headers["x-cache"] != "stock"
        text = app.service.metrics.exposition().decode()
        assert 'genserve_stock_served_total{model="classes"} 2.0' in text


async def test_answers_by_the_same_words_count_like_the_first(two, stocked):
    """Each is the image of the seed that it says, handed out once, served once, and missing on the shelf."""
    app = create_app(stocked, two)
    async with running(app) as client:
        await full(app, tiny=4, classes=4)
        answers = [await client.post("/sample", json={"model": "tiny"}) for _ in range(3)]
        assert {answer.headers["x-cache"] for answer in answers} == {"stock"}
        assert {answer.headers["content-type"] for answer in answers} == {"image/png"}
        await asyncio.sleep(0)  # counted after the answer
        text = app.service.metrics.exposition().decode()
        assert 'genserve_stock_served_total{model="tiny"} 3.0' in text
        assert 'genserve_images_served_total{model="tiny"} 3.0' in text
        for answer in answers:
            again = await client.post("/sample", json={"model": "tiny", "seed": int(answer.headers["x-seed"])})
            assert again.content == answer.content
        await shown(lambda: stock_of(app, "tiny") + stock_of(app, "classes") == 8)


async def test_no_image_is_handed_out_twice_and_the_stock_is_filled_again(two, stocked):
    """Forty requests, forty seeds."""
    app = create_app(stocked, two)
    async with running(app) as client:
        await full(app, tiny=4, classes=4)
        answers = await asyncio.gather(*(client.post("/sample", json={}) for _ in range(40)))
        assert len({answer.headers["x-seed"] for answer in answers}) == 40
        assert sum(answer.headers["x-cache"] == "stock" for answer in answers) >= 4
        await shown(lambda: stock_of(app, "tiny") + stock_of(app, "classes") == 8)


@pytest.mark.parametrize("wish", [{"num_images": 2}, {"class_idx": 1}, {"truncation": 0.5}, {"seed": 3}])
async def test_who_asks_for_anything_in_particular_is_not_answered_from_the_stock(two, stocked, wish):
    """Several images, a class, a truncation, a seed."""
    app = create_app(stocked, two)
    async with running(app) as client:
        await full(app, tiny=4, classes=4)
        answer = await client.post("/sample", json={"model": "classes", **wish})
        assert answer.status_code == 200
        assert answer.headers["x-cache"] != "stock"


async def test_the_stock_follows_demand(two, stocked):
    """After a hundred requests for one model nearly all of the stock is of that one, and never more than the bound."""
    app = create_app(stocked, two)
    async with running(app) as client:
        await full(app, tiny=4, classes=4)
        for _ in range(100):
            await client.post("/sample", json={"model": "tiny"})
            assert stock_of(app, "tiny") + stock_of(app, "classes") <= 8
        await shown(lambda: stock_of(app, "tiny") >= 7)


async def test_the_stock_is_bounded_in_bytes_too(tmp_path, stocked, monkeypatch):
    """Large images have fewer places, by their own size, even where small ones took them all before."""
    monkeypatch.setattr("serving.stock.READY_BYTES", 0)
    monkeypatch.setattr("serving.stock.MAX_BYTES", 2 * 1152)  # for samples and for answers
    repository = Repository(tmp_path)
    promote_tiny(repository, signature=tiny_signature(shape=(8, 8, 1)))
    app = create_app(msgspec.structs.replace(stocked, stock_images=100), repository)
    async with running(app) as client:
        await full(app, tiny=1152 / 64)
        promote_tiny(repository, "colour", signature=tiny_signature(shape=(8, 6, 3)))
        await app.service.live.refresh()
        await full(app, tiny=1152 / 64 / 2, colour=1152 / 144 / 2)
        assert (await client.post("/sample", json={"model": "colour"})).headers["x-cache"] == "stock"


async def test_what_takes_more_than_the_whole_stock_has_no_place_in_it(tmp_path, stocked, monkeypatch):
    """The smaller model's images have all of it."""
    monkeypatch.setattr("serving.stock.READY_BYTES", 0)
    monkeypatch.setattr("serving.stock.MAX_BYTES", 2 * 128)
    repository = Repository(tmp_path)
    promote_tiny(repository, signature=tiny_signature(shape=(8, 8, 1)))
    promote_tiny(repository, "colour", signature=tiny_signature(shape=(8, 6, 3)))
    app = create_app(stocked, repository)
    async with running(app) as client:
        await full(app, tiny=2, colour=0)
        answers = [await client.post("/sample", json={"model": "colour"}) for _ in range(5)]
        assert {answer.headers["x-cache"] for answer in answers} == {"miss"}
        assert stock_of(app, "tiny") == 2


async def test_a_large_image_of_the_stock_is_not_encoded_again(tmp_path, stocked):
    """Nor has it to wait for an encoder."""
    repository = Repository(tmp_path)
    promote_tiny(repository, signature=tiny_signature(shape=(96, 96, 3)))
    app = create_app(stocked, repository)
    async with running(app) as client:
        await full(app, tiny=8)
        app.service.encoders.close()
        for body in (b"{}", b"{}", b"{}" + 1025 * b" "):  # known by its words or not
            answer = await client.post("/sample", content=body, headers={"content-type": "application/json"})
            assert (answer.status_code, answer.headers["x-cache"]) == (200, "stock")


async def test_what_was_encoded_ahead_says_nothing_of_how_long_encoding_takes(tmp_path, stocked):
    """Else answers would be admitted that cannot be encoded in time."""
    repository = Repository(tmp_path)
    promote_tiny(repository, signature=tiny_signature(shape=(96, 96, 3)))
    app = create_app(stocked, repository)
    async with running(app) as client:
        for seed in range(3):
            await client.post("/sample", json={"seed": seed})
        measured, encoded = dict(app.service.encoders._measured), encodings(app)
        assert encoded == 3
        await full(app, tiny=8)
        answer = await client.post("/sample", content=b"{}" + 1025 * b" ", headers={"content-type": "application/json"})
        assert (answer.status_code, answer.headers["x-cache"]) == (200, "stock")
        assert app.service.encoders._measured == measured
        assert encodings(app) == encoded
        assert not app.service.encoders.busy


async def test_a_promotion_of_the_same_file_empties_the_shelf_too(two, stocked):
    """Each image says which version made it."""
    app = create_app(stocked, two)
    async with running(app) as client:
        await full(app, tiny=4, classes=4)
        promote_tiny(two, "tiny", seed=0)
        await app.service.live.refresh()
        answer = await client.post("/sample", json={"model": "tiny"})
        assert answer.headers["x-model"] == "tiny@2"
        again = await client.post("/sample", json={"model": "tiny", "seed": int(answer.headers["x-seed"])})
        assert again.content == answer.content


async def test_a_promotion_empties_the_shelf(two, stocked):
    """The new champion's first image is its own."""
    app = create_app(stocked, two)
    async with running(app) as client:
        await full(app, tiny=4, classes=4)
        promote_tiny(two, "tiny", seed=1)
        await app.service.live.refresh()
        answer = await client.post("/sample", json={"model": "tiny"})
        assert answer.headers["x-model"] == "tiny@2"
        again = await client.post("/sample", json={"model": "tiny", "seed": int(answer.headers["x-seed"])})
        assert again.content == answer.content
        await shown(lambda: stock_of(app, "tiny") >= 4)


async def test_a_promotion_has_the_same_words_checked_anew(two, stocked):
    """What was right to ask of the old champion is wrong of the new one, whether or not there is something in stock."""
    app = create_app(stocked, two)
    async with running(app) as client:
        await full(app, tiny=4, classes=4)
        for _ in range(2):  # the second by its words
            assert (await client.post("/sample", json={"prior": "normal"})).headers["x-cache"] == "stock"
        promote_tiny(two, "tiny", signature=tiny_signature(prior="uniform"))
        await app.service.live.refresh()
        await shown(lambda: stock_of(app, "tiny") >= 4)
        answer = await client.post("/sample", json={"prior": "normal"})
        assert answer.status_code == 400
        assert field_of(answer) == "prior"


async def test_a_promotion_to_vectors_wastes_nothing(two, stocked):
    """Each answer by the words that an image answered before takes one of the stock, and no more."""
    app = create_app(stocked, two)
    async with running(app) as client:
        await full(app, tiny=4, classes=4)
        assert (await client.post("/sample", json={})).headers["content-type"] == "image/png"
        promote_tiny(two, "tiny", signature=tiny_signature(kind="vector"))
        await app.service.live.refresh()
        served = 'genserve_stock_served_total{model="tiny"} %d.0'
        for answers in (2, 3):  # one was an image
            await shown(lambda: stock_of(app, "tiny") >= 4)
            answer = await client.post("/sample", json={})
            assert (answer.headers["content-type"], answer.headers["x-cache"]) == ("application/json", "stock")
            assert served % answers in app.service.metrics.exposition().decode()


async def test_vectors_have_a_stock_too(tmp_path, stocked):
    """In JSON."""
    repository = Repository(tmp_path)
    promote_tiny(repository, "vector", signature=tiny_signature(kind="vector"))
    app = create_app(msgspec.structs.replace(stocked, default_model=None), repository)
    async with running(app) as client:
        await full(app, vector=8)
        answer = await client.post("/sample", json={})
        assert answer.headers["x-cache"] == "stock"
        again = await client.post("/sample", json={"seed": int(answer.headers["x-seed"])})
        assert again.json() == answer.json()


async def test_a_model_that_fails_leaves_the_others_their_stock(two, stocked):
    """It is tried again later, and the log is not filled with it."""

    def loader(version):
        model = load(two, version)
        if version.name == "tiny":
            model = replace(model, generator=Gated(error=ValueError("no such thing")))
            model.generator.providers = ("CPUExecutionProvider",)
            model.generator.release(1000)
        return model

    app = create_app(stocked, two, loader=loader)
    async with running(app) as client:
        await shown(lambda: stock_of(app, "classes") == 8)
        assert (await client.post("/sample", json={"model": "classes"})).headers["x-cache"] == "stock"


async def test_models_that_fail_in_turn_leave_the_bound_as_it_is(two, stocked, monkeypatch):
    """What is in stock of a model that fails counts, though the others get the rest."""
    monkeypatch.setattr("serving.stock.FAILED_SECONDS", 0.2)
    bad = set()

    def loader(version):
        model = load(two, version)
        return replace(model, generator=Failing(model.generator, version.name, bad))

    def total():
        return stock_of(app, "tiny") + stock_of(app, "classes")

    app = create_app(msgspec.structs.replace(stocked, monitor=0.0), two, loader=loader)
    async with running(app) as client:
        await full(app, tiny=4, classes=4)
        for name, other in (("tiny", "classes"), ("classes", "tiny")):
            bad.add(name)
            before = stock_of(app, other)
            assert (await client.post("/sample", json={"model": name})).headers["x-cache"] == "stock"
            await shown(lambda other=other, before=before: total() == 8 and stock_of(app, other) > before)
            bad.clear()
        await full(app, tiny=4, classes=4)


async def test_what_a_session_made_goes_with_it(two, stocked):
    """The monitor loads a model anew where it has become worse: no answer comes from before."""
    wrong = []

    def loader(version):
        model = load(two, version)
        if version.name == "tiny" and not wrong:
            wrong.append(model)
            return replace(model, generator=Inverted(model.generator))
        return model

    app = create_app(stocked, two, loader=loader)
    async with running(app) as client:
        await full(app, tiny=4, classes=4)
        live = app.service.live
        before = [await client.post("/sample", json=wish) for wish in ({"seed": 5}, {"seed": 5}, {}, {"seed": 6})]
        assert [answer.headers["x-cache"] for answer in before] == ["miss", "hit", "stock", "miss"]
        await live.reload(await live.get("tiny"))
        for seed in (5, 6):
            answer = await client.post("/sample", json={"seed": seed})
            assert answer.headers["x-cache"] == "miss"
            assert answer.content not in {one.content for one in before}
        await shown(lambda: stock_of(app, "tiny") >= 4)
        for _ in range(4):
            answer = await client.post("/sample", json={})
            again = await client.post("/sample", json={"seed": int(answer.headers["x-seed"])})
            assert (answer.headers["x-cache"], again.headers["x-cache"]) == ("stock", "miss")
            assert again.content == answer.content


async def test_nothing_is_made_ahead_while_an_answer_is_encoded(two, stocked):
    """Engines are idle then, and somebody waits all the same."""
    app = create_app(msgspec.structs.replace(stocked, monitor=0.0), two)
    with app.service.encoders.place("webp", 100, Deadline(time.monotonic() + 60)):
        async with running(app) as client:
            for seed in range(3):
                assert (await client.post("/sample", json={"seed": seed})).status_code == 200
            assert stock_of(app, "tiny") + stock_of(app, "classes") == 0
            app.service.encoders._places.clear()
            await full(app, tiny=4, classes=4)


async def test_nothing_is_made_ahead_while_anyone_waits(zoo, monkeypatch):
    """Both engines are busy and one request waits: the stock gets nothing until that is over."""
    monkeypatch.setattr("serving.batcher.available_cores", lambda: 2)
    network = Gated()
    model = replace(load(zoo, zoo.resolve("tiny")), generator=network)
    batcher = Watched(Schedule(max_queue_images=64, max_batch_images=16, engines=2), observer=Log())
    stock = Stock(
        batcher, limit=2, champions=lambda: [model], finish=lambda _, drawn: (drawn, None), observer=Metrics()
    )
    callers = []
    for batches in (1, 2, 2):
        callers.append(asyncio.create_task(batcher.generate(model, _zeros, 1, deadline=NEVER)))
        await until(lambda batches=batches: len(network.batches) == batches)
    stock.champions_changed()
    filling = asyncio.create_task(stock.run())
    await until(lambda: batcher.looks >= 5)
    assert len(network.batches) == 2
    network.release(3)
    await asyncio.gather(*callers)
    network.release(2)
    await until(lambda: len(stock) == 2)
    assert len(network.batches) == 5
    filling.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await filling
    batcher.close()
