"""Tampering: whatever is changed in a signed repository, `verify` finds it and who trusts keys only does not serve it.

"Serves" is what a server does: find the champion, load it. What is not covered is here too, with what comes of it.
"""

import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from models import files
from models.errors import LoadError, Refused
from models.history import seal
from models.records import Event, Verdict, fold
from models.repository import BASELINE_SUFFIX, Repository, decode_file, now
from models.testkit import fake_verdict, promote_tiny, publish_tiny
from models.variants import find_variant
from models.verify import verify
from models.vouching import vouch
from serving.loading import load
from tests.models.signed import KEY, STRANGER, faults, judge, serves, trusting

PLACES = 7  # bytes of each file that are changed, one after the other

OF_THE_CHAMPION = (
    "2/manifest.json", "2/samples.png", "2/verdicts/001.json", "2/verdicts/001.sig",
    "2/verdicts/001.closest.png", "aliases.json", "history.jsonl",
)  # fmt: skip
OF_ANOTHER_VERSION = ("1/model.onnx", "1/manifest.json", "1/samples.png", "1/verdicts/001.json", "1/verdicts/001.sig")
OF_ITS_VARIANT = tuple(
    f"2/variants/fast/{name}" for name in ("model.onnx", "manifest.json", "verdict.json", "verdict.sig")
)


