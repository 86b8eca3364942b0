"""A server that trusts keys only: what they do not vouch for is never served, and what is served goes on."""

from functools import partial

import pytest
import structlog

from models.errors import LoadError
from models.keys import make_key
from models.promotion import promote, rollback
from models.records import Event
from models.repository import Repository, now
from models.testkit import add_tiny_variant, fake_verdict, promote_tiny, publish_tiny
from serving.app import create_app
from serving.errors import NotReady
from serving.live import LiveModels
from serving.loading import load
from serving.settings import Settings
from tests.serving.kit import Log, running

KEY, STRANGER = make_key(), make_key()


@pytest.fixture
def repository(tmp_path):
    """As those have it who sign."""
    made = Repository(tmp_path, key=KEY, trusted=[KEY.public])
    promote_tiny(made, seed=1)
    return made


@pytest.fixture
def served(tmp_path):
    """As the server has it."""
    return Repository(tmp_path, trusted=[KEY.public])


@pytest.fixture
def log():
    return Log()


@pytest.fixture
def live(served, log):
    return LiveModels(served, loader=partial(load, served), observer=log)


async def test_what_a_trusted_key_signed_is_served(live, repository):
    """From the start, and as it is promoted and rolled back."""
    await live.refresh()
    promote_tiny(repository, seed=2)
    await live.refresh()
    assert str((await live.get("tiny")).version) == "tiny@2"
    rollback(repository, "tiny")
    await live.refresh()
    assert str((await live.get("tiny")).version) == "tiny@1"


def promote_unsigned(repository):
    promote_tiny(Repository(repository.root), seed=2)


def promote_by_a_stranger(repository):
    promote_tiny(Repository(repository.root, key=STRANGER), seed=2)


def point_the_aliases_elsewhere(repository):
    publish_tiny(repository, seed=2)
    (repository.root / "tiny" / "aliases.json").write_text('{"champion": 2, "candidate": null}')


def change_the_history(repository):
    path = repository.root / "tiny" / "history.jsonl"
    path.write_bytes(path.read_bytes().replace(b"test kit", b"test kid", 1))


ATTACKS = {
    "an unsigned promotion": (promote_unsigned, "no trusted key signed the promotion of tiny@2"),
    "a promotion by another key": (promote_by_a_stranger, "no trusted key signed the promotion of tiny@2"),
    "other aliases": (point_the_aliases_elsewhere, "aliases.json is not what"),
    "another history": (change_the_history, "history.jsonl line 1"),
}


@pytest.mark.parametrize(("attack", "complaint"), ATTACKS.values(), ids=ATTACKS)
async def test_the_old_champion_goes_on(live, repository, log, attack, complaint):
    """Told once or at every look, and counted as a failure to load."""
    await live.refresh()
    attack(repository)
    with structlog.testing.capture_logs() as logs:
        await live.refresh()
        await live.refresh()
    assert str((await live.get("tiny")).version) == "tiny@1"
    assert live.ready
    told = [entry for entry in logs if entry["event"] == "model not loaded"]
    assert complaint in told[0]["reason"]
    assert told[0]["still_serving"] == "tiny@1"
    assert set(log.failures) == {"tiny"}


async def test_a_champion_that_nobody_signed_is_not_served_from_the_start(tmp_path, log):
    """The name answers 503 with what mends it."""
    promote_tiny(Repository(tmp_path))
    trusting = Repository(tmp_path, trusted=[KEY.public])
    live = LiveModels(trusting, loader=partial(load, trusting), observer=log)
    with structlog.testing.capture_logs() as logs:
        await live.refresh()
    assert not live.ready
    assert "genserve sign tiny" in next(entry["reason"] for entry in logs if entry["event"] == "model not loaded")
    with pytest.raises(NotReady):
        await live.get(None)


async def test_a_signed_promotion_of_a_verdict_that_was_changed_is_not_followed(live, repository, log):
    """The promotion counts, its verdict does not: the champion of before goes on."""
    await live.refresh()
    version = promote_tiny(repository, seed=2)
    path = version.path / "verdicts" / "001.json"
    path.write_bytes(path.read_bytes().replace(b"0.5", b"0.4"))
    with structlog.testing.capture_logs() as logs:
        await live.refresh()
    assert str((await live.get("tiny")).version) == "tiny@1"
    reason = next(entry["reason"] for entry in logs if entry["event"] == "model not loaded")
    assert reason.startswith("tiny@2: verdicts/001.json is not as it was signed")


