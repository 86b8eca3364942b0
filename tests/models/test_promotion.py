"""Only what a verdict allows becomes champion; rolling back is one step."""

from pathlib import Path

import msgspec
import pytest

from models.errors import NotFound, Refused
from models.promotion import promote, rollback
from models.repository import Repository
from models.testkit import fake_verdict, promote_tiny, promoted_repository, publish_tiny


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


def test_rolling_back_nothing(tmp_path: Path) -> None:
    """An unknown name is not found, and no folder is made for it."""
    with pytest.raises(NotFound):
        rollback(Repository(tmp_path), "nobody")
    assert list(tmp_path.iterdir()) == []
