"""Published versions are measured as they are served, on the right split, and their verdicts are kept."""

import shutil

import msgspec
import numpy as np
import pytest
from PIL import Image

from models import judge, measuring
from models.datasets import load_dataset
from models.errors import LoadError, Refused
from models.extractors import resolve_extractor
from models.gate import gate
from models.generator import Generator
from models.latents import draw
from models.measures import Parity
from models.measuring import Fakes, measure_fakes, measure_floor
from models.policy import Policy
from models.promotion import promote
from models.publish import publish
from models.records import Reference
from models.reference import RealFeatures
from models.report import format_report, format_verdict
from models.repository import Repository
from models.retiring import retire
from models.testkit import fake_verdict, promote_unmeasured, tiny_model, tiny_signature
from tests.models.realdata import write_blobs

# Limits that 300 gate samples can tell from noise; the defaults are for 10,000.
POLICY = {
    "num_fake": 1000,
    "num_neighbours": 300,
    "allow_small": True,
    "max_fd": 0.08,
    "margin_absolute": 0.08,
    "max_replay": 0.1,
}


@pytest.fixture
def house(tmp_path):
    """A repository, and the data that the test kit's first generator draws perfectly."""
    data = str(write_blobs(tmp_path / "blobs.npz"))
    return House(Repository(tmp_path / "repository"), data, tmp_path / "cache")


class House:
    def __init__(self, repository, data, cache):
        self.repository, self.data, self.cache = repository, data, cache

    def publish(self, model=None, *, judged=True, policy=None):
        reference = judge.describe_reference(self.data, policy=policy or POLICY) if judged else None
        return publish(self.repository, "blobs", model or tiny_model(), reference=reference)

    def promotable(self, model=None, *, champion=None):
        """A version with a passing verdict that nobody measured."""
        version = self.publish(model)
        verdict = fake_verdict(version, version.manifest(), champion=champion)
        self.repository.add_verdict(version, verdict)
        return version, verdict

    def gate(self, version, **options):
        return judge.run_gate(self.repository, version, cache=self.cache, **options)


def test_a_perfect_generator_passes_and_can_be_promoted(house):
    """Measured on the gate split it passes; the verdict is kept and lets the promotion through."""
    version = house.publish()
    verdict = house.gate(version)
    assert (verdict.decision, verdict.reasons) == ("pass", ())
    assert house.repository.passing(version) == verdict
    assert verdict.champion is None
    promote(house.repository, version)
    assert house.repository.aliases("blobs").champion == version.number


def test_a_worse_candidate_is_refused_and_the_champion_stays(house):
    """A generator of other images fails with readable reasons, against the champion too."""
    champion = house.publish()
    house.gate(champion)
    promote(house.repository, champion)
    worse = house.publish(tiny_model(seed=1))
    verdict = house.gate(worse)
    label = verdict.extractor
    assert verdict.decision == "fail"
    assert {reason.split()[0] for reason in verdict.reasons} >= {"G1", "G2"}
    assert f"FD_inf/Tr[{label}]" in verdict.reasons[0]
    assert (verdict.champion, verdict.champion_digest) == (champion.number, champion.manifest().digest)
    with pytest.raises(Refused, match="fail"):
        promote(house.repository, worse)
    assert house.repository.aliases("blobs").champion == champion.number


def test_an_equal_candidate_is_compared_with_champion_and_best(house):
    """Champion and best ever promoted are measured again under this policy; a version never with itself."""
    first, second = house.publish(), house.publish()
    for version in (first, second):
        house.gate(version)
        promote(house.repository, version)
    reals = judge.open_reference(house.repository.reference("blobs"))
    third = house.publish()
    named = {number.number: role for role, number in judge.rivals(house.repository, third, reals, second)}
    name = f"FD_inf[{reals.extractor.label}]"
    best = min((first, second), key=lambda version: house.repository.passing(version).numbers[name].value)
    assert named == {second.number: "champion"} | ({first.number: "best"} if best == first else {})
    assert all(number != second for _, number in judge.rivals(house.repository, second, reals, second))
    assert house.gate(third).decision == "pass"


def test_the_champion_is_not_judged_again(house):
    """It serves by the verdict of its promotion, which another one would put aside; it may still be measured."""
    version, passing = house.promotable()
    promote(house.repository, version)
    with pytest.raises(Refused, match=r"blobs@1 is the champion: `genserve evaluate`.*blobs@candidate"):
        house.gate(version)
    assert house.repository.verdicts(version) == [passing]


