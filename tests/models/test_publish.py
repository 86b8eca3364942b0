"""Publishing makes a whole version or none."""

import io
from pathlib import Path

import pytest
from PIL import Image

from models.errors import Invalid, NotServable
from models.publish import publish
from models.records import Reference
from models.repository import Repository
from models.testkit import promoted_repository, tiny_model, tiny_signature
from models.verify import verify


def test_a_version_has_all_its_files(tmp_path: Path) -> None:
    """Our own exports are taken byte for byte; the manifest repeats the signature; the grid shows 64 samples."""
    repository = Repository(tmp_path)
    version = publish(repository, "tiny", tiny_model(), prior="normal", why="first")
    manifest = version.manifest()
    assert version.model_path.read_bytes() == tiny_model()
    assert manifest.signature == tiny_signature()
    assert (manifest.name, manifest.version, len(manifest.golden)) == ("tiny", 1, 8)
    assert Image.open(io.BytesIO(version.samples_path.read_bytes())).size == (64, 64)
    assert repository.history("tiny")[0].why == "first"


def test_a_vector_model_has_no_picture(tmp_path: Path) -> None:
    """But all else."""
    version = publish(Repository(tmp_path), "ring", tiny_model(tiny_signature(kind="vector")))
    assert not version.samples_path.exists()
    assert version.manifest().kind == "vector"


def test_the_prior_is_checked(tmp_path: Path) -> None:
    """A wrong one is refused; nothing is published."""
    with pytest.raises(Invalid, match="signature says normal"):
        publish(Repository(tmp_path), "tiny", tiny_model(), prior="uniform")
    with pytest.raises(NotServable, match="not an ONNX"):
        publish(Repository(tmp_path), "tiny", b"junk", prior="normal")
    assert Repository(tmp_path).names() == []


def test_the_reference_is_kept_for_the_name(tmp_path: Path) -> None:
    """It says what the gate judges against."""
    repository = Repository(tmp_path)
    reference = Reference(data="d", data_hash="0" * 64, splits={"gate": 9}, extractor="e", extractor_digest="1" * 64)
    publish(repository, "tiny", tiny_model(), reference=reference)
    assert repository.reference("tiny") == reference


def test_verify_finds_each_fault(tmp_path: Path) -> None:
    """A sound repository has none; a changed file, manifest, alias or verdict is named."""
    repository = promoted_repository(tmp_path)
    assert [finding.fault for finding in verify(repository)] == [None, None]
    version = repository.resolve("tiny")
    cases = {
        version.model_path: (lambda data: data[:-1] + b"\0", "sha256"),
        version.path / "manifest.json": (lambda data: data.replace(b'"version": 1', b'"version": 2'), "tiny@2"),
        version.path / "verdicts" / "001.json": (
            lambda data: data.replace(b'"version": 1', b'"version": 7'),
            "another",
        ),
        tmp_path / "tiny" / "aliases.json": (lambda data: data.replace(b"1", b"null"), "history means"),
        tmp_path / "tiny" / "history.jsonl": (lambda data: b"junk\n" + data, "damaged"),
    }
    for path, (damage, complaint) in cases.items():
        sound = path.read_bytes()
        path.write_bytes(damage(sound))
        faults = [finding.fault for finding in verify(repository) if finding.fault]
        assert any(complaint in fault for fault in faults), (path.name, faults)
        path.write_bytes(sound)
