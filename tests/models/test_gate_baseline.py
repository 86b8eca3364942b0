"""What the gate keeps beside its verdict for servers, and that nobody can change it unseen."""

import numpy as np
import pytest

from models import judge
from models.baseline import Meter, decode
from models.errors import LoadError
from models.extractors import Extractor
from models.generator import Generator
from models.latents import draw
from models.publish import publish
from models.repository import BASELINE_SUFFIX, Repository
from models.testkit import tiny_model
from models.verify import version_fault
from tests.models.realdata import write_blobs

POLICY = {"num_fake": 1000, "num_neighbours": 300, "allow_small": True, "max_fd": 0.08, "max_replay": 0.1}


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """A repository, a version with a verdict, and that verdict."""
    folder = tmp_path_factory.mktemp("judged")
    repository = Repository(folder / "repository")
    reference = judge.describe_reference(str(write_blobs(folder / "blobs.npz")), policy=POLICY)
    version = publish(repository, "blobs", tiny_model(), reference=reference)
    return repository, version, judge.run_gate(repository, version, cache=folder / "cache")


def test_the_gate_keeps_a_baseline(judged):
    """FD_inf is the verdict's; the extractor, made for this data set, is in it; fresh samples surprise nobody."""
    repository, version, verdict = judged
    baseline = decode(repository.baseline(version, verdict))
    extractor = Extractor(baseline.extractor_model, baseline.extractor_manifest, threads=1)
    assert extractor.label == verdict.extractor
    (fd_inf,) = [number.value for name, number in verdict.numbers.items() if name.startswith("FD_inf[")]
    assert baseline.fd_inf == fd_inf
    assert (baseline.num_fake, baseline.block) == (1000, 100)
    generator, meter = Generator.open(version.model_path), Meter(baseline)
    surprises = [
        baseline.surprise(meter.distance(extractor.features(generator.generate(*draw(generator.signature, seeds)))))
        for seeds in np.arange(5_000_000, 5_004_000).reshape(40, 100)
    ]
    assert abs(np.mean(surprises)) < 1


@pytest.mark.parametrize("fault", ["changed", "gone"])
def test_a_baseline_that_is_not_the_verdict_s_is_refused(judged, fault):
    """A byte changed, or the file gone: verify names it, and nobody gets it."""
    repository, version, verdict = judged
    (path,) = (version.path / "verdicts").glob(f"*{BASELINE_SUFFIX}")
    data = path.read_bytes()
    assert version_fault(repository, version) is None
    try:
        if fault == "gone":
            path.unlink()
        else:
            path.write_bytes(data[:-30] + bytes([data[-30] ^ 1]) + data[-29:])
        with pytest.raises(LoadError, match=path.name):
            repository.baseline(version, verdict)
        assert path.name in (version_fault(repository, version) or "")
    finally:
        path.write_bytes(data)