def test_a_version_promoted_while_it_is_judged_keeps_its_verdict(house):
    """As if it had been the champion before."""
    version, passing = house.promotable()

    def promote_now(name, total):
        if house.repository.aliases("blobs").champion is None:
            promote(house.repository, version)
        return lambda done: None

    with pytest.raises(Refused, match="is the champion"):
        house.gate(version, num_fake=100, progress=promote_now)
    assert house.repository.verdicts(version) == [passing]


def test_the_champion_at_the_start_is_the_one_in_the_verdict(house):
    """Another promotion during the minutes of measuring changes neither its number nor its digest."""
    first, _ = house.promotable()
    promote(house.repository, first)
    second, _ = house.promotable(tiny_model(seed=1), champion=first.number)
    third = house.publish()

    def promote_now(name, total):
        if house.repository.aliases("blobs").champion == first.number:
            promote(house.repository, second)
        return lambda done: None

    verdict = house.gate(third, num_fake=100, progress=promote_now)
    assert house.repository.aliases("blobs").champion == second.number
    assert (verdict.champion, verdict.champion_digest) == (first.number, first.manifest().digest)


def test_what_it_must_be_compared_with_is_opened_before_anything_is_drawn(house):
    """A champion whose file is damaged, or not there, refuses at once."""
    champion, _ = house.promotable()
    promote(house.repository, champion)
    candidate = house.publish(tiny_model(seed=1))
    stages = []
    champion.model_path.write_bytes(champion.model_path.read_bytes() + b"\0")
    with pytest.raises(Refused, match="blobs@1, the champion to compare with, cannot be measured: the file's sha256"):
        house.gate(candidate, progress=lambda name, total: stages.append(name))
    assert stages == []
    shutil.rmtree(champion.path)
    with pytest.raises(LoadError, match="names version 1, which is not there"):
        house.gate(candidate)


def test_candidates_are_judged_after_a_champion_of_old_was_retired(house):
    """What is gone is compared with nobody; what is there still is."""
    for _ in range(3):
        promote_unmeasured(house.repository, house.publish())
    retire(house.repository, house.repository.resolve("blobs@1"))
    verdict = house.gate(house.publish())
    assert verdict.decision == "pass"
    assert verdict.champion == 3


def test_a_history_that_names_a_missing_verdict_is_damaged(house):
    """The error says which verdict of which version."""
    champion, _ = house.promotable()
    promote(house.repository, champion)
    (champion.path / "verdicts" / "001.json").unlink()
    reals = judge.open_reference(house.repository.reference("blobs"))
    with pytest.raises(LoadError, match=r"blobs/history.jsonl names verdict 1 of blobs@1, which has 0"):
        judge.rivals(house.repository, house.publish(), reals, champion)


def test_a_manifest_of_another_signature_is_not_judged(house):
    """Its latents would be drawn from another prior than the file was made for."""
    version = house.publish()
    claimed = msgspec.structs.replace(version.manifest(), prior="uniform")
    (version.path / "manifest.json").write_bytes(msgspec.json.encode(claimed))
    with pytest.raises(LoadError, match="signature differs"):
        house.gate(version)


def test_a_reference_keeps_the_resolution_of_a_folder(tmp_path):
    """Images of 12 pixels are read, and judged, at 8; one without a resolution is an older genserve's."""
    (tmp_path / "images").mkdir()
    for i, image in enumerate(np.random.RandomState(0).randint(0, 256, (40, 12, 12), np.uint8)):
        Image.fromarray(image).save(tmp_path / "images" / f"{i}.png")
    reference = judge.describe_reference(str(tmp_path / "images"), resolution=8)
    assert judge.open_reference(reference).dataset.shape[:2] == (8, 8)
    older = msgspec.json.encode({k: v for k, v in msgspec.structs.asdict(reference).items() if k != "resolution"})
    assert msgspec.json.decode(older, type=Reference).resolution is None


def test_a_reference_is_described_without_copying_the_data(house, monkeypatch):
    """The splits' sizes are the lengths of their indices."""
    dataset = load_dataset(house.data)
    monkeypatch.setattr(type(dataset), "split", None)
    reference = judge.describe_reference(house.data, dataset=dataset)
    assert sum(reference.splits.values()) == len(dataset.samples)


