"""The monitor: through the application, with faults put into models that are being served."""

import asyncio
import contextlib
import time
from dataclasses import replace
from functools import partial

import msgspec
import numpy as np
import pytest
from prometheus_client import CollectorRegistry

import serving.backend
import serving.monitor
import serving.sampler
from models.errors import LoadError
from models.generator import Generator
from models.latents import Drawn
from models.repository import Repository
from models.testkit import judge_watched, promote_tiny, promote_watched, tiny_model, tiny_signature
from serving.app import create_app
from serving.batcher import Batcher
from serving.inspection import Inspector
from serving.live import LiveModels
from serving.loading import load
from serving.monitor import Monitor, block_time, budget_blocks, chunk
from serving.quality_metrics import QualityMetrics
from serving.schedule import Deadline, Schedule
from serving.watch import HASTE, Watch
from tests.serving.kit import Gated, Log, running, until


async def seen(predicate):
    """Look now and then whether it is true: who looks all the time keeps the event loop from being quiet."""
    async with asyncio.timeout(30):
        while not predicate():  # noqa: ASYNC110 a metric tells nobody that it changed
            await asyncio.sleep(0.05)


def metric(app, name, **labels):
    """The value of a series; None where it is missing."""
    return app.service.metrics.registry.get_sample_value(f"genserve_monitor_{name}", {"model": "tiny", **labels})


@pytest.fixture
def watched(tmp_path):
    """A promoted model with a baseline, in a repository that may change."""
    repository = Repository(tmp_path)
    promote_watched(repository)
    return repository


@pytest.fixture
def hasty(settings, monkeypatch):
    """A monitor that takes a whole core, and no time between blocks."""
    monkeypatch.setattr(serving.backend, "Monitor", partial(Monitor, block_seconds=0.05))
    monkeypatch.setattr(serving.monitor, "LOOK_SECONDS", 0.01)
    return msgspec.structs.replace(settings, monitor=1.0)


def change_weights(model):
    """In memory, as a broken device would: what runs is another network of the same form."""
    model.generator._session = Generator.from_bytes(tiny_model(seed=1, spread=60.0))._session


async def test_what_is_served_is_held_against_its_baseline(watched, hasty):
    """The distance, its interval, what is expected, no evidence worth mention, no alarm; none of it counts as load."""
    app = create_app(hasty, watched)
    async with running(app):
        await seen(lambda: metric(app, "fd", bound="value") is not None)
        low, value, high = (metric(app, "fd", bound=bound) for bound in ("low", "value", "high"))
        assert low < value < high
        assert low < 2 * metric(app, "fd_expected")
        assert metric(app, "alarm") == metric(app, "unfit") == metric(app, "alarms_total") == 0.0
        assert metric(app, "evidence") < 1
        assert metric(app, "images_total") >= 400
        assert "genserve_images_generated_total{" not in app.service.metrics.exposition().decode()


async def test_changed_weights_raise_the_alarm_and_a_reload_mends_them(watched, hasty):
    """The alarm, a model loaded anew, and after enough fresh samples the end of the alarm; ready all the time."""
    app = create_app(hasty, watched)
    async with running(app) as client:
        await seen(lambda: metric(app, "images_total"))
        before = app.service.live.champion("tiny")
        change_weights(before)
        await seen(lambda: metric(app, "alarms_total") == 1.0)
        await seen(lambda: app.service.live.champion("tiny").generator is not before.generator)
        assert metric(app, "alarm") == 1.0
        assert (await client.get("/health/ready")).status_code == 200
        await seen(lambda: metric(app, "alarm") == 0.0)
        assert metric(app, "unfit") == 0.0
        assert (await client.post("/sample", json={"seed": 1})).status_code == 200


async def test_a_model_that_makes_nothing_any_more_is_loaded_again(watched, hasty):
    """Its session raises at every run: an alarm at once."""

    class Lost:
        def run(self, *_):
            raise RuntimeError("device lost")

    app = create_app(hasty, watched)
    async with running(app):
        await seen(lambda: metric(app, "images_total"))
        app.service.live.champion("tiny").generator._session = Lost()
        await seen(lambda: metric(app, "alarms_total") == 1.0)
        await seen(lambda: metric(app, "alarm") == 0.0)


