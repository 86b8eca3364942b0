"""Only what a verdict allows becomes champion; rolling back is one step."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from models.errors import Invalid, LoadError, NotFound, Refused
from models.promotion import champion_stack, promote, rollback
from models.records import Event, promised_variants
from models.repository import Repository, Version, now
from models.runtime import CPU_PROVIDER, OPENVINO_PROVIDER
from models.testkit import (
    add_tiny_variant,
    fake_verdict,
    promote_tiny,
    promote_unmeasured,
    promoted_repository,
    publish_tiny,
)
from models.variants import best_variants


def test_no_verdict_no_promotion(tmp_path: Path) -> None:
    """The refusal says what to run."""
    repository = Repository(tmp_path)
    version = publish_tiny(repository)
    with pytest.raises(Refused, match="genserve gate tiny@1"):
        promote(repository, version)
    assert repository.aliases("tiny").champion is None


def test_a_failing_candidate_leaves_the_champion(tmp_path: Path) -> None:
    """And its reasons are told."""
    repository = promoted_repository(tmp_path)
    version = publish_tiny(repository, seed=2)
    repository.add_verdict(version, fake_verdict(version, version.manifest(), champion=1, passed=False))
    with pytest.raises(Refused, match=r"9\.0 > 1\.0"):
        promote(repository, version)
    assert repository.aliases("tiny").champion == 1


def test_a_verdict_against_a_former_champion_is_void(tmp_path: Path) -> None:
    """Two candidates judged against champion 1: once one is promoted, the other must be gated again."""
    repository = promoted_repository(tmp_path)
    first, second = publish_tiny(repository, seed=2), publish_tiny(repository, seed=3)
    for version in (first, second):
        repository.add_verdict(version, fake_verdict(version, version.manifest(), champion=1))
    promote(repository, first)
    with pytest.raises(Refused, match="judged against champion 1, the champion now is 2"):
        promote(repository, second)


def test_a_changed_file_is_not_promoted(tmp_path: Path) -> None:
    """The digest is taken from the file again, not from what was written about it."""
    repository = Repository(tmp_path)
    version = publish_tiny(repository)
    repository.add_verdict(version, fake_verdict(version, version.manifest()))
    version.model_path.write_bytes(version.model_path.read_bytes() + b"\0")
    with pytest.raises(Refused, match="digest"):
        promote(repository, version)


def test_a_missing_file_is_not_promoted(tmp_path: Path) -> None:
    """The refusal names the file."""
    repository = Repository(tmp_path)
    version = publish_tiny(repository)
    repository.add_verdict(version, fake_verdict(version, version.manifest()))
    version.model_path.unlink()
    with pytest.raises(LoadError, match=r"cannot read .*model\.onnx"):
        promote(repository, version)


def test_a_verdict_over_another_file_is_none(tmp_path: Path) -> None:
    """A verdict copied from another version does not count."""
    repository = Repository(tmp_path)
    version = publish_tiny(repository)
    stolen = msgspec.structs.replace(fake_verdict(version, version.manifest()), digest="0" * 64)
    repository.add_verdict(version, stolen)
    with pytest.raises(Refused, match="no verdict"):
        promote(repository, version)


def test_the_champion_is_not_promoted_again(tmp_path: Path) -> None:
    """It would write a history line that changes nothing."""
    repository = promoted_repository(tmp_path)
    with pytest.raises(Refused, match="already"):
        promote(repository, repository.resolve("tiny"))


def test_rolling_back_goes_one_step_each_time(tmp_path: Path) -> None:
    """3 -> 2 -> 1 -> refused; and a promotion after a rollback can be rolled back to what it replaced."""
    repository = promoted_repository(tmp_path)
    promote_tiny(repository, seed=2)
    promote_tiny(repository, seed=3)
    assert [rollback(repository, "tiny").version for _ in range(2)] == [2, 1]
    with pytest.raises(Refused, match="no earlier champion"):
        rollback(repository, "tiny")
    promote_tiny(repository, seed=4)
    assert rollback(repository, "tiny").version == 1


def test_no_way_back_to_a_version_that_failed_since(tmp_path: Path) -> None:
    """A later verdict took the former champion's pass away: the champion stays, and another version may be promoted."""
    repository = promoted_repository(tmp_path)
    promote_tiny(repository, seed=2)
    first = repository.resolve("tiny@1")
    repository.add_verdict(first, fake_verdict(first, first.manifest(), champion=2, passed=False))
    with pytest.raises(Refused, match=r"tiny@1 .*newest verdict is 'fail': promote another"):
        rollback(repository, "tiny")
    assert repository.aliases("tiny").champion == 2


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda version: version.model_path.write_bytes(b"junk"), "digest"),
        (lambda version: version.model_path.unlink(), "cannot read"),
        (lambda version: (version.path / "verdicts" / "001.json").unlink(), "its verdict is gone"),
    ],
)
def test_no_way_back_to_a_version_that_is_not_whole(
    tmp_path: Path, damage: Callable[[Version], None], complaint: str
) -> None:
    """A changed or missing file, or a verdict that is gone, is refused with the reason; no history line is written."""
    repository = promoted_repository(tmp_path)
    promote_tiny(repository, seed=2)
    damage(repository.resolve("tiny@1"))
    before = repository.history("tiny")
    with pytest.raises(Refused, match=complaint):
        rollback(repository, "tiny")
    assert repository.history("tiny") == before
    assert repository.aliases("tiny").champion == 2


