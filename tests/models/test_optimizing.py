"""From a version to its variants: what is made, how it is measured and judged, and what is recorded."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from models import processor, variant_making
from models.datasets import load_dataset
from models.errors import NotFound, NotServable
from models.extractors import resolve_extractor
from models.generator import Generator
from models.latents import draw
from models.manifest import stamp
from models.opening import open_variant
from models.optimizing import optimize
from models.publish import publish
from models.reference import RealFeatures
from models.repository import Repository, Version
from models.runtime import CPU_PROVIDER, OPENVINO_PROVIDER, available_providers, make_session
from models.testkit import publish_tiny, tiny_model, tiny_signature
from models.variant_int8 import quantise
from models.variant_judging import VariantPolicy, judge_variant
from models.variant_making import VNNI, candidates
from models.variant_speed import measure_speed
from models.variants import read_recipe, variants

SIGNATURE = tiny_signature(z_dim=16, shape=(8, 8, 1))
POLICY = VariantPolicy(num_samples=300)


def three_layers(*, spread: float = 60.0) -> bytes:
    """A stamped generator of three products: z -> 32 -> 32 -> 64 pixels around 128."""
    stream = np.random.RandomState(0)
    shapes = {"A": (16, 32), "B": (32, 32), "C": (32, 64)}
    weights = {name: stream.standard_normal(shape) * np.sqrt(2 / shape[0]) for name, shape in shapes.items()}
    weights["C"] *= spread / np.sqrt(2)
    tensors = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()]
    tensors += [numpy_helper.from_array(np.array([-1, 8, 8, 1], np.int64), "shape")]
    tensors += [
        numpy_helper.from_array(np.array(value, np.float32), name)
        for name, value in (("low", 0), ("high", 255), ("mid", 128))
    ]
    nodes = [
        helper.make_node("Gemm", ["z", "A"], ["a"]),
        helper.make_node("Relu", ["a"], ["ra"]),
        helper.make_node("Gemm", ["ra", "B"], ["b"]),
        helper.make_node("Relu", ["b"], ["rb"]),
        helper.make_node("Gemm", ["rb", "C"], ["c"]),
        helper.make_node("Add", ["c", "mid"], ["d"]),
        helper.make_node("Clip", ["d", "low", "high"], ["e"]),
        helper.make_node("Cast", ["e"], ["f"], to=TensorProto.UINT8),
        helper.make_node("Reshape", ["f", "shape"], ["images"]),
    ]
    graph = helper.make_graph(
        nodes,
        "three",
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["batch", 16])],
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 8, 8, 1])],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    stamp(model, SIGNATURE)
    return bytes(model.SerializeToString(deterministic=True))


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


@pytest.fixture
def version(repository: Repository) -> Version:
    return publish(repository, "three", three_layers())


@pytest.fixture
def vnni(monkeypatch: pytest.MonkeyPatch) -> None:
    """int8 is right on every processor for weights and activations this small, and only slow without VNNI."""
    monkeypatch.setattr(processor, "features", lambda: frozenset(VNNI))


@pytest.fixture
def on_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this ONNX Runtime has besides."""
    monkeypatch.setattr("models.optimizing.available_providers", lambda: [CPU_PROVIDER])


def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    measure = measure_speed
    monkeypatch.setattr(
        "models.optimizing.measure_speed", lambda ours, theirs: measure(ours, theirs, rounds=3, round_seconds=0.0)
    )


@pytest.mark.parametrize(("kept", "products"), [("first", 2), ("edges", 1)])
def test_products_become_int8_and_the_last_answers_in_float(kept, products):
    """All but the first, or but the first and last; metadata, inputs and outputs stay."""
    model = onnx.load_model_from_string(three_layers())
    feeds = [{"z": draw(SIGNATURE, range(32)).z}]
    made = quantise(model, feeds, kept=kept)
    operations = [node.op_type for node in made.graph.node]
    assert operations.count("QGemm") == products
    assert operations.count("Gemm") == 3 - products
    assert list(made.metadata_props) == list(model.metadata_props)
    assert model.SerializeToString(deterministic=True) == three_layers()
    last = [node for node in made.graph.node if node.op_type in ("QGemm", "Gemm")][-1]
    follower = next(node for node in made.graph.node if last.output[0] in node.input)
    assert follower.op_type == "Add"
    z = draw(SIGNATURE, range(100, 200)).z
    ours, theirs = (make_session(m.SerializeToString()).run(None, {"z": z})[0].astype(int) for m in (made, model))
    assert 0 < np.abs(ours - theirs).mean() < 1.5


