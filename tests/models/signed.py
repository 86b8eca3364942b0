"""A signed repository to tamper with, and what those make of it who trust its key alone."""

from pathlib import Path
from typing import NamedTuple

from models.keys import make_key
from models.promotion import promote
from models.records import Reference
from models.repository import Repository, Version
from models.testkit import add_tiny_variant, fake_verdict, publish_tiny
from models.verify import verify
from serving.loading import load

KEY, STRANGER = make_key(), make_key()
REFERENCE = Reference(data="d", data_hash="0", splits={}, extractor="e", extractor_digest="0")


class Served(NamedTuple):
    """What answers for a name."""

    version: int
    variant: str | None
    digest: str


def judge(repository: Repository, version: Version, *, passed: bool = True) -> None:
    champion = repository.aliases(version.name).champion
    verdict = fake_verdict(version, version.manifest(), champion=champion, passed=passed)
    repository.add_verdict(version, verdict, closest=b"a picture")


def fill(root: Path) -> Path:
    """Two versions, the second the champion with a variant, everything signed."""
    repository = Repository(root, key=KEY, trusted=[KEY.public])
    repository.set_reference("tiny", REFERENCE)
    for seed in (1, 2):
        version = publish_tiny(repository, seed=seed)
        if seed == 2:
            add_tiny_variant(repository, version)
        judge(repository, version)
        promote(repository, version, why="better")
    return root


def trusting(root: Path) -> Repository:
    return Repository(root, key=KEY, trusted=[KEY.public])


def serves(root: Path, which: str = "tiny") -> Served:
    """What a server that trusts the key alone would serve; LoadError where it refuses."""
    repository = Repository(root, trusted=[KEY.public])
    model = load(repository, repository.resolve(which))
    return Served(model.version.number, model.variant, model.manifest.digest)


def faults(root: Path, *, trusted: tuple[str, ...] = (KEY.public,)) -> list[str]:
    return [f"{found.subject}: {found.fault}" for found in verify(Repository(root, trusted=trusted)) if found.fault]
