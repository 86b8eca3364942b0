"""Known-bad generators are refused, each by a check that is meant for it, at three strengths; sound ones pass.

On 3,000 training and 2,000 gate images of Fashion-MNIST; `python -m bench.judging` does the same on all of it.
"""

import dataclasses
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from bench.half_trained import STAGES, half_trained
from bench.known_bad import Broken, Case, Faults, Samples
from models.datasets import load_dataset
from models.errors import Unavailable
from models.extractors import resolve_extractor
from models.frechet import difference
from models.gate import gate
from models.measures import Comparison, Parity
from models.measuring import Fakes, Measured, measure_fakes, measure_floor
from models.policy import Policy
from models.reference import RealFeatures

ZOO = Path(__file__).parents[2] / "models" / "zoo" / "fashion-mnist"
POLICY = Policy(num_fake=2000, num_neighbours=1000)
COUNT = 2000
PARITY = Parity(ok=True, detail="real images")


class Court:
    """The real data, the sound generator measured, and the gate."""

    def __init__(self, cache: Path) -> None:
        try:
            data = load_dataset("fashion-mnist")
        except Unavailable as error:
            pytest.skip(error.detail)
        train, gate_split = data.indices["train"], data.indices["gate"]
        splits = {"train": train[:3000], "validation": train[3000:3100], "gate": gate_split[:COUNT]}
        self.data = dataclasses.replace(data, indices=splits)
        self.extractor = resolve_extractor(None, data)
        self.reals = RealFeatures(self.data, self.extractor, cache=cache)
        self.floor = measure_floor(self.reals, "gate", POLICY)
        rows = train[10_000 : 10_000 + COUNT]
        assert data.labels is not None
        self.faults = Faults(data.samples[rows], data.labels[rows], data.samples[splits["train"]])
        newest = max(ZOO.glob("*/model.onnx"), key=lambda path: int(path.parent.name))
        self.broken = Broken(newest.read_bytes(), COUNT)
        self.champion = self.measure(self.broken.sound())

    def measure(self, samples: Samples) -> Measured:
        names = self.data.class_names if samples.asked is not None else None
        some = samples.images[: POLICY.num_neighbours]
        fakes = Fakes(self.extractor.extract(samples.images), samples.asked, names, some)
        return measure_fakes(fakes, self.reals, "gate", POLICY)

    def refusals(self, samples: Samples, *, compared: bool = False) -> set[str]:
        """The gates that refuse; compared with the sound generator as champion, or with none."""
        found, others = self.measure(samples), []
        if compared:
            own = self.champion.frechet
            delta, se = difference(found.frechet, own)
            others = [Comparison(role="champion", version=1, digest="", fd_inf=own.fd_inf, delta=delta, se=se)]
        decision = gate(found.measures, self.floor, others, POLICY, PARITY)
        assert (decision.decision == "pass") == (not decision.reasons)
        return {reason.split()[0] for reason in decision.reasons}


@pytest.fixture(scope="module")
def court(tmp_path_factory: pytest.TempPathFactory) -> Court:
    return Court(tmp_path_factory.mktemp("cache"))


def refused_by_its_gate(court: Court, case: Case) -> None:
    found = court.refusals(case.make(), compared="G2" in case.gates)
    assert found & case.gates, f"{case.fault}, {case.strength}: refused by {found or 'nothing'}"


FAULTS = ["blurred", "noisy", "darker", "collapsed", "a class rare", "replaying", "replaying mirrored",
          "replaying with noise", "one class bad", "class ignored"]  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_in_real_images_are_refused(court: Court, fault: str) -> None:
    """At every strength, by one of the gates that are meant for it."""
    cases = [case for case in court.faults if case.fault == fault]
    assert len(cases) == 3
    for case in cases:
        refused_by_its_gate(court, case)


@pytest.mark.parametrize("fault", ["wrong prior", "weights rounded"])
def test_faults_in_a_sound_generator_are_refused(court: Court, fault: str) -> None:
    """At every strength, by the comparison with what it was or by the absolute limit."""
    cases = [case for case in court.broken if case.fault == fault]
    assert len(cases) == 3
    for case in cases:
        refused_by_its_gate(court, case)


def test_half_trained_generators_are_refused(court: Court, tmp_path: Path) -> None:
    """A narrow network, cut short three times."""
    narrow = ("--preset", "resize", "--g-channels", "16", "--d-channels", "16", "--threads", "1")
    fast = ("--g-lr", "1e-3", "--d-lr", "1e-3")
    stages = list(half_trained(tmp_path / "run", 9, *narrow, *fast))
    assert len(stages) == STAGES == 3
    for stage, model in stages:
        refused_by_its_gate(court, Case("half-trained", stage, frozenset({"G1"}), partial(court.broken.of, model)))
    first, last = (court.measure(court.broken.of(stages[i][1])).measures.fd for i in (0, -1))
    assert last < first


def test_sound_generators_pass(court: Court) -> None:
    """Real images that nobody has seen, with and without their classes, and the shipped model beside itself."""
    assert not court.refusals(Samples(court.faults.images))
    assert not court.refusals(Samples(court.faults.images, court.faults.labels))
    assert not court.refusals(court.broken.sound())
    assert not court.refusals(Samples(court.faults.images), compared=True)


def test_every_fault_has_its_test(court: Court) -> None:
    """A fault that is added to the table is tested too."""
    named = {case.fault for cases in (court.faults, court.broken) for case in cases}
    assert named == {*FAULTS, "wrong prior", "weights rounded"}
    assert np.all([case.gates for case in court.faults])
