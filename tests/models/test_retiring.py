"""Retired versions: what goes, what stays, and what may not be retired."""

from pathlib import Path

import pytest

from genserve.cli import main
from models.errors import NotFound, Refused
from models.promotion import promote, rollback
from models.repository import Repository
from models.retiring import retire
from models.testkit import fake_verdict, promote_tiny, publish_tiny
from models.verify import verify


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """Three champions, one after another, and a candidate."""
    made = Repository(tmp_path)
    for seed in range(3):
        promote_tiny(made, seed=seed)
    publish_tiny(made, seed=3)
    return made


def faults(repository: Repository) -> list[str]:
    return [str(finding) for finding in verify(repository) if finding.fault]


def test_files_go_and_the_history_stays(repository: Repository) -> None:
    """The version is not found any more, verify has nothing against it, and its number is not given again."""
    first = repository.resolve("tiny@1")
    event = retire(repository, first, why="old")
    assert (event.event, event.version, event.why) == ("retired", 1, "old")
    assert not first.path.exists()
    assert [version.number for version in repository.versions("tiny")] == [2, 3, 4]
    with pytest.raises(NotFound, match=r"has no version '1' \(versions: 2, 3, 4\)"):
        repository.resolve("tiny@1")
    with pytest.raises(NotFound, match="has no version '1'"):
        retire(repository, first)  # as a second command would that began before the first was done
    assert [event.version for event in repository.history("tiny") if event.event == "promoted"] == [1, 2, 3]
    assert faults(repository) == []


def test_what_serves_or_may_serve_again_is_not_retired(repository: Repository) -> None:
    """The champion and the one that a rollback returns to are refused; after a rollback there is no way back."""
    for number, why in ((3, "is the champion"), (2, "is what a rollback of tiny returns to")):
        with pytest.raises(Refused, match=f"tiny@{number} {why}"):
            retire(repository, repository.resolve(f"tiny@{number}"))
    assert len(repository.versions("tiny")) == 4
    retire(repository, repository.resolve("tiny@1"))
    rollback(repository, "tiny")
    with pytest.raises(NotFound, match="has no version '1'"):
        rollback(repository, "tiny")
    assert repository.aliases("tiny").champion == 2
    assert faults(repository) == []


def test_a_retired_candidate_is_none(repository: Repository) -> None:
    """And the next version has the next number, not its."""
    retire(repository, repository.resolve("tiny@candidate"))
    assert repository.aliases("tiny").candidate is None
    version = publish_tiny(repository, seed=9)
    assert version.number == 5
    repository.add_verdict(version, fake_verdict(version, version.manifest(), champion=3))
    promote(repository, version)
    assert repository.aliases("tiny").champion == 5
    assert faults(repository) == []


def test_the_next_writer_removes_what_is_left(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    """The history is written first; verify says what is still there."""
    with monkeypatch.context() as patch:
        patch.setattr("models.files.remove_folder", lambda _: None)
        retire(repository, repository.resolve("tiny@1"))
    (fault,) = faults(repository)
    assert "the history calls [1] retired; the next writing command removes them" in fault
    publish_tiny(repository, seed=5)
    assert not (repository.root / "tiny" / "1").exists()
    assert faults(repository) == []


def test_the_command_says_what_it_freed(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the history tells who did it and why; a refusal ends with 1."""
    monkeypatch.setenv("GENSERVE_MODELS", str(repository.root))
    assert main(["retire", "tiny@1", "--why", "a year old"]) == 0
    assert "tiny@1 is retired: 0.0 MB freed" in capsys.readouterr().out
    assert main(["history", "tiny"]) == 0
    assert "a year old" in capsys.readouterr().out
    assert main(["retire", "tiny"]) == 1
    assert "tiny@3 is the champion" in capsys.readouterr().err