async def test_a_fault_that_a_reload_does_not_mend_ends_in_not_ready(watched, hasty, monkeypatch):
    """Clamped latents: alarm, reload, still wrong, not ready with the reason; mended and tried again, ready."""
    monkeypatch.setattr(serving.monitor, "RETRY_SECONDS", 0.5)
    true_draw = serving.sampler.draw

    def clamped(signature, seeds, **more):
        drawn = true_draw(signature, seeds, **more)
        return drawn._replace(z=np.clip(drawn.z, -0.2, 0.2))

    app = create_app(hasty, watched)
    async with running(app) as client:
        monkeypatch.setattr(serving.sampler, "draw", clamped)
        await seen(lambda: metric(app, "unfit") == 1.0)
        answer = await client.get("/health/ready")
        assert answer.status_code == 503
        assert "tiny@1's samples are worse" in answer.json()["detail"]
        monkeypatch.setattr(serving.sampler, "draw", true_draw)
        await seen(lambda: metric(app, "unfit") == 0.0 and metric(app, "alarm") == 0.0)
        assert (await client.get("/health/ready")).status_code == 200


async def test_a_promotion_ends_the_fault_of_the_version_before(watched, hasty, monkeypatch):
    """Another version may answer at once, and is watched from the beginning."""
    app = create_app(hasty, watched)
    async with running(app) as client:
        await seen(lambda: metric(app, "alarm") == 0.0)
        app.service.live.set_unfit("tiny", "tiny@1 is broken")
        assert (await client.get("/health/ready")).json()["detail"] == "tiny@1 is broken"
        promote_watched(watched, seed=3)
        await app.service.live.refresh()
        assert (await client.get("/health/ready")).status_code == 200


async def test_a_model_whose_file_is_gone_is_not_ready_after_an_alarm(watched, hasty):
    """It cannot be loaded again, and the reason says so."""
    app = create_app(hasty, watched)
    async with running(app) as client:
        await seen(lambda: metric(app, "images_total"))
        model = app.service.live.champion("tiny")
        model.version.model_path.unlink()
        change_weights(model)
        await seen(lambda: metric(app, "unfit") == 1.0)
        assert "cannot be loaded again" in (await client.get("/health/ready")).json()["detail"]


async def test_classes_are_drawn_as_for_requests_that_name_none(tmp_path, hasty):
    """A conditional model, colour, surprises nobody."""
    repository = Repository(tmp_path)
    promote_watched(repository, signature=tiny_signature(classes=4, shape=(8, 6, 3)))
    app = create_app(hasty, repository)
    async with running(app):
        await seen(lambda: metric(app, "fd", bound="value") is not None)
        assert metric(app, "alarms_total") == 0.0


@pytest.mark.parametrize("without", ["a baseline", "the monitor"])
async def test_nothing_is_drawn_without(tmp_path, hasty, without):
    """For a verdict of before there were baselines, or where the monitor is off."""
    repository = Repository(tmp_path)
    settings = hasty
    if without == "a baseline":
        promote_tiny(repository)
    else:
        promote_watched(repository)
        settings = msgspec.structs.replace(hasty, monitor=0.0)
    app = create_app(settings, repository)
    async with running(app):
        for seed in range(3):
            await asyncio.sleep(0.1)
            assert not metric(app, "images_total"), seed


async def test_a_damaged_baseline_is_told_and_nothing_else_happens(watched, hasty):
    """The model serves on."""
    (beside,) = watched.root.glob("tiny/1/verdicts/*.npz")
    beside.write_bytes(beside.read_bytes()[:-1])
    app = create_app(hasty, watched)
    async with running(app) as client:
        await asyncio.sleep(0.3)
        assert not metric(app, "images_total")
        assert (await client.post("/sample", json={"seed": 1})).status_code == 200


