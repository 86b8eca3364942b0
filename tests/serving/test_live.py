"""Live models: promotion while serving, versions on demand, and what must not be served."""

import asyncio
import gc
import threading
import weakref
from functools import partial

import numpy as np
import pytest
import structlog

from models.errors import Invalid, LoadError, NotFound
from models.promotion import promote, rollback
from models.repository import Repository
from models.testkit import add_tiny_variant, fake_verdict, promote_tiny, publish_tiny, tiny_model
from serving import live as live_module
from serving.errors import NotReady
from serving.live import LiveModels
from serving.loading import load
from tests.serving.kit import Log, until


@pytest.fixture
def repository(tmp_path):
    made = Repository(tmp_path)
    promote_tiny(made, seed=1)
    return made


@pytest.fixture
def log():
    return Log()


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def live(repository, log, clock):
    return LiveModels(repository, loader=partial(load, repository), observer=log, clock=clock)


async def test_two_looks_at_once_load_once(live, log):
    """The second waits for the first, and finds the champion loaded."""
    await asyncio.gather(live.refresh(), live.refresh())
    assert len(log.live) == 1


async def test_a_promotion_is_followed_and_the_old_model_is_let_go(live, repository, log):
    """A request that began before keeps its model; when it ends the old session's memory goes."""
    await live.refresh()
    held = await live.get("tiny")
    promote_tiny(repository, seed=2)
    await live.refresh()
    assert str((await live.get("tiny")).version) == "tiny@2"
    assert str(held.version) == "tiny@1"
    assert len(held.generate(np.zeros((1, 8), np.float32))) == 1
    gone = weakref.ref(held.generator)
    del held
    gc.collect()
    assert gone() is None
    assert log.live == ["tiny@1", "tiny@2"]


async def test_a_rollback_is_a_promotion_too(live, repository, log):
    """Back to version 1."""
    promote_tiny(repository, seed=2)
    await live.refresh()
    rollback(repository, "tiny")
    await live.refresh()
    assert log.live == ["tiny@2", "tiny@1"]