def test_a_network_of_one_product_is_not_quantised():
    """There would be nothing left of it in int8."""
    model = onnx.load_model_from_string(tiny_model())
    with pytest.raises(NotServable, match="only 1 of the graph's nodes"):
        quantise(model, [{"z": np.zeros((1, 8), np.float32)}], kept="first")


def test_candidates_follow_provider_and_processor(monkeypatch):
    """Each names what it needs; one that this processor cannot run is told, not made."""
    monkeypatch.setattr(processor, "features", lambda: frozenset({"avx_vnni"}))
    found = {c.recipe.method: c for c in candidates(three_layers(), SIGNATURE, (CPU_PROVIDER, OPENVINO_PROVIDER))}
    assert list(found) == ["int8", "int8-edges", "windows", "bf16", "bf16-graph"]
    assert found["bf16"].make is None
    assert found["bf16"].reason == "this processor has none of amx_bf16, avx512_bf16"
    assert found["int8"].make is not None
    assert found["windows"].recipe.precision == "f32"
    assert [c.recipe.provider for c in candidates(three_layers(), SIGNATURE, (CPU_PROVIDER,))] == [CPU_PROVIDER] * 2


def test_what_is_made_is_recorded_with_its_numbers(repository, version, vnni, on_the_processor, monkeypatch):
    """Each candidate with manifest and verdict; the same file is not recorded twice."""
    quickly(monkeypatch)
    outcomes = list(optimize(repository, version, policy=POLICY))
    assert [outcome.method for outcome in outcomes] == ["int8", "int8-edges"]
    for outcome in outcomes:
        assert outcome.variant in variants(version)
        assert outcome.manifest == outcome.variant.manifest()
        assert outcome.verdict == outcome.variant.verdict()
        assert read_recipe(outcome.variant.model_path.read_bytes()) == outcome.manifest.recipe
        assert outcome.manifest.recipe.parent == version.manifest().digest
        assert {speed.batch for speed in outcome.manifest.speed} == {1, 16}
        assert all(speed.low <= speed.ratio <= speed.high for speed in outcome.manifest.speed)
        assert {"mean error", "largest error", "99.9 % of errors"} < set(outcome.verdict.numbers)
    again = list(optimize(repository, version, policy=POLICY, only=["int8"]))
    assert [outcome.reason for outcome in again] == ["recorded before: int8"]
    assert len(variants(version)) == len(outcomes)


def test_what_fails_is_recorded_as_failed(repository, version, vnni, monkeypatch):
    """With the reasons, and it is promised to nobody."""
    quickly(monkeypatch)
    strict = VariantPolicy(num_samples=300, max_mean_error=0.001)
    (outcome,) = optimize(repository, version, policy=strict, only=["int8"])
    assert outcome.verdict.decision == "fail"
    assert "mean error" in outcome.verdict.reasons[0]
    assert outcome.verdict.policy["max_mean_error"] == 0.001


def test_what_cannot_be_made_says_why(repository, on_the_processor, monkeypatch):
    """A network without products to quantise, a processor without VNNI, and a method that is none."""
    version = publish_tiny(repository)
    monkeypatch.setattr(processor, "features", lambda: frozenset(VNNI))
    (outcome,) = optimize(repository, version, only=["int8"])
    assert "only 1 of the graph's nodes" in outcome.reason
    monkeypatch.setattr(processor, "features", lambda: frozenset())
    assert all(outcome.variant is None for outcome in optimize(repository, version))
    with pytest.raises(NotFound, match="int4 cannot be made"):
        list(optimize(repository, version, only=["int4"]))
    assert variants(version) == []