def changes(data: bytes) -> Iterator[tuple[str, bytes]]:
    """A bit flipped in the first, the last and some bytes between; cut off; emptied."""
    for place in sorted({round(i * (len(data) - 1) / (PLACES - 1)) for i in range(PLACES)}):
        yield f"byte {place}", data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
    yield "half of it", data[: len(data) // 2]
    yield "all but its end", data[:-2]
    yield "nothing of it", b""


def test_what_is_signed_is_served(root: Path) -> None:
    """The champion with its variant, and another version by its number; nothing is at fault for whoever asks."""
    variant = find_variant(trusting(root).resolve("tiny@2"), "fast")
    assert serves(root) == (2, "fast", variant.manifest().digest)
    assert serves(root, "tiny@1").version == 1
    assert faults(root) == faults(root, trusted=()) == []


@pytest.mark.parametrize("name", OF_THE_CHAMPION)
def test_a_changed_file_is_found_and_refused(root: Path, name: str) -> None:
    """Whichever byte: `verify` finds it with and without keys, and a server refuses the champion."""
    path = root / "tiny" / name
    for what, data in changes(path.read_bytes()):
        path.write_bytes(data)
        assert faults(root), what
        assert faults(root, trusted=()), what
        with pytest.raises(LoadError):
            serves(root)


@pytest.mark.parametrize("name", OF_ANOTHER_VERSION)
def test_a_changed_file_of_another_version_is_its_own_matter(root: Path, name: str) -> None:
    """That version is refused by its number, and the champion goes on."""
    path = root / "tiny" / name
    for what, data in changes(path.read_bytes()):
        path.write_bytes(data)
        assert faults(root), what
        with pytest.raises(LoadError):
            serves(root, "tiny@1")
    assert serves(root).version == 2


def test_a_changed_model_runs_nowhere(root: Path) -> None:
    """A variant that is signed itself goes on in its place; where none is promised the version is refused, as above."""
    path, before = root / "tiny" / "2" / "model.onnx", serves(root)
    for what, data in changes(path.read_bytes()):
        path.write_bytes(data)
        assert faults(root), what
        assert faults(root, trusted=()), what
        assert serves(root) == before


@pytest.mark.parametrize("name", OF_ITS_VARIANT)
def test_a_changed_variant_gives_way_to_its_version(root: Path, name: str) -> None:
    """As any variant that cannot run: never in silence, and with the version's own digest."""
    path = root / "tiny" / name
    for what, data in changes(path.read_bytes()):
        path.write_bytes(data)
        assert faults(root), what
        assert serves(root).variant is None, what


@pytest.mark.parametrize("name", [*OF_THE_CHAMPION, *OF_ITS_VARIANT])
def test_a_missing_file_is_found_and_not_done_without(root: Path, name: str) -> None:
    """A champion without one of its files is refused; a variant gives way."""
    (root / "tiny" / name).unlink()
    assert faults(root)
    if name in OF_ITS_VARIANT:
        assert serves(root).variant is None
    else:
        with pytest.raises((LoadError, Refused)):
            serves_or_none(root)


def serves_or_none(root: Path) -> None:
    """A name without history or aliases has no champion, which is a refusal too."""
    if trusting(root).aliases("tiny").champion is None:
        raise Refused("no champion")
    serves(root)


def test_a_changed_reference_is_found_though_no_server_reads_it(root: Path) -> None:
    """It says what the next version is judged against: what a verdict was judged against is in the verdict."""
    path = root / "tiny" / "reference.json"
    for what, data in changes(path.read_bytes()):
        path.write_bytes(data)
        assert faults(root), what
        assert serves(root).version == 2
    path.unlink()
    assert any("reference.json" in fault for fault in faults(root))


def test_a_changed_baseline_is_found_and_not_used(root: Path) -> None:
    """Its sha256 is in the verdict, which is signed; the version itself is served without being watched by it."""
    repository = trusting(root)
    version = repository.resolve("tiny@2")
    verdict = fake_verdict(version, version.manifest())
    verdict = msgspec.structs.replace(verdict, baseline=hashlib.sha256(b"baseline").hexdigest())
    path = repository.add_verdict(version, verdict, baseline=b"baseline").with_suffix(BASELINE_SUFFIX)
    assert faults(root) == []
    for what, data in changes(path.read_bytes()):
        path.write_bytes(data)
        assert faults(root), what
        assert serves(root).version == 2
        with pytest.raises(LoadError):
            repository.baseline(version, verdict)


def swap_verdicts(root: Path) -> None:
    for name in ("001.json", "001.sig", "001.closest.png"):
        one, two = (root / "tiny" / number / "verdicts" / name for number in "12")
        first, second = one.read_bytes(), two.read_bytes()
        one.write_bytes(second)
        two.write_bytes(first)


def claim_for_another_version(root: Path) -> None:
    """Version 1's verdict, rewritten to speak of version 2, beside version 1's signature."""
    path = root / "tiny" / "2" / "verdicts" / "001.json"
    manifest = trusting(root).resolve("tiny@2").manifest()
    verdict = decode_file(root / "tiny" / "1" / "verdicts" / "001.json", Verdict)
    path.write_bytes(files.pretty_json(msgspec.structs.replace(verdict, version=2, digest=manifest.digest)))
    shutil.copy(root / "tiny" / "1" / "verdicts" / "001.sig", path.with_suffix(".sig"))


def copy_the_model(root: Path) -> None:
    """Version 1's model, manifest and grid under version 2's number."""
    for name in ("model.onnx", "manifest.json", "samples.png"):
        shutil.copy(root / "tiny" / "1" / name, root / "tiny" / "2" / name)


def take_the_signature_away(root: Path) -> None:
    (root / "tiny" / "2" / "verdicts" / "001.sig").unlink()


def sign_with_another_key(root: Path) -> None:
    take_the_signature_away(root)
    vouch(Repository(root, key=STRANGER), "tiny@2")


def add_a_grid(root: Path) -> None:
    """A version that was signed without a sample grid gets one."""
    repository = trusting(root)
    version = repository.resolve("tiny@2")
    version.samples_path.unlink()
    vouch(Repository(root, key=KEY), "tiny@2")
    assert serves(root).version == 2
    version.samples_path.write_bytes(b"a picture")


ATTACKS: dict[str, tuple[Callable[[Path], None], str]] = {
    "swapped verdicts": (swap_verdicts, r"signature of verdicts/001\.json by .* does not hold"),
    "a verdict for another version": (
        claim_for_another_version,
        r"signature of verdicts/001\.json by .* does not hold",
    ),
    "another version's files": (copy_the_model, r"tiny@2: (model\.onnx|manifest\.json) is not as it was signed"),
    "no signature": (take_the_signature_away, r"tiny@2: verdicts/001\.json is not signed.*Mend: genserve sign tiny@2"),
    "another key": (sign_with_another_key, f"signed by {STRANGER.public[:12]}.*not trusted.*GENSERVE_TRUSTED_KEYS"),
    "a grid that nobody signed": (add_a_grid, r"samples\.png is not as it was signed"),
}


@pytest.mark.parametrize(("attack", "complaint"), ATTACKS.values(), ids=ATTACKS)
def test_what_no_trusted_key_signed_is_refused(root: Path, attack: Callable[[Path], None], complaint: str) -> None:
    """The error names the version, the file and the mend, and `verify` says the same."""
    attack(root)
    with pytest.raises(LoadError, match=complaint.replace("+", r"\+")) as refused:
        serves(root)
    assert "Mend: " in refused.value.detail
    assert any(refused.value.detail.removeprefix("tiny@2: ") in fault for fault in faults(root))


class TestReplay:
    """The champion failed a later judgement: its earlier pass must not come back."""

    @pytest.fixture
    def failed(self, root: Path) -> Path:
        repository = trusting(root)
        judge(repository, repository.resolve("tiny@2"), passed=False)
        with pytest.raises(LoadError, match="no passing verdict"):
            serves(root)
        return root / "tiny" / "2" / "verdicts"

    def test_without_the_later_verdict(self, root: Path, failed: Path) -> None:
        """The history names it."""
        for path in failed.glob("002.*"):
            path.unlink()
        with pytest.raises(LoadError, match=r"tiny@2: verdicts/002\.json is gone, though the history names it"):
            serves(root)
        assert faults(root)

    @pytest.mark.parametrize("number", ["002", "003"])
    def test_under_a_later_number(self, root: Path, failed: Path, number: str) -> None:
        """The number is signed with it."""
        for suffix in ("json", "sig", "closest.png"):
            shutil.copy(failed / f"001.{suffix}", failed / f"{number}.{suffix}")
        with pytest.raises(LoadError):
            serves(root)
        assert faults(root)

    def test_an_older_state_put_back_whole_is_taken_for_what_it_was(
        self, root: Path, signed: Path, failed: Path
    ) -> None:
        """Not covered: every file is as a trusted key signed it; nothing in the folder knows that there was more."""
        shutil.rmtree(root)
        shutil.copytree(signed, root)
        assert serves(root).version == 2
        assert faults(root) == []


def test_several_may_sign_one_verdict(root: Path) -> None:
    """For changing keys: who trusts either is content, and the first signature stays."""
    vouch(Repository(root, key=STRANGER), "tiny")
    for key in (KEY, STRANGER):
        repository = Repository(root, trusted=[key.public])
        assert load(repository, repository.resolve("tiny")).version.number == 2
    assert faults(root) == faults(root, trusted=(STRANGER.public,))[2:] == []


def test_only_the_published_file_is_signed_for(root: Path) -> None:
    """Else a signature would give a changed file a good name."""
    version = trusting(root).resolve("tiny@2")
    version.model_path.write_bytes(version.model_path.read_bytes() + b"\0")
    with pytest.raises(Refused, match=r"has digest .* published was"):
        vouch(Repository(root, key=KEY), "tiny@2")


def test_what_nobody_judged_cannot_be_signed(tmp_path: Path) -> None:
    """There is nothing to vouch for; and nothing to sign with, without a key."""
    repository = Repository(tmp_path, key=KEY)
    publish_tiny(repository)
    with pytest.raises(Refused, match="genserve gate tiny@1"):
        vouch(repository, "tiny@1")
    with pytest.raises(Refused, match="GENSERVE_SIGNING_KEY"):
        vouch(Repository(tmp_path), "tiny@1")


def test_without_keys_everything_is_as_before(tmp_path: Path) -> None:
    """Unsigned models are judged, promoted, verified and served; `verify` says that they are unsigned."""
    repository = Repository(tmp_path)
    promote_tiny(repository)
    assert repository.history("tiny")[-1].verdict_keys == ()
    assert load(repository, repository.resolve("tiny")).verdict is not None
    assert [(found.fault, found.note) for found in verify(repository)] == [(None, "unsigned"), (None, "")]
    trusted = Repository(tmp_path, trusted=[KEY.public])
    with pytest.raises(LoadError, match="not signed"):
        load(trusted, trusted.resolve("tiny@1"))


def test_a_cut_off_verdict_leaves_no_signature_behind(tmp_path: Path) -> None:
    """What a killed writer left beside a verdict that never came is not taken for a later verdict's."""
    repository = Repository(tmp_path, key=KEY)
    version = publish_tiny(repository)
    folder = version.path / "verdicts"
    (folder / "001.sig").write_text("left over")
    (folder / "001.closest.png").write_text("left over")
    Repository(tmp_path).add_verdict(version, fake_verdict(version, version.manifest()))
    assert [path.name for path in folder.iterdir()] == ["001.json"]


def test_a_forged_line_with_a_strangers_key_vouches_for_nothing(root: Path) -> None:
    """Its seal and signature hold, but nobody trusts the key."""
    path = root / "tiny" / "history.jsonl"
    for kind in ("promoted", "vouched"):
        event = Event(event=kind, version=1, when=now(), by="x@y", verdict=1)  # type: ignore[arg-type]
        line = msgspec.json.encode(seal("tiny", path.read_bytes(), event, STRANGER))
        path.write_bytes(path.read_bytes() + line + b"\n")
    (root / "tiny" / "aliases.json").write_bytes(files.pretty_json(fold(Repository(root).history("tiny"))))
    assert Repository(root).aliases("tiny").champion == 1
    assert serves(root).version == 2
