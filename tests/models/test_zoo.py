"""The shipped model is what the README says it is."""

import numpy as np

from models.extractors import open_extractor
from models.generator import Generator
from models.latents import draw
from models.repository import ZOO, Repository
from models.verify import verify

MAX_BYTES = 8 * 1024 * 1024
NAME = "fashion-mnist"


def test_the_zoo_is_sound() -> None:
    """Every file, verdict, alias and golden sample of every shipped model."""
    findings = list(verify(Repository(ZOO)))
    assert len(findings) >= 2
    assert [finding for finding in findings if finding.fault] == []


def test_the_shipped_champion_passed_the_gate() -> None:
    """On fifty thousand fakes, after at least a million images seen, trained by a configuration of this repository."""
    repository = Repository(ZOO)
    champion = repository.resolve(NAME)
    verdict = repository.passing(champion)
    provenance = champion.manifest().provenance
    assert verdict is not None
    assert verdict.policy["num_fake"] == 50_000
    assert provenance.source == "trained"
    assert provenance.configuration is not None
    assert provenance.configuration["kimg"] >= 1000
    assert {"promoted", "judged", "published"} <= {event.event for event in repository.history(NAME)}


def test_the_zoo_is_small() -> None:
    """At most 8 MB in all."""
    assert sum(path.stat().st_size for path in ZOO.rglob("*") if path.is_file()) <= MAX_BYTES


def test_all_ten_kinds_are_drawn() -> None:
    """Of 1,000 samples every kind of article has at least 3 %, as the shipped classifier sees them."""
    champion = Repository(ZOO).resolve(NAME)
    generator = Generator.open(champion.model_path)
    recognised = open_extractor("fashion-cnn").classify(generator.generate(*draw(generator.signature, range(1000))))
    assert recognised is not None
    assert (np.bincount(recognised, minlength=10) >= 30).all()