def damage_model(version):
    data = bytearray(version.model_path.read_bytes())
    data[len(data) // 2] ^= 1
    version.model_path.write_bytes(bytes(data))


def damage_golden(version):
    path = version.path / "manifest.json"
    text = path.read_text()
    other = publish_tiny(Repository(version.path.parent.parent / "aside"), seed=9).manifest()
    mine = version.manifest()
    for ours, theirs in zip(mine.golden, other.golden, strict=True):
        text = text.replace(ours.data, theirs.data)
    path.write_text(text)


def swap_file(version):
    version.model_path.write_bytes(tiny_model(seed=77))


FAULTS = {
    "flipped bit": damage_model,
    "another file": swap_file,
    "missing file": lambda version: version.model_path.unlink(),
    "not its golden samples": damage_golden,
    "damaged manifest": lambda version: (version.path / "manifest.json").write_text("{"),
    "damaged aliases": lambda version: (version.path.parent / "aliases.json").write_text("{"),
    "aliases of a version that is not there": lambda v: (v.path.parent / "aliases.json").write_text('{"champion": 9}'),
    "no passing verdict": lambda version: [path.unlink() for path in (version.path / "verdicts").iterdir()],
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_what_does_not_load_leaves_the_old_one_serving(live, repository, log, fault):
    """Counted as a failure; the name still answers with the version before."""
    await live.refresh()
    fault(promote_tiny(repository, seed=2))
    await live.refresh()
    assert str((await live.get("tiny")).version) == "tiny@1"
    assert live.ready
    assert log.failures == ["tiny"]


async def test_a_version_that_failed_is_tried_again_after_a_while(live, repository, log, clock):
    """Not at every look at the repository; when it is mended it goes live."""
    await live.refresh()
    version = promote_tiny(repository, seed=2)
    data = version.model_path.read_bytes()
    damage_model(version)
    for _ in range(5):
        await live.refresh()
    assert log.failures == ["tiny"]
    version.model_path.write_bytes(data)
    clock.now += live_module.RETRY_SECONDS
    await live.refresh()
    assert log.live == ["tiny@1", "tiny@2"]


async def test_one_model_that_fails_does_not_hold_up_the_others(live, repository, log):
    """Ready, and the failed one says why it cannot answer."""
    damage_model(promote_tiny(repository, "another"))
    await live.refresh()
    assert live.ready
    with pytest.raises(NotReady, match="sha256"):
        await live.get("another")


async def test_before_the_first_look_nothing_is_ready(live):
    """And requests are told to come back."""
    assert not live.ready
    with pytest.raises(NotReady):
        await live.get(None)
    with pytest.raises(NotReady):
        await live.get("tiny")


async def test_versions_on_demand_are_bounded_and_the_least_used_go(live, repository):
    """Two stay beside the champion."""
    for seed in range(2, 6):
        promote_tiny(repository, seed=seed)
    await live.refresh()
    for reference in ("tiny@1", "tiny@2", "tiny@1", "tiny@3"):
        assert str((await live.get(reference)).version) == reference
    assert [str(model.version) for model in live.loaded] == ["tiny@5", "tiny@1", "tiny@3"]


async def test_a_version_without_a_passing_verdict_is_not_found(live, repository):
    """404, again and again, without another attempt each time."""
    publish_tiny(repository, seed=2)
    await live.refresh()
    for _ in range(3):
        with pytest.raises(NotFound, match="no passing verdict"):
            await live.get("tiny@2")
    with pytest.raises(NotFound, match="candidate"):
        await live.get("tiny@candidate")


async def test_while_one_version_loads_others_are_told_to_come_back(repository, log, monkeypatch):
    """One at a time: 503 with Retry-After; champions are answered meanwhile, and then the loaded version is."""
    monkeypatch.setattr(live_module, "PATIENCE_SECONDS", 0.01)
    for seed in (2, 3):
        promote_tiny(repository, seed=seed)
    gate = threading.Event()
    gate.set()

    def slowly(version):
        assert gate.wait(20)
        return load(repository, version)

    live = LiveModels(repository, loader=slowly, observer=log)
    await live.refresh()
    gate.clear()
    for reference in ("tiny@1", "tiny@2", "tiny@1"):
        with pytest.raises(NotReady, match="tiny@1 is being loaded") as error:
            await live.get(reference)
        assert error.value.retry_after >= 1
    assert str((await live.get("tiny")).version) == "tiny@3"
    gate.set()
    await until(lambda: len(live.loaded) == 2)
    assert str((await live.get("tiny@1")).version) == "tiny@1"


async def test_following_looks_again_and_again(repository, log):
    """A promotion is noticed without being told."""
    live = LiveModels(repository, loader=partial(load, repository), observer=log, poll_seconds=0.01)
    task = asyncio.create_task(live.follow())
    await until(lambda: log.live == ["tiny@1"])
    promote_tiny(repository, seed=2)
    await until(lambda: log.live == ["tiny@1", "tiny@2"])
    task.cancel()


def test_a_provider_that_is_missing_is_refused_unless_a_fallback_is_allowed(repository):
    """cuda alone is an error here; cuda, cpu runs on the CPU."""
    version = repository.resolve("tiny")
    with pytest.raises(Exception, match="CUDAExecutionProvider"):
        load(repository, version, providers=["CUDAExecutionProvider"])
    model = load(repository, version, providers=["CUDAExecutionProvider", "CPUExecutionProvider"])
    assert model.provider == "CPUExecutionProvider"


async def test_a_promoted_variant_goes_live_and_a_rollback_takes_it_away(live, repository, log):
    """The same version all the time: its samples have another address while the variant answers."""
    await live.refresh()
    version = repository.resolve("tiny")
    plain = await live.get("tiny")
    variant = add_tiny_variant(repository, version)
    await live.refresh()
    assert (await live.get("tiny")) is plain
    promote(repository, version)
    await live.refresh()
    fast = await live.get("tiny@1")
    assert (fast.variant, fast.passed_over) == ("fast", None)
    assert fast.manifest.digest == variant.manifest().digest != plain.manifest.digest
    assert fast.numerics != plain.numerics
    rollback(repository, "tiny")
    await live.refresh()
    assert (await live.get("tiny")).manifest.digest == plain.manifest.digest
    assert log.live == ["tiny@1"] * 3


async def test_a_former_champion_keeps_the_variant_that_it_was_promoted_with(live, repository):
    """Asked for by number, its addresses are what they were."""
    variant = add_tiny_variant(repository, repository.resolve("tiny"))
    promote(repository, repository.resolve("tiny"))
    promote_tiny(repository, seed=2)
    await live.refresh()
    assert (await live.get("tiny")).variant is None
    assert (await live.get("tiny@1")).manifest.digest == variant.manifest().digest


async def test_a_variant_that_cannot_run_is_passed_over_aloud(live, repository):
    """The version itself answers, and a log line says why."""
    variant = add_tiny_variant(repository, repository.resolve("tiny"))
    promote(repository, repository.resolve("tiny"))
    variant.model_path.write_bytes(b"junk")
    with structlog.testing.capture_logs() as logs:
        await live.refresh()
    model = await live.get("tiny")
    assert model.variant is None
    assert model.manifest == repository.resolve("tiny").manifest()
    assert "sha256" in model.passed_over
    assert [entry["reason"] for entry in logs if "promised variant" in entry["event"]] == [model.passed_over]


async def test_without_a_promotion_there_is_no_variant(repository, log):
    """GENSERVE_ALLOW_UNJUDGED serves the newest version as it was published."""
    version = publish_tiny(repository, "fresh")
    add_tiny_variant(repository, version)
    live = LiveModels(
        repository, loader=partial(load, repository, allow_unjudged=True), observer=log, allow_unjudged=True
    )
    await live.refresh()
    assert (await live.get("fresh")).variant is None


def test_an_unjudged_version_loads_only_when_allowed(repository):
    """LoadError otherwise."""
    version = publish_tiny(repository, seed=5)
    with pytest.raises(LoadError, match="no passing verdict"):
        load(repository, version)
    assert load(repository, version, allow_unjudged=True).verdict is None


async def test_the_default_model_is_never_replaced_by_another(repository, live, log):
    """fashion-mnist fails to load: who names no model is told to come back, and gets no other that is there."""
    damage_model(promote_tiny(repository, "fashion-mnist"))
    await live.refresh()
    assert str((await live.get("tiny")).version) == "tiny@1"
    with pytest.raises(NotReady, match=r"fashion-mnist@1 .*sha256") as error:
        await live.get(None)
    assert error.value.retry_after == live_module.RETRY_SECONDS  # it is not tried again before


async def test_the_default_model_may_come_later(repository, log):
    """A setting that names nothing yet is said loudly, and works once it is there."""
    live = LiveModels(repository, loader=partial(load, repository), observer=log, default="later")
    with structlog.testing.capture_logs() as lines:
        await live.refresh()
        await live.refresh()
    assert [line["default_model"] for line in lines if line["log_level"] == "error"] == ["later"]
    with pytest.raises(NotReady, match="later"):
        await live.get(None)
    promote_tiny(repository, "later")
    await live.refresh()
    assert str((await live.get(None)).version) == "later@1"


async def test_several_models_without_a_default_are_listed(repository, live):
    """Also the one that could not be loaded."""
    damage_model(promote_tiny(repository, "another"))
    await live.refresh()
    with pytest.raises(Invalid, match="another, tiny"):
        await live.get(None)


async def test_a_verdict_is_noticed_while_a_version_serves(repository, log):
    """An unjudged version stops being one when it is judged, on demand and as champion."""
    version = publish_tiny(repository, seed=2)
    loader = partial(load, repository, allow_unjudged=True)
    live = LiveModels(repository, loader=loader, observer=log, allow_unjudged=True)
    await live.refresh()
    assert (await live.get("tiny@2")).verdict is None
    assert log.unjudged == ["tiny@2"]
    repository.add_verdict(version, fake_verdict(version, version.manifest(), champion=1))
    await live.refresh()
    assert log.unjudged == []
    assert (await live.get("tiny@2")).verdict == repository.passing(version)


async def test_a_version_on_demand_that_loses_its_verdict_is_let_go(repository, live):
    """404, as if it had never been loaded."""
    version = promote_tiny(repository, seed=2)
    rollback(repository, "tiny")
    await live.refresh()
    assert str((await live.get("tiny@2")).version) == "tiny@2"
    for path in (version.path / "verdicts").iterdir():
        path.unlink()
    await live.refresh()
    with pytest.raises(NotFound, match="no passing verdict"):
        await live.get("tiny@2")


async def test_a_reference_without_its_version_is_not_found(live):
    """name@ is not name."""
    await live.refresh()
    with pytest.raises(NotFound, match="names no version"):
        await live.get("tiny@")


async def test_a_name_whose_aliases_cannot_be_read_is_not_ready(repository, live):
    """The client is told to come back."""
    (repository.resolve("tiny").path.parent / "aliases.json").write_text("{")
    await live.refresh()
    with pytest.raises(NotReady, match="damaged"):
        await live.get("tiny")