@pytest.mark.skipif(OPENVINO_PROVIDER not in available_providers(), reason="this ONNX Runtime has no OpenVINO")
def test_openvino_runs_in_float32_unless_a_variant_says_otherwise(repository, version, monkeypatch):
    """Its own default is bf16 where the processor has it; the variants that say so are judged like all others."""
    quickly(monkeypatch)
    drawn = draw(SIGNATURE, range(50))
    plain = Generator.from_bytes(three_layers()).generate(*drawn).astype(int)
    here = Generator.from_bytes(three_layers(), providers=(OPENVINO_PROVIDER,)).generate(*drawn)
    assert np.abs(here - plain).max() <= 1
    outcomes = list(optimize(repository, version, policy=POLICY, only=["windows", "bf16-graph"]))
    assert {outcome.provider for outcome in outcomes} == {OPENVINO_PROVIDER}
    for outcome in outcomes:
        if outcome.variant is not None:
            assert open_variant(outcome.variant).generator.providers[0] == OPENVINO_PROVIDER


def test_a_quantiser_that_fails_is_one_candidate_less(repository, version, vnni, monkeypatch):
    """Whatever it raises, the others are tried."""

    def broken(*_args, **_kwargs):
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(variant_making, "quantise", broken)
    (outcome,) = optimize(repository, version, only=["int8"])
    assert outcome.reason == "it cannot be made: RuntimeError: no such kernel"


def test_a_generator_is_its_own_best_variant():
    """No error, no distance, no loss; another generator fails every question."""
    parent = Generator.from_bytes(three_layers())
    same = judge_variant(Generator.from_bytes(three_layers()), parent, policy=POLICY, created="now")
    assert same.decision == "pass"
    assert same.numbers["largest error"].value == 0
    assert same.numbers[f"FD to parent / Tr[{same.extractor}]"].value == pytest.approx(0, abs=1e-6)
    other = judge_variant(Generator.from_bytes(three_layers(spread=10.0)), parent, policy=POLICY, created="now")
    assert other.decision == "fail"
    assert len(other.reasons) == 3


def test_vectors_are_judged_in_levels_of_their_own_spread():
    """A 64th of the parent's standard deviation is a level, so that one policy serves both kinds."""
    signature = tiny_signature(kind="vector")
    parent = Generator.from_bytes(tiny_model(signature, spread=1.0))
    moved = Generator.from_bytes(tiny_model(signature, spread=1.01))
    numbers = judge_variant(moved, parent, policy=POLICY, created="now").numbers
    z = draw(signature, range(2000))
    spread = parent.generate(*z).std()
    expected = 0.01 * np.abs(parent.generate(*z)).mean() * 64 / spread
    assert numbers["mean error"].value == pytest.approx(expected, rel=0.2)


def test_where_the_data_are_at_hand_the_variant_may_not_be_further_from_them(tmp_path):
    """Paired on latents and reals, so that the parent itself loses exactly nothing."""
    parent = Generator.from_bytes(three_layers())
    images = parent.generate(*draw(SIGNATURE, range(5000, 5600)))
    np.savez(tmp_path / "data.npz", images=images)
    dataset = load_dataset(str(tmp_path / "data.npz"))
    reals = RealFeatures(dataset, resolve_extractor(None, dataset), cache=tmp_path)
    same = judge_variant(Generator.from_bytes(three_layers()), parent, reals=reals, policy=POLICY, created="now")
    loss = same.numbers[f"FD loss / Tr[{same.extractor}]"]
    assert (loss.value, loss.high, loss.passed) == (0.0, 0.0, True)
    other = judge_variant(
        Generator.from_bytes(three_layers(spread=30.0)), parent, reals=reals, policy=POLICY, created="now"
    )
    assert any(reason.startswith("FD loss") for reason in other.reasons)


def test_speed_is_measured_in_turns():
    """Each round has a ratio of its own; a generator against itself is about as fast."""
    parent = Generator.from_bytes(three_layers())
    (speed,) = measure_speed(parent, parent, batches=(4,), rounds=5, round_seconds=0.005)
    assert speed.batch == 4
    assert speed.low <= speed.ratio <= speed.high
    assert 0.2 < speed.ratio < 5
