"""The repository: atomic, append-only, and valid whenever its writer is killed."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from models import files, places, promotion
from models.errors import Invalid, LoadError, NotFound, Refused
from models.places import readable_repository, writable_repository
from models.records import Aliases, Event, Reference, fold
from models.repository import ZOO, Repository, now
from models.retiring import retire
from models.testkit import fake_verdict, promote_tiny, promoted_repository, publish_tiny, tiny_model
from models.verify import verify

KILLED = 9
SYSCALLS = ("write", "fsync", "replace", "rename", "mkdir", "ftruncate", "open")


def test_a_published_version_is_found_by_every_name(tmp_path: Path) -> None:
    """name, name@1, name@champion and name@candidate."""
    repository = promoted_repository(tmp_path)
    second = publish_tiny(repository, seed=2)
    assert repository.names() == ["tiny"]
    assert [version.number for version in repository.versions("tiny")] == [1, 2]
    found = {ref: repository.resolve(f"tiny{ref}").number for ref in ("", "@1", "@2", "@champion", "@candidate")}
    assert found == {"": 1, "@1": 1, "@2": 2, "@champion": 1, "@candidate": 2}
    assert str(second) == "tiny@2"


@pytest.mark.parametrize(
    "reference", ["", "nobody", "tiny@9", "tiny@0", "tiny@x", "tiny@candidate", "../tiny", "tiny/1"]
)
def test_what_is_not_there_is_not_found(tmp_path: Path, reference: str) -> None:
    """The error names the field and lists what there is."""
    repository = promoted_repository(tmp_path)
    with pytest.raises(NotFound, match=r"models here|versions:") as caught:
        repository.resolve(reference)
    assert caught.value.field == "model"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "A", "a@1", "-a", "a-", "ä", "a\0", "a" * 65, ".hidden"])
def test_names_that_could_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    """Nothing is written for them."""
    with pytest.raises(Invalid, match="not a model name"):
        publish_tiny(Repository(tmp_path), name)
    assert list(tmp_path.iterdir()) == []


def test_the_newest_verdict_over_the_same_file_counts(tmp_path: Path) -> None:
    """A pass is void once a later verdict fails, and a verdict over another digest never counts."""
    repository = Repository(tmp_path)
    version = publish_tiny(repository)
    assert repository.passing(version) is None
    passed = fake_verdict(version, version.manifest())
    repository.add_verdict(version, passed)
    assert repository.passing(version) == passed
    repository.add_verdict(version, fake_verdict(version, version.manifest(), passed=False))
    assert repository.passing(version) is None
    assert [path.name for path in sorted((version.path / "verdicts").iterdir())] == ["001.json", "002.json"]


def test_history_tells_everything(tmp_path: Path) -> None:
    """Who, when, what, replacing what, by which verdict."""
    repository = promoted_repository(tmp_path)
    promote_tiny(repository, seed=2)
    promotion.rollback(repository, "tiny", why="colours")
    told = [(e.event, e.version, e.replaced, e.verdict) for e in repository.history("tiny")]
    assert told == [
        ("published", 1, None, None),
        ("judged", 1, None, 1),
        ("promoted", 1, None, 1),
        ("published", 2, None, None),
        ("judged", 2, None, 1),
        ("promoted", 2, 1, 1),
        ("rolled back", 1, 2, 1),
    ]
    assert "@" in repository.history("tiny")[-1].by
    assert repository.history("tiny")[-1].why == "colours"


def test_a_name_is_judged_against_one_thing(tmp_path: Path) -> None:
    """Another reference for a name with versions is refused: verdicts would no longer compare."""
    repository = Repository(tmp_path)
    reference = Reference(data="d", data_hash="0", splits={}, extractor="e", extractor_digest="0")
    repository.set_reference("tiny", reference)
    publish_tiny(repository)
    repository.set_reference("tiny", reference)
    repository.set_reference("tiny", msgspec.structs.replace(reference, resolution=8))  # of the same content
    assert repository.reference("tiny") == reference
    with pytest.raises(Refused, match="another name"):
        repository.set_reference(
            "tiny", Reference(data="x", data_hash="1", splits={}, extractor="e", extractor_digest="0")
        )
    assert repository.reference("tiny") == reference


def test_damaged_records_are_named(tmp_path: Path) -> None:
    """The error says which file."""
    repository = promoted_repository(tmp_path)
    (tmp_path / "tiny" / "1" / "manifest.json").write_text('{"name": 3}')
    with pytest.raises(LoadError, match=r"manifest\.json is damaged"):
        repository.passing(repository.resolve("tiny"))
    (tmp_path / "tiny" / "aliases.json").write_text("{")
    with pytest.raises(LoadError, match=r"aliases\.json is damaged"):
        repository.resolve("tiny")


def test_two_publishers_get_two_versions(tmp_path: Path) -> None:
    """Concurrent writers wait for each other; nothing is lost or overwritten."""
    repository = Repository(tmp_path)
    threads = [threading.Thread(target=publish_tiny, args=(repository,), kwargs={"seed": seed}) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [version.number for version in repository.versions("tiny")] == [1, 2, 3, 4, 5, 6]
    assert len({version.manifest().digest for version in repository.versions("tiny")}) == 6
    assert len(repository.history("tiny")) == 6


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    """The old content stays, and no temporary lies beside it."""
    (tmp_path / "taken").mkdir()
    with pytest.raises(IsADirectoryError):
        files.replace_file(tmp_path / "taken", b"new")
    assert [entry.name for entry in tmp_path.iterdir()] == ["taken"]


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both have written before either renames: each renames its own, and one of the contents stays, whole."""
    both_wrote = threading.Barrier(2, timeout=30)
    rename = os.replace

    def replace(source: Path, target: Path) -> None:
        both_wrote.wait()
        rename(source, target)

    monkeypatch.setattr(files.os, "replace", replace)
    path = tmp_path / "file"
    errors = _at_once(lambda i: files.replace_file(path, bytes([i]) * 100))
    assert errors == []
    assert path.read_bytes() in (bytes(100), b"\1" * 100)
    assert list(tmp_path.iterdir()) == [path]


