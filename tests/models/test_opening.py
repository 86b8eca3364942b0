"""A version is opened only if its file, its manifest and this machine agree on what it is."""

import msgspec
import pytest

from models.errors import LoadError
from models.opening import open_unchecked, open_version
from models.repository import Repository
from models.testkit import publish_tiny


@pytest.fixture
def version(tmp_path):
    return publish_tiny(Repository(tmp_path))


def rewrite(version, **changed):
    """Its manifest, with some fields changed."""
    manifest = msgspec.structs.replace(version.manifest(), **changed)
    (version.path / "manifest.json").write_bytes(msgspec.json.encode(manifest))


def test_a_sound_version_opens_with_its_numerics(version):
    """Generator, manifest and numerics of one file."""
    opened = open_version(version)
    assert opened.generator.digest == opened.manifest.digest == version.manifest().digest
    assert len(opened.numerics.hash) == 12


def test_another_file_is_refused(version):
    """A byte more is another digest."""
    version.model_path.write_bytes(version.model_path.read_bytes() + b"\0")
    with pytest.raises(LoadError, match="sha256"):
        open_version(version)


def test_a_manifest_of_another_signature_is_refused(version):
    """Here the manifest claims another prior than the file carries: every latent would be drawn wrongly."""
    rewrite(version, prior="uniform")
    with pytest.raises(LoadError, match="signature differs"):
        open_version(version)
    with pytest.raises(LoadError, match="signature differs"):
        open_unchecked(version, version.manifest())


def test_golden_samples_of_another_file_are_refused(version, tmp_path):
    """Only `open_unchecked` leaves them to its caller."""
    other = publish_tiny(Repository(tmp_path), seed=1)
    rewrite(version, golden=other.manifest().golden)
    with pytest.raises(LoadError, match="golden samples"):
        open_version(version)
    assert open_unchecked(version, version.manifest()).digest == version.manifest().digest