def test_a_replaying_generator_is_refused_by_replay_alone(house):
    """Training samples handed out as fakes fail G5 in both spaces, and are counted as exact copies."""
    dataset = load_dataset(house.data)
    reals = RealFeatures(dataset, resolve_extractor(None, dataset))
    samples = reals.split("train").samples[:1000]
    fakes = Fakes(reals.extractor.extract(samples), None, None, samples[:300])
    policy = msgspec.convert(POLICY, Policy)
    measures = measure_fakes(fakes, reals, "gate", policy).measures
    assert measures.duplicates == measures.replay.share == measures.pixel_replay.share == 1.0
    floor = measure_floor(reals, "gate", policy)
    decision = gate(measures, floor, (), policy, Parity(ok=True, detail=""))
    assert [reason.split()[0] for reason in decision.reasons] == ["G5", "G5"]


def test_an_evaluation_measures_the_validation_split_and_writes_nothing(house):
    """No verdict is left, and its table names every number's extractor."""
    version = house.publish()
    report = judge.evaluate(house.repository, version, num_fake=300, cache=house.cache)
    assert house.repository.verdicts(version) == []
    assert report.measures.num_real == house.repository.reference("blobs").splits["validation"]
    table = format_report(report)
    assert f"FD_inf[{report.extractor}]" in table
    assert "validation split" in table


def test_a_verdict_renders_as_a_table(house):
    """The decision, its reasons, and limit and outcome of every check."""
    verdict = house.gate(house.publish(tiny_model(seed=1)))
    table = format_verdict("blobs", verdict)
    assert "FAIL" in table
    assert "class shares: not applicable" in table
    assert all(reason in table for reason in verdict.reasons)


def test_the_same_file_is_measured_the_same_again(house):
    """Latents follow from digest and policy alone: two gates give the same numbers; another policy draws others."""
    version = house.publish()
    first, second = house.gate(version), house.gate(version)
    assert first.numbers == second.numbers
    assert house.gate(version, num_fake=410).numbers != first.numbers


def test_latent_seeds_depend_on_candidate_and_policy():
    """Seeds are distinct streams for distinct texts, cover the whole range of seeds, and are the same everywhere."""
    a, b = measuring.hashed_seeds("a", 1000), measuring.hashed_seeds("b", 1000)
    assert not np.array_equal(a, b)
    assert a.dtype == np.uint32
    assert a.max() > 2**31


def test_without_data_the_gate_is_closed(house):
    """A version published without --data is refused before anything is measured."""
    version = house.publish(judged=False)
    with pytest.raises(Refused, match="without --data"):
        house.gate(version)


def test_changed_data_is_refused(house):
    """Data with another content than at publishing is not judged against."""
    version = house.publish()
    write_blobs(house.cache.parent / "blobs.npz", seed=9)
    with pytest.raises(Refused, match="was published against"):
        house.gate(version)


def test_samples_of_another_shape_are_refused(house):
    """The error says both shapes."""
    version = house.publish(tiny_model(tiny_signature(shape=(4, 4, 1))))
    with pytest.raises(Refused, match=r"4 x 4 x 1.*8 x 8 x 1"):
        house.gate(version)


def test_broken_golden_samples_fail_parity(house):
    """A manifest whose golden samples the file does not make fails G0."""
    version = house.publish()
    manifest = version.manifest()
    other = house.publish(tiny_model(seed=3)).manifest()
    broken = msgspec.structs.replace(manifest, golden=other.golden)
    (version.path / "manifest.json").write_bytes(msgspec.json.encode(broken))
    verdict = house.gate(version)
    assert verdict.decision == "fail"
    assert verdict.reasons[0].startswith("G0 parity")


def test_few_gate_samples_are_insufficient(house):
    """With the default 2,000 a gate split of 300 cannot pass."""
    version = house.publish(policy={**POLICY, "allow_small": False})
    assert house.gate(version).decision == "insufficient"


def test_conditional_generators_and_vectors_are_judged(tmp_path):
    """A generator of vectors, judged with Fourier features; classes are drawn by their frequencies."""
    signature = tiny_signature(kind="vector", shape=(2,), classes=3)
    generator = Generator.from_bytes(tiny_model(signature))
    samples = generator.generate(*draw(generator.signature, range(3000)))
    np.savez(tmp_path / "vectors.npz", samples=samples)
    repository = Repository(tmp_path / "repository")
    reference = judge.describe_reference(str(tmp_path / "vectors.npz"), policy=POLICY)
    for seed, decision in ((0, "pass"), (1, "fail")):
        version = publish(repository, "vectors", tiny_model(signature, seed=seed), reference=reference)
        assert judge.run_gate(repository, version, cache=tmp_path / "cache").decision == decision
    (verdict,) = repository.verdicts(repository.resolve("vectors@1"))
    assert verdict.extractor.startswith("random-fourier@")