def _at_once(act: Callable[[int], object]) -> list[BaseException]:
    """Run act(0) and act(1) on two threads; what they raised."""
    errors: list[BaseException] = []

    def run(i: int) -> None:
        try:
            act(i)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def _story(root: Path) -> None:
    """All that writes: publish, judge, promote, publish, judge, promote, roll back, retire."""
    repository = Repository(root)
    promote_tiny(repository)
    promote_tiny(repository, seed=2)
    promotion.rollback(repository, "tiny")
    retire(repository, repository.resolve("tiny@2"))


def _run_and_kill(root: Path, deadly: int, story: Callable[[Path], None] = _story) -> bool:
    """Run the story in a child that dies at its `deadly`-th write-like system call; True if it died.

    A dying write has written half of its bytes, as a full disk or a power cut may leave it.
    """
    child = os.fork()
    if child == 0:
        count = 0

        def wrapped(name: str, real: Callable) -> Callable:
            def call(*args: object, **options: object) -> object:
                nonlocal count
                count += 1
                if count == deadly:
                    if name == "write":
                        real(args[0], bytes(args[1])[: len(args[1]) // 2])
                    os._exit(KILLED)
                return real(*args, **options)

            return call

        for name in SYSCALLS:
            setattr(files.os, name, wrapped(name, getattr(os, name)))
        try:
            story(root)
        except BaseException:
            os._exit(1)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, KILLED)
    return status == KILLED


def test_killed_at_every_write_the_repository_stays_valid(tmp_path: Path) -> None:
    """After a kill at any write: readers see a whole state, and the next writer mends the rest and goes on."""
    tiny_model()  # libraries are imported before the first fork
    deadly = 0
    while True:
        deadly += 1
        root = tmp_path / str(deadly)
        if not _run_and_kill(root, deadly):
            break
        repository = Repository(root)
        _check_readable(repository)
        promote_tiny(repository, seed=3)  # the next writer
        _check_readable(repository)
        assert [finding for finding in verify(repository) if finding.fault] == []
        folder = root / "tiny"
        assert not [entry for entry in folder.iterdir() if entry.name.startswith(".") and entry.name != ".lock"]
        assert repository.aliases("tiny").champion == repository.versions("tiny")[-1].number
    assert deadly > 60, "the story has fewer writes than it should: the kill switch misses some"


def _check_readable(repository: Repository) -> None:
    """What a server sees: every alias leads to a version whose files are whole, and a champion has its pass."""
    for name in repository.names():
        repository.history(name)
        aliases = repository.aliases(name)
        for number in (aliases.champion, aliases.candidate):
            if number is not None:
                version = repository.resolve(f"{name}@{number}")
                assert version.manifest().digest
                assert version.samples_path.stat().st_size > 100
        if aliases.champion is not None:
            assert repository.passing(repository.resolve(name)) is not None


def test_aliases_are_the_fold_of_the_history() -> None:
    """Publishing makes a candidate; promotion and rollback make a champion."""
    events = [
        Event(event=event, version=version, when=now(), by="x")
        for event, version in (("published", 1), ("judged", 1), ("promoted", 1), ("published", 2))
    ]
    assert fold(events) == Aliases(champion=1, candidate=2)
    assert fold([*events, Event(event="promoted", version=2, when=now(), by="x")]) == Aliases(champion=2)


def test_the_repository_that_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """GENSERVE_MODELS, else ./repository, else the zoo; writers never write to the zoo, but start from a copy."""
    monkeypatch.chdir(tmp_path)
    assert readable_repository({}).root == ZOO
    assert readable_repository({"GENSERVE_MODELS": "elsewhere"}).root == Path("elsewhere")
    with pytest.raises(Refused, match="read-only"):
        writable_repository({"GENSERVE_MODELS": str(ZOO)})
    assert writable_repository({"GENSERVE_MODELS": "empty"}).names() == []
    written = writable_repository({})
    assert written.root == Path("repository")
    assert written.names() == Repository(ZOO).names()
    assert readable_repository({}).root == Path("repository")


def test_two_first_commands_start_one_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both copy the zoo, one is quicker: both go on with its copy, and nothing else is left."""
    zoo = promoted_repository(tmp_path / "zoo").root
    both_copied = threading.Barrier(2, timeout=30)
    rename = Path.rename

    def patient(source: Path, target: Path) -> Path:
        both_copied.wait()
        return rename(source, target)

    monkeypatch.setattr(places, "ZOO", zoo)
    monkeypatch.setattr(Path, "rename", patient)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    errors = _at_once(lambda _: writable_repository({}))
    assert errors == []
    assert Repository("repository").resolve("tiny").manifest() == Repository(zoo).resolve("tiny").manifest()
    assert list(Path().iterdir()) == [Path("repository")]


def test_a_repository_that_cannot_be_started_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk, say: the error comes through, and what was copied is removed."""

    def fill(source: Path, target: Path) -> None:
        target.mkdir()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(places.shutil, "copytree", fill)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OSError, match="No space"):
        writable_repository({})
    assert list(tmp_path.iterdir()) == []
