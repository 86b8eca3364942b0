"""Who may say which version is the champion, where keys are trusted."""

from pathlib import Path

import pytest

from models.errors import LoadError, Refused
from models.promotion import promote, rollback
from models.records import Event
from models.repository import Repository, now
from models.runtime import CPU_PROVIDER
from models.testkit import add_tiny_variant, publish_tiny
from models.vouching import vouch
from tests.models.signed import KEY, STRANGER, faults, judge, serves, trusting


def promote_unsigned(root: Path) -> None:
    """As somebody does who can write files and has no key; version 1 has a signed, passing verdict."""
    Repository(root).record("tiny", Event(event="promoted", version=1, when=now(), by="x@y", replaced=2, verdict=1))


def test_a_promotion_that_nobody_signed_changes_nothing(root: Path) -> None:
    """The champion of before goes on, at a fresh start too; `verify` and the repository say why."""
    promote_unsigned(root)
    assert Repository(root).aliases("tiny").champion == 1
    assert serves(root).version == 2
    assert "no trusted key signed the promotion of tiny@1" in (trusting(root).unheeded("tiny") or "")
    assert any("no trusted key signed the promotion of tiny@1" in fault for fault in faults(root))


def test_a_later_signed_line_does_not_let_it_through(root: Path) -> None:
    """Whoever publishes or judges with a key says nothing about promotions."""
    promote_unsigned(root)
    judge(trusting(root), publish_tiny(trusting(root), seed=3))
    assert serves(root).version == 2


def test_a_key_can_vouch_for_it(root: Path) -> None:
    """`genserve sign tiny`."""
    promote_unsigned(root)
    signed = vouch(Repository(root, key=KEY), "tiny", why="it was right")
    assert signed[-1] == "the history of tiny, whose champion is tiny@1"
    assert serves(root).version == 1
    assert faults(root) == []


def test_a_changed_history_can_be_vouched_for_as_it_stands(root: Path) -> None:
    """Where somebody corrected a line by hand."""
    path = root / "tiny" / "history.jsonl"
    path.write_bytes(path.read_bytes().replace(b"better", b"batter", 1))
    with pytest.raises(LoadError, match=r"history\.jsonl line 3: .*Mend: .*genserve sign tiny"):
        serves(root)
    vouch(Repository(root, key=KEY), "tiny")
    assert serves(root).version == 2
    assert faults(root) == []


def test_without_a_trusted_key_nobody_promotes(root: Path) -> None:
    """Refused before anything is written: servers would not follow."""
    before = (root / "tiny" / "history.jsonl").read_bytes()
    keyless, strange = Repository(root, trusted=[KEY.public]), Repository(root, key=STRANGER, trusted=[KEY.public])
    for repository, complaint in ((keyless, "GENSERVE_SIGNING_KEY"), (strange, "does not name")):
        with pytest.raises(Refused, match=complaint):
            promote(repository, repository.resolve("tiny@1"))
        with pytest.raises(Refused, match=complaint):
            rollback(repository, "tiny")
    assert (root / "tiny" / "history.jsonl").read_bytes() == before


def test_an_unsigned_verdict_promotes_nothing(root: Path) -> None:
    """The refusal names the verdict and the command that signs it."""
    version = publish_tiny(trusting(root), seed=3)
    judge(Repository(root), version)
    with pytest.raises(Refused, match=r"tiny@3: verdicts/001\.json is not signed.*genserve sign tiny@3"):
        promote(trusting(root), version)
    vouch(Repository(root, key=KEY), "tiny@3")
    event = promote(trusting(root), version)
    assert (event.verdict_keys, event.key) == ((KEY.public,), KEY.public)
    assert serves(root).version == 3


def test_an_unsigned_variant_is_not_chosen(root: Path) -> None:
    """Neither by its speed nor by name."""
    repository = trusting(root)
    version = publish_tiny(repository, seed=3)
    add_tiny_variant(Repository(root), version, "faster", ratio=9.0)
    judge(repository, version)
    with pytest.raises(Refused, match=r"tiny@3/variants/faster: verdict\.json is not signed"):
        promote(repository, version, variants={CPU_PROVIDER: "faster"})
    assert promote(repository, version).variants == {}
    assert any("tiny@3 faster" in fault for fault in faults(root))


def test_a_rollback_is_signed_and_says_by_what_verdict(root: Path) -> None:
    """And is served; the version before must still be signed for."""
    event = rollback(trusting(root), "tiny", why="colours")
    assert (event.version, event.replaced, event.verdict, event.verdict_keys) == (1, 2, 1, (KEY.public,))
    assert serves(root).version == 1
    promote_again = trusting(root)
    judge(promote_again, promote_again.resolve("tiny@2"))
    promote(promote_again, promote_again.resolve("tiny@2"))
    (root / "tiny" / "1" / "verdicts" / "001.sig").unlink()
    with pytest.raises(Refused, match=r"was the champion before, but .*001\.json is not signed"):
        rollback(trusting(root), "tiny")
