"""Where extractors lie: found by name, by name and digest, and by the digest that a model's reference keeps."""

import msgspec
import pytest

from models import extractor_store as store
from models import judge, random_features
from models.errors import DataError, Invalid, LoadError, NotFound, Refused
from models.extractor_manifest import ExtractorManifest, LadderTest, Rung
from models.extractors import make_extractor, open_extractor, write_extractor
from models.repository import Repository, check_name
from models.verify import verify
from tests.models.realdata import write_blobs

SEEN = Rung(ladder="noise", strength="sd 5 levels", value=0.1, rise=0.1, error=0.01, seen=True)
LADDER = LadderTest(
    data="blobs", data_hash="0" * 64, num_real=100, num_fake=100, clean_fd=0.0, clean_replay=0.005, rungs=(SEEN,)
)
FAILED = msgspec.structs.replace(LADDER, rungs=(SEEN, msgspec.structs.replace(SEEN, ladder="blur", seen=False)))


def write(repository, name="mine", side=8, aside=False, **facts):
    """An extractor for images of side x side in a repository; its manifest."""
    model = random_features.convolutional((side, side, 1))
    manifest = ExtractorManifest(name=name, dim=224, shape=(side, side, 1), architecture="random", seed=0, **facts)
    manifest = make_extractor(model, manifest, threads=1).manifest
    folder = store.own_folder(repository, manifest)
    write_extractor(store.refused_folder(folder) if aside else folder, model, manifest)
    return manifest


def test_a_name_finds_its_extractor_and_several_must_be_told_apart(tmp_path):
    """name, and name@digits where there are several; the error lists their labels."""
    small = write(tmp_path)
    assert store.find("mine", repository=tmp_path) == store.own_folder(tmp_path, small)
    large = write(tmp_path, side=12)
    with pytest.raises(Invalid, match=rf"say which of .*{large.label}"):
        store.find("mine", repository=tmp_path)
    assert store.find(small.label, repository=tmp_path) == store.own_folder(tmp_path, small)
    with pytest.raises(NotFound, match="fashion-cnn, mnist-cnn, mine, random-conv"):
        store.find("theirs", repository=tmp_path)


def test_a_whole_digest_goes_before_any_name(tmp_path):
    """The very file is found whatever it is called, also among those that ship; without it the name decides."""
    small = write(tmp_path)
    assert store.find("gone", repository=tmp_path, digest=small.digest) == store.own_folder(tmp_path, small)
    shipped = store.kept(None)[0]
    assert store.find("mine", repository=tmp_path, digest=shipped.manifest.digest) == shipped.folder
    assert store.find("mine", repository=tmp_path, digest="0" * 64) == store.own_folder(tmp_path, small)


def test_a_reference_finds_its_extractor_by_digest(tmp_path):
    """Another extractor of the same name does not disturb a model that is published, nor stands in for its own."""
    data = str(write_blobs(tmp_path / "blobs.npz"))
    first = write(tmp_path)
    reference = judge.describe_reference(data, extractor="mine", repository=tmp_path)
    assert reference.extractor_digest == first.digest
    write(tmp_path, side=12)
    assert judge.open_reference(reference, repository=tmp_path).extractor.digest == first.digest
    for path in store.own_folder(tmp_path, first).iterdir():
        path.unlink()
    with pytest.raises(DataError, match="takes images of 12"):
        judge.open_reference(reference, repository=tmp_path)


def test_one_that_failed_the_ladder_is_aside_and_opens_only_once_accepted(tmp_path):
    """No name finds it; its path does, refuses with what it did not see, and an accepting reason brings it back."""
    manifest = write(tmp_path, aside=True, ladder=FAILED)
    with pytest.raises(NotFound):
        store.find("mine", repository=tmp_path)
    aside = store.refused_folder(store.own_folder(tmp_path, manifest))
    assert list(store.folders(tmp_path, refused=True))[-1] == aside
    with pytest.raises(Refused, match="blur at sd 5 levels does not rise"):
        open_extractor(aside)
    assert open_extractor(aside, threads=1, refused=True).digest == manifest.digest
    back = store.set_manifest(aside, msgspec.structs.replace(manifest, accepted="blur does not matter here"))
    assert back == store.find("mine", repository=tmp_path)
    assert open_extractor(back, threads=1).manifest.accepted == "blur does not matter here"


def test_adopting_copies_once_and_never_what_ships(tmp_path):
    """An extractor of a folder somewhere comes into the repository under its name and digest."""
    manifest = write(tmp_path / "elsewhere")
    elsewhere = store.own_folder(tmp_path / "elsewhere", manifest)
    for _ in range(2):
        assert store.adopt(elsewhere, tmp_path / "here") == f"mine@{manifest.digest[:12]}"
    assert store.find("mine", repository=tmp_path / "here") == store.own_folder(tmp_path / "here", manifest)
    store.adopt(store.kept(None)[0].folder, tmp_path / "empty")
    assert not (tmp_path / "empty").exists()


def test_names_that_a_repository_cannot_keep_are_refused(tmp_path):
    """An extractor's name is like a model's, and no model takes the folder of extractors."""
    manifest = ExtractorManifest(name="../up", dim=1, shape=(8, 8, 1), architecture="none", seed=0)
    with pytest.raises(Invalid, match=r"\.\./up"):
        store.own_folder(tmp_path, manifest)
    with pytest.raises(Invalid, match="feature extractors"):
        check_name("extractors")


def test_a_damaged_manifest_hides_no_other(tmp_path):
    """What is damaged is left out of a search, and told when it is opened."""
    good, bad = write(tmp_path), write(tmp_path, "worse", 12)
    folder = store.own_folder(tmp_path, bad)
    (folder / "manifest.json").write_text("{}")
    assert good.name in [entry.manifest.name for entry in store.kept(tmp_path)]
    with pytest.raises(LoadError, match="damaged"):
        open_extractor(folder)


def test_verify_checks_extractors_too(tmp_path):
    """Each is opened; a changed byte, and a folder that is not the digest's, are faults; failing the ladder is none."""
    write(tmp_path, aside=True, ladder=FAILED)
    good, moved, changed = write(tmp_path), write(tmp_path, "moved", 12), write(tmp_path, "changed", 16)
    folder = store.own_folder(tmp_path, moved)
    folder.rename(folder.with_name("elsewhere"))
    model = store.own_folder(tmp_path, changed) / "model.onnx"
    model.write_bytes(model.read_bytes() + b"\0")
    found = {finding.subject: finding.fault for finding in verify(Repository(tmp_path))}
    assert found.pop("extractors/moved/elsewhere").startswith("it belongs into")
    assert "readable" in found.pop(f"extractors/changed/{changed.digest[:12]}")
    assert found == {f"extractors/mine/{good.digest[:12]}{suffix}": None for suffix in ("", ".refused")}
