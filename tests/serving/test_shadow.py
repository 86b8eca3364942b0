"""Candidates beside their champions: through the application, with what could go wrong."""

import asyncio

import msgspec
import pytest

from models.promotion import rollback
from models.repository import Repository
from models.testkit import promote_tiny, promote_unmeasured, promote_watched, publish_tiny, tiny_signature
from serving.app import create_app
from serving.batcher import Batcher
from tests.serving.kit import Server, closing, running
from tests.waiting import wait_until


def metric(app, name, **labels):
    """The value of a series; None where it is missing."""
    return app.service.metrics.registry.get_sample_value(f"genserve_shadow_{name}", {"model": "tiny", **labels})


async def seen(predicate):
    """Look now and then whether it is true."""
    async with asyncio.timeout(120):
        while not predicate():  # noqa: ASYNC110 a metric tells nobody that it changed
            await asyncio.sleep(0.02)


async def ask(client, count, start=0):
    """So many requests of one image, each for another; all are answered by the same version, which is returned."""
    answers = [await client.post("/sample", json={"model": "tiny", "seed": start + i}) for i in range(count)]
    assert {answer.status_code for answer in answers} == {200}
    (model,) = {answer.headers["x-model"] for answer in answers}
    return model


@pytest.fixture
def shadowing(settings):
    return msgspec.structs.replace(settings, shadow_share=1.0, cache_bytes=0)


@pytest.fixture
def repository(tmp_path):
    """A champion, tiny@1, and a candidate without a verdict, tiny@2."""
    repository = Repository(tmp_path)
    promote_tiny(repository)
    publish_tiny(repository, seed=1)
    return repository


async def test_a_candidate_runs_what_the_champion_answered(repository, shadowing):
    """The same number of images, counted, timed and compared for both; every answer is the champion's."""
    app = create_app(shadowing, repository)
    async with running(app) as client:
        await seen(lambda: metric(app, "info", version="2"))
        assert await ask(client, 20) == "tiny@1"
        await seen(lambda: metric(app, "images_total") == 20)
        assert metric(app, "dropped_images_total") == metric(app, "errors_total") == 0
        assert metric(app, "memory_bytes") > 0
        for role in ("champion", "candidate"):
            assert metric(app, "image_seconds_count", role=role) > 0
            assert 120 < metric(app, "level_mean", role=role) < 136
            assert 20 < metric(app, "level_deviation", role=role) < 60
        generated = app.service.metrics.registry.get_sample_value("genserve_images_generated_total", {"model": "tiny"})
        assert generated == 20


async def test_only_a_share_of_the_load_is_run_again(repository, shadowing):
    """A quarter of forty images."""
    app = create_app(msgspec.structs.replace(shadowing, shadow_share=0.25), repository)
    async with running(app) as client:
        await seen(lambda: metric(app, "info", version="2"))
        await ask(client, 40)
        await seen(lambda: (metric(app, "images_total") or 0) >= 10)
        await asyncio.sleep(0.3)  # what should not be run would be run meanwhile
        assert metric(app, "images_total") == 10


@pytest.mark.parametrize("what", ["no share", "another name"])
async def test_nothing_is_run_twice_unasked(repository, shadowing, what):
    """Off by default; where names are given, for those alone."""
    more = {"shadow_share": 0.0} if what == "no share" else {"shadow_models": ("other",)}
    app = create_app(msgspec.structs.replace(shadowing, **more), repository)
    async with running(app) as client:
        await ask(client, 10)
        await asyncio.sleep(0.3)
        assert not metric(app, "images_total")


async def test_a_promotion_ends_the_shadow_and_a_new_candidate_begins_another(repository, shadowing):
    """The candidate becomes the champion; later a third version is tried beside it; then a rollback."""
    app = create_app(shadowing, repository)
    async with running(app) as client:
        await seen(lambda: metric(app, "info", version="2"))
        promote_unmeasured(repository, repository.resolve("tiny@2"))
        await app.service.live.refresh()
        await seen(lambda: metric(app, "info", version="2") is None)
        assert await ask(client, 3) == "tiny@2"
        publish_tiny(repository, seed=2)
        await app.service.live.refresh()
        await seen(lambda: metric(app, "info", version="3"))
        before = metric(app, "images_total")
        assert rollback(repository, "tiny").version == 1
        await app.service.live.refresh()
        assert await ask(client, 5, start=100) == "tiny@1"
        await seen(lambda: metric(app, "images_total") > before)
        assert metric(app, "info", version="3")


@pytest.mark.parametrize("fault", ["damaged file", "other samples"])
async def test_a_candidate_that_cannot_run_costs_nothing_but_a_count(tmp_path, shadowing, fault):
    """Its file is damaged, or it makes samples of another shape."""
    repository = Repository(tmp_path)
    promote_tiny(repository)
    version = publish_tiny(repository, seed=1, signature=tiny_signature(shape=(4, 4, 1)))
    if fault == "damaged file":
        version.model_path.write_bytes(b"no")
    app = create_app(shadowing, repository)
    async with running(app) as client:
        await seen(lambda: metric(app, "errors_total"))
        assert await ask(client, 5) == "tiny@1"
        assert not metric(app, "images_total")