async def test_nothing_is_drawn_while_anyone_is_served(watched):
    """A request runs: the monitor waits; it ends: the monitor waits a moment more, then begins."""
    network = Gated()
    model = replace(load(watched, watched.resolve("tiny")), generator=network)
    batcher = Batcher(Schedule(max_queue_images=64, max_batch_images=16, engines=2), observer=Log())
    caller = asyncio.create_task(batcher.generate(model, lambda a, b: _zeros(b - a), 1, deadline=Deadline(1e12)))
    await until(lambda: len(network.batches) == 1)
    inspector = Inspector(watched)

    class Models:
        champions = (model,)

        def set_unfit(self, name, reason):
            pass

    observer = QualityMetrics(CollectorRegistry())
    monitor = asyncio.create_task(Monitor(batcher, inspector, Models(), share=1.0, observer=observer).run())
    await asyncio.sleep(0.4)
    assert len(network.batches) == 1
    network.release()
    await caller
    network.release(100)
    await until(lambda: len(network.batches) > 1)
    assert all(len(z) <= chunk(model) for z in network.batches)
    monitor.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await monitor
    inspector.close()
    batcher.close()


def _zeros(count):
    return Drawn(np.zeros((count, 8), np.float32), None)


class Sized:
    """A baseline whose blocks have a size."""

    def __init__(self, block):
        self.block = block


@pytest.mark.parametrize(("block", "seconds"), [(400, 10.0), (1000, 10.0), (8000, 80.0)])
def test_larger_blocks_take_their_time(block, seconds):
    """Fresh samples cost the same a minute, whatever the size of a block; small ones do not come faster."""
    assert block_time(Sized(block)) == seconds


@pytest.mark.parametrize("champions", [1, 3])
def test_one_false_alarm_a_week_is_shared_by_all_champions(champions):
    """In the blocks that fill a week at the ordinary pace."""
    blocks_a_week = 7 * 86_400 / block_time(Sized(2000))
    assert champions * blocks_a_week / budget_blocks(Sized(2000), champions) == pytest.approx(1.0)


async def test_a_block_never_comes_sooner_than_its_stake(watched, hasty, monkeypatch):
    """The first few, calm ones, and those of what looks wrong: the time since the last one is what the next may bet."""
    deviations = iter([0.0] * 6 + [3.5] * 4 + [-4.0] * 8)
    began, stakes = [], []

    async def block(self, model, patient):
        distance = next(deviations, None)
        if distance is not None:
            began.append(time.monotonic())
            stakes.append(patient.watch.pace)
            return patient.watch.baseline.block_mean + distance * patient.watch.baseline.block_deviation
        await asyncio.Event().wait()  # no more blocks
        return None

    monkeypatch.setattr(Monitor, "_block", block)
    app = create_app(hasty, watched)
    async with running(app):
        await seen(lambda: len(began) == 18)
    ordinary = block_time(Sized(200), 0.05)
    assert all(gap >= stake * ordinary for gap, stake in zip(np.diff(began), stakes[1:], strict=True))
    assert {1.0, 1 / HASTE} == set(stakes)
    assert stakes[4] == stakes[5] == stakes[-1] == 1.0
    assert stakes[8] == stakes[9] == 1 / HASTE


async def test_a_reload_that_finds_another_verdict_opens_its_baseline(watched, hasty, monkeypatch):
    """And is not on probation against the old one."""
    true_reload = LiveModels.reload

    async def judged_meanwhile(self, model):
        judge_watched(watched, watched.resolve("tiny"), shift=0.02)
        return await true_reload(self, model)

    monkeypatch.setattr(LiveModels, "reload", judged_meanwhile)
    app = create_app(hasty, watched)
    async with running(app):
        await seen(lambda: metric(app, "fd", bound="value") is not None)
        expected = metric(app, "fd_expected")
        change_weights(app.service.live.champion("tiny"))
        await seen(lambda: metric(app, "alarms_total") == 1.0)
        await seen(lambda: (metric(app, "fd_expected") or expected) != expected)
        assert metric(app, "alarm") == 0.0