@pytest.mark.parametrize(("promoted", "rolled_back_to"), [([], [1]), ([1], [1]), ([1, 2], [1, 1]), ([1, 2, 3], [1])])
def test_a_history_that_cannot_be_is_damaged(promoted: list[int], rolled_back_to: list[int]) -> None:
    """It rolls back further than was promoted, or to what was not the champion before."""
    events = [Event(event="promoted", version=number, when=now(), by="x") for number in promoted]
    events += [Event(event="rolled back", version=number, when=now(), by="x") for number in rolled_back_to]
    with pytest.raises(LoadError, match="damaged"):
        champion_stack(events)


def test_the_fastest_variant_that_passed_serves_its_provider(tmp_path: Path) -> None:
    """Failed ones and those that gain less than a tenth are left aside; what was recorded says so for all replicas."""
    repository = Repository(tmp_path)
    version = publish_tiny(repository)
    add_tiny_variant(repository, version, "slow", ratio=1.09)
    assert best_variants(version, min_speedup=1.1) == {}
    add_tiny_variant(repository, version, "fast", ratio=2.0)
    add_tiny_variant(repository, version, "faster", ratio=2.5)
    add_tiny_variant(repository, version, "wrong", ratio=9.0, passed=False)
    promote_unmeasured(repository, version)
    assert repository.history("tiny")[-1].variants == {CPU_PROVIDER: "faster"}
    assert repository.aliases("tiny").variants == {CPU_PROVIDER: "faster"}


def test_a_variant_can_be_named_or_left_out(tmp_path: Path) -> None:
    """None is the version itself; one that failed, is for another provider or is not there is refused."""
    repository = Repository(tmp_path)
    version = publish_tiny(repository)
    add_tiny_variant(repository, version, "fast")
    add_tiny_variant(repository, version, "wrong", passed=False)
    add_tiny_variant(repository, version, "elsewhere", provider=OPENVINO_PROVIDER)
    for named, error, complaint in (
        ("wrong", Refused, "verdict is 'fail': mean error 9 > 1.5"),
        ("elsewhere", Invalid, "is for OpenVINOExecutionProvider"),
        ("nothing", NotFound, "variants: elsewhere, fast, wrong"),
    ):
        with pytest.raises(error, match=complaint):
            promote_unmeasured(repository, version, variants={CPU_PROVIDER: named})
    assert repository.aliases("tiny").champion is None
    promote_unmeasured(repository, version, variants={CPU_PROVIDER: None})
    assert repository.history("tiny")[-1].variants == {OPENVINO_PROVIDER: "elsewhere"}


def test_the_champion_is_promoted_again_for_other_variants_and_rolled_back(tmp_path: Path) -> None:
    """Variants made after the promotion come into use by another one, and a rollback takes them out of use again."""
    repository = promoted_repository(tmp_path)
    version = repository.resolve("tiny")
    add_tiny_variant(repository, version)
    assert repository.aliases("tiny").variants is msgspec.UNSET
    promote(repository, version)
    assert repository.aliases("tiny").variants == {CPU_PROVIDER: "fast"}
    with pytest.raises(Refused, match="already"):
        promote(repository, version)
    second = promote_tiny(repository, seed=2)
    assert repository.aliases("tiny").variants is msgspec.UNSET
    assert rollback(repository, "tiny").variants == {CPU_PROVIDER: "fast"}
    assert rollback(repository, "tiny").version == 1
    assert repository.aliases("tiny").variants is msgspec.UNSET
    history = repository.history("tiny")
    assert (promised_variants(history, 1), promised_variants(history, second.number)) == ({}, {})
    with pytest.raises(Refused, match="no earlier champion"):
        rollback(repository, "tiny")


def test_files_without_variants_are_what_they_were(tmp_path: Path) -> None:
    """No new field in aliases.json or history.jsonl: a server of the version before reads them."""
    promoted_repository(tmp_path)
    assert "variants" not in (tmp_path / "tiny" / "aliases.json").read_text()
    assert "variants" not in (tmp_path / "tiny" / "history.jsonl").read_text()


def test_rolling_back_nothing(tmp_path: Path) -> None:
    """An unknown name is not found, and no folder is made for it."""
    with pytest.raises(NotFound):
        rollback(Repository(tmp_path), "nobody")
    assert list(tmp_path.iterdir()) == []