async def test_a_candidate_that_fails_under_way_is_counted_alone(repository, shadowing):
    """Its session raises; every answer is there."""
    app = create_app(shadowing, repository)
    async with running(app) as client:
        await seen(lambda: metric(app, "info", version="2"))
        shadow = app.service.sampler._batcher.tap.__self__

        class Broken:
            def run(self, *_):
                raise RuntimeError("device lost")

        shadow._pairs["tiny"].candidate.generator._session = Broken()
        assert await ask(client, 5) == "tiny@1"
        await seen(lambda: metric(app, "errors_total") >= 1)
        assert metric(app, "images_total") == 0


async def test_another_latent_space_is_drawn_anew(tmp_path, shadowing):
    """A candidate with more latents and another prior than its champion runs as many images."""
    repository = Repository(tmp_path)
    promote_tiny(repository)
    publish_tiny(repository, seed=1, signature=tiny_signature(z_dim=16, prior="uniform"))
    app = create_app(shadowing, repository)
    async with running(app) as client:
        await seen(lambda: metric(app, "info", version="2"))
        await ask(client, 6)
        await seen(lambda: metric(app, "images_total") == 6)
        assert not metric(app, "errors_total")
        assert not metric(app, "dropped_images_total")


async def test_what_waits_too_much_is_dropped(repository, shadowing, monkeypatch):
    """While no engine is idle nothing is run: at most 64 images wait, the rest is counted as dropped."""
    app = create_app(shadowing, repository)
    async with running(app) as client:
        await seen(lambda: metric(app, "info", version="2"))
        monkeypatch.setattr(Batcher, "spare", property(lambda self: False))
        await ask(client, 100)
        await seen(lambda: metric(app, "dropped_images_total") == 36)
        assert metric(app, "images_total") == 0
        monkeypatch.undo()
        await seen(lambda: metric(app, "images_total") == 64)


async def test_what_waits_when_its_champion_is_loaded_anew_is_dropped(repository, shadowing, monkeypatch):
    """Every image of the share is counted, once: the five that waited, and those asked for afterwards."""
    app = create_app(shadowing, repository)
    async with running(app) as client:
        await seen(lambda: metric(app, "info", version="2"))
        monkeypatch.setattr(Batcher, "spare", property(lambda self: False))
        await ask(client, 5)
        await app.service.live.reload(app.service.live.champion("tiny"))
        await seen(lambda: metric(app, "dropped_images_total") == 5)
        monkeypatch.undo()
        await ask(client, 4)
        await seen(lambda: metric(app, "images_total") == 4)
        assert metric(app, "dropped_images_total") == 5


async def test_features_of_candidates_are_compared_where_there_is_a_baseline(tmp_path, shadowing):
    """The candidate's distance to the champion's real samples, with its interval."""
    repository = Repository(tmp_path)
    promote_watched(repository)
    publish_tiny(repository, seed=1)
    app = create_app(shadowing, repository)
    async with running(app) as client:
        await seen(lambda: metric(app, "info", version="2"))
        for start in range(0, 4000, 20):  # what is dropped does not count, so that more may be needed than 500
            if metric(app, "fd", bound="value") is not None:
                break
            asked = {"model": "tiny", "num_images": 20, "seed": start}
            assert (await client.post("/sample", json=asked)).status_code == 200
            done = start + 20
            await seen(lambda done=done: metric(app, "images_total") + metric(app, "dropped_images_total") >= done)
        await seen(lambda: metric(app, "fd", bound="value") is not None)
        assert metric(app, "fd", bound="low") < metric(app, "fd", bound="value") < metric(app, "fd", bound="high")


def test_shadow_and_monitor_work_in_the_engines_process(tmp_path):
    """With two HTTP processes: the candidate runs, fresh samples are drawn, and /metrics shows both once."""
    models = tmp_path / "models"
    repository = Repository(models)
    promote_watched(repository)
    publish_tiny(repository, seed=1)
    server = Server(models, tmp_path / "log", workers=2, shadow_share=1, monitor=1, cache_bytes=0, stock_images=0)
    with closing(server):
        info = 'genserve_shadow_info{model="tiny",version="2"}'
        wait_until(lambda: server.metric(info) == 1.0, 30)
        for seed in range(10):
            assert server.sample(seed=seed).headers["x-model"] == "tiny@1"
        wait_until(lambda: server.metric('genserve_shadow_images_total{model="tiny"}') == 10, 30)
        wait_until(lambda: server.metric('genserve_monitor_images_total{model="tiny"}') > 0, 30)