async def test_a_model_that_was_replaced_meanwhile_makes_no_other_unfit(watched, hasty, monkeypatch):
    """Its block turns out bad and its reload fails while another version goes live: that one answers."""
    entered, go_on, reasons = asyncio.Event(), asyncio.Event(), []
    true_unfit = LiveModels.set_unfit

    def told(self, name, reason):
        reasons.append(reason)
        true_unfit(self, name, reason)

    async def gone(self, model):
        entered.set()
        await go_on.wait()
        raise LoadError("it was retired")

    monkeypatch.setattr(LiveModels, "set_unfit", told)
    monkeypatch.setattr(LiveModels, "reload", gone)
    app = create_app(hasty, watched)
    async with running(app) as client:
        await seen(lambda: metric(app, "images_total"))
        change_weights(app.service.live.champion("tiny"))
        await entered.wait()
        promote_watched(watched)
        await app.service.live.refresh()
        go_on.set()
        await seen(lambda: metric(app, "alarm") == 0.0)
        assert app.service.live.champion("tiny").version.number == 2
        assert set(reasons) == {None}
        assert (await client.get("/health/ready")).status_code == 200


async def test_a_baseline_that_cannot_be_opened_is_tried_again(watched, hasty, monkeypatch):
    """Whatever the reason: a disk that was away for a moment does not end the watch, nor over other models."""
    monkeypatch.setattr(serving.monitor, "RETRY_SECONDS", 0.2)
    true_open, tries = Inspector.open, []

    async def away(self, model):
        tries.append(model)
        if len(tries) < 3:
            raise MemoryError("not now")
        return await true_open(self, model)

    monkeypatch.setattr(Inspector, "open", away)
    app = create_app(hasty, watched)
    async with running(app):
        await seen(lambda: metric(app, "fd", bound="value") is not None)
    assert len(tries) == 3


async def test_what_one_model_does_to_the_monitor_leaves_the_others_watched(watched, hasty, monkeypatch):
    """Its block cannot be measured, whatever the reason: it is put off, and the model behind it has its turn."""
    promote_watched(watched, "broken")
    monkeypatch.setattr(serving.monitor, "FAILED_SECONDS", 0.1)
    true_open, true_distance, broken, failures = Inspector.open, Inspector.distance, [], []

    async def opened(self, model):
        lens = await true_open(self, model)
        if model.version.name == "broken":
            broken.append(lens)
        return lens

    async def distance(self, lens, features):
        if any(lens is one for one in broken):
            failures.append(lens)
            raise MemoryError("no room for it")
        return await true_distance(self, lens, features)

    monkeypatch.setattr(Inspector, "open", opened)
    monkeypatch.setattr(Inspector, "distance", distance)
    app = create_app(hasty, watched)
    async with running(app):
        await seen(lambda: metric(app, "fd", bound="value") is not None and len(failures) > 1)
        assert app.service.live.champion("broken") is not None


async def test_the_weeks_false_alarm_is_shared_by_the_models_of_the_moment(watched, hasty, monkeypatch):
    """A name that is promoted while the server runs raises the threshold of those that were there."""
    budgets, true_set = [], Watch.set_budget

    def told(self, blocks):
        budgets.append(blocks)
        true_set(self, blocks)

    monkeypatch.setattr(Watch, "set_budget", told)
    app = create_app(hasty, watched)
    async with running(app):
        await seen(lambda: budgets)
        promote_watched(watched, "another")
        await app.service.live.refresh()
        await seen(lambda: max(budgets) == pytest.approx(2 * budgets[0]))


async def test_a_version_that_is_judged_anew_is_held_against_its_new_baseline(watched, hasty):
    """While it is served, without loading it again."""
    app = create_app(hasty, watched)
    async with running(app):
        await seen(lambda: metric(app, "fd", bound="value") is not None)
        before, expected = app.service.live.champion("tiny"), metric(app, "fd_expected")
        judge_watched(watched, watched.resolve("tiny"), shift=0.02)
        await seen(lambda: (metric(app, "fd_expected") or expected) != expected)
        assert app.service.live.champion("tiny").generator is before.generator
