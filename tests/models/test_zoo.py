"""The shipped models are what the README says they are."""

import numpy as np
import pytest

from models.extractors import open_extractor
from models.generator import Generator
from models.latents import draw
from models.mixtures import GRID
from models.policies import check_policy
from models.repository import ZOO, Repository
from models.verify import verify

MAX_BYTES = 12 * 1024 * 1024
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


@pytest.mark.parametrize("name", [NAME, "mnist", "grid"])
def test_what_is_shipped_obeys_the_policy_of_now(name: str) -> None:
    """Each was judged by the thresholds that this code ships, and a server can hold samples against its baseline."""
    repository = Repository(ZOO)
    champion = repository.resolve(name)
    verdict = repository.passing(champion)
    assert verdict is not None
    check_policy(repository, name, champion.manifest().kind, verdict)
    assert verdict.baseline is not None


def test_the_shipped_digits_are_the_digits_asked_for() -> None:
    """98 % of 100 of each, as the shipped classifier of digits reads them."""
    champion = Repository(ZOO).resolve("mnist")
    generator = Generator.open(champion.model_path)
    asked = np.repeat(np.arange(10), 100)
    z = draw(generator.signature, range(1000)).z
    recognised = open_extractor("mnist-cnn").classify(generator.generate(z, asked))
    assert recognised is not None
    assert (recognised == asked).mean() >= 0.98


def test_the_shipped_vectors_reach_every_mode() -> None:
    """Of 25,000 samples 90 % lie within 3 standard deviations of one of the 25 modes, and none lacks half its share."""
    generator = Generator.open(Repository(ZOO).resolve("grid").model_path)
    found = GRID.coverage(generator.generate(draw(generator.signature, range(25_000)).z))
    assert found.modes == 25
    assert found.high_quality >= 0.9
    assert min(found.shares) >= 0.5


def test_the_zoo_is_small() -> None:
    """At most 12 MB in all."""
    assert sum(path.stat().st_size for path in ZOO.rglob("*") if path.is_file()) <= MAX_BYTES


def test_all_ten_kinds_are_drawn() -> None:
    """Of 1,000 samples every kind of article has at least 3 %, as the shipped classifier sees them."""
    champion = Repository(ZOO).resolve(NAME)
    generator = Generator.open(champion.model_path)
    recognised = open_extractor("fashion-cnn").classify(generator.generate(*draw(generator.signature, range(1000))))
    assert recognised is not None
    assert (np.bincount(recognised, minlength=10) >= 30).all()