async def test_a_champion_whose_files_change_goes_on_as_unjudged(live, repository):
    """What was loaded was signed; the log says what would be refused now, and putting it back mends it."""
    await live.refresh()
    path = repository.resolve("tiny@1").samples_path
    grid = path.read_bytes()
    path.write_bytes(grid + b"\0")
    with structlog.testing.capture_logs() as logs:
        await live.refresh()
    assert (await live.get("tiny")).verdict is None
    assert "samples.png is not as it was signed" in next(e["reason"] for e in logs if e["event"] == "verdict changed")
    path.write_bytes(grid)
    await live.refresh()
    assert (await live.get("tiny")).verdict is not None


async def test_a_version_by_number_needs_a_trusted_signature_too(live, repository):
    """404 with the reason."""
    await live.refresh()
    version = publish_tiny(repository, seed=2)
    Repository(repository.root).add_verdict(version, fake_verdict(version, version.manifest(), champion=1))
    with pytest.raises(Exception, match=r"tiny@2: verdicts/001\.json is not signed"):
        await live.get("tiny@2")


async def test_a_promise_that_nobody_signed_is_none(live, repository):
    """An unsigned promotion of the champion itself, for a variant: it is not followed, though the variant is signed."""
    await live.refresh()
    add_tiny_variant(repository, repository.resolve("tiny@1"))
    promote(Repository(repository.root), repository.resolve("tiny@1"))
    await live.refresh()
    assert (await live.get("tiny")).variant is None
    promote(repository, repository.resolve("tiny@1"))
    await live.refresh()
    assert (await live.get("tiny")).variant == "fast"


async def test_pages_tell_who_signed_and_show_only_that(repository):
    """/models says by whom; a grid or card that nobody signed for is 404, with the reason."""
    version = publish_tiny(repository, seed=2)
    settings = Settings(default_model="tiny", threads=1, trusted_keys=(KEY.public,))
    async with running(create_app(settings, Repository(repository.root, trusted=settings.trusted_keys))) as client:
        document = (await client.get("/models/tiny/versions/1")).json()
        assert document["signed_by"] == [KEY.public]
        assert document["passing"]
        history = (await client.get("/models/tiny")).json()["history"]
        assert history[2]["verdict_keys"] == [KEY.public]
        assert not {"by", "previous", "signature"} & {key for event in history for key in event}
        for path in ("samples.png", "card", "card.md"):
            assert (await client.get(f"/models/tiny/versions/1/{path}")).status_code == 200
            answer = await client.get(f"/models/tiny/versions/{version.number}/{path}")
            assert answer.status_code == 404
            assert "has no verdict" in answer.json()["detail"]
        grid = repository.resolve("tiny@1").samples_path
        grid.write_bytes(grid.read_bytes() + b"\0")
        assert "samples.png is not as it was signed" in (await client.get("/models/tiny/versions/1/samples.png")).text
        assert (await client.get("/models/tiny/versions/1")).json()["signed_by"] == []


def test_a_line_that_is_being_written_is_waited_for(repository, served, monkeypatch):
    """Between a writer's two files the aliases are behind for an instant: that is no attack."""
    aliases = repository.root / "tiny" / "aliases.json"
    behind = aliases.read_bytes()
    publish_tiny(repository, seed=2)
    new = aliases.read_bytes()
    aliases.write_bytes(behind)
    monkeypatch.setattr("models.repository_reading.time.sleep", lambda seconds: aliases.write_bytes(new))
    assert served.aliases("tiny").champion == 1
    aliases.write_bytes(behind)
    monkeypatch.setattr("models.repository_reading.time.sleep", lambda seconds: None)
    with pytest.raises(LoadError, match="aliases"):
        served.aliases("tiny")


def test_a_promotion_is_never_followed_by_its_words_alone(repository, served):
    """A line that claims to be signed, but is not."""
    event = Event(event="promoted", version=1, when=now(), by="x@y", key=KEY.public, signature="A" * 86 + "==")
    Repository(repository.root).record("tiny", event)
    with pytest.raises(LoadError, match="its signature does not hold"):
        served.aliases("tiny")
