"""Fakes that are part of the product: tiny real ONNX generators, and repositories that hold them. Needs no torch."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from models import golden
from models.baseline import encode, make_baseline
from models.extractor_manifest import ExtractorManifest
from models.extractors import RANDOM, Extractor, make_extractor
from models.frechet import frechet
from models.generator import Generator, sha256
from models.latents import draw
from models.manifest import Classes, Kind, Manifest, Prior, Signature, stamp
from models.policies import effective_policy
from models.promotion import promote
from models.publish import publish
from models.random_features import DESCRIPTIONS, SEED, convolutional, fourier
from models.records import Number, Verdict
from models.repository import Repository, Version, now
from models.runtime import CPU_PROVIDER
from models.variants import Recipe, Speed, Variant, VariantManifest, VariantVerdict, add_variant, stamp_recipe


def tiny_signature(
    *,
    kind: Kind = "image",
    prior: Prior = "normal",
    z_dim: int = 8,
    shape: Sequence[int] | None = None,
    classes: int = 0,
) -> Signature:
    """A small signature; `classes` equally frequent classes named after their indices."""
    default = (8, 8, 1) if kind == "image" else (2,)
    named = Classes(names=tuple(map(str, range(classes))), frequencies=(1 / classes,) * classes) if classes else None
    return Signature(kind=kind, prior=prior, z_dim=z_dim, shape=tuple(shape or default), classes=named)


def tiny_model(signature: Signature | None = None, *, seed: int = 0, spread: float = 40.0) -> bytes:
    """A serialised, stamped generator: z W + class embedding + 128, as uint8 images or float32 vectors.

    Args:
        signature: what it claims to be; `tiny_signature()` by default.
        seed: of its weights: another seed is another digest.
        spread: standard deviation of its output, in levels.
    """
    signature = signature or tiny_signature()
    stream = np.random.RandomState(seed)
    values = int(np.prod(signature.shape))
    weights = {"W": stream.standard_normal((signature.z_dim, values)) * spread / np.sqrt(signature.z_dim)}
    nodes = [helper.make_node("MatMul", ["z", "W"], ["zW"])]
    inputs = [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["batch", signature.z_dim])]
    last = "zW"
    if signature.classes is not None:
        weights["E"] = stream.standard_normal((signature.num_classes, values)) * spread
        inputs.append(helper.make_tensor_value_info("class_idx", TensorProto.INT64, ["batch"]))
        nodes += [
            helper.make_node("Gather", ["E", "class_idx"], ["embedding"]),
            helper.make_node("Add", [last, "embedding"], ["summed"]),
        ]
        last = "summed"
    nodes += _finish(signature, last)
    element = TensorProto.UINT8 if signature.kind == "image" else TensorProto.FLOAT
    output = helper.make_tensor_value_info(signature.output_name, element, ["batch", *signature.shape])
    tensors = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()]
    tensors += [
        numpy_helper.from_array(np.array([-1, *signature.shape], np.int64), "sample_shape"),
        *(numpy_helper.from_array(np.array(v, np.float32), n) for n, v in (("low", 0), ("high", 255), ("mid", 128))),
    ]
    graph = helper.make_graph(nodes, "tiny", inputs, [output], initializer=tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    stamp(model, signature)
    return bytes(model.SerializeToString(deterministic=True))


def _finish(signature: Signature, last: str) -> list[onnx.NodeProto]:
    if signature.kind == "vector":
        return [helper.make_node("Reshape", [last, "sample_shape"], ["samples"])]
    return [
        helper.make_node("Add", [last, "mid"], ["centred"]),
        helper.make_node("Clip", ["centred", "low", "high"], ["clipped"]),
        helper.make_node("Cast", ["clipped"], ["bytes"], to=TensorProto.UINT8),
        helper.make_node("Reshape", ["bytes", "sample_shape"], ["images"]),
    ]


def fake_verdict(version: Version, manifest: Manifest, *, champion: int | None = None, passed: bool = True) -> Verdict:
    """A verdict that nobody measured, under the policy of now, for tests of what reads verdicts."""
    policy = effective_policy(Repository(version.path.parent.parent), version.name, manifest.kind)
    return Verdict(
        version=version.number,
        digest=manifest.digest,
        decision="pass" if passed else "fail",
        reasons=() if passed else ("FD_inf[fake@0000] 9.0 > 1.0",),
        numbers={"FD_inf[fake@0000]": Number(value=0.5, low=0.4, high=0.6, threshold=1.0, passed=passed)},
        policy=policy.as_dict(),
        policy_hash=policy.hash,
        champion=champion,
        champion_digest=None,
        reference="0" * 64,
        extractor="fake@0000",
        created=now(),
        code_version="test",
    )


def publish_tiny(
    repository: Repository, name: str = "tiny", *, signature: Signature | None = None, seed: int = 0
) -> Version:
    """Publish a tiny generator; it becomes the candidate, without a verdict."""
    return publish(repository, name, tiny_model(signature, seed=seed), why="test kit")


def promote_tiny(
    repository: Repository, name: str = "tiny", *, signature: Signature | None = None, seed: int = 0
) -> Version:
    """Publish a tiny generator, give it a fake passing verdict and promote it."""
    version = publish_tiny(repository, name, signature=signature, seed=seed)
    promote_unmeasured(repository, version)
    return version


def promote_unmeasured(
    repository: Repository, version: Version, *, variants: Mapping[str, str | None] | None = None
) -> None:
    """Promote a version on a fake passing verdict, as benchmarks do with generators that no data belongs to."""
    champion = repository.aliases(version.name).champion
    repository.add_verdict(version, fake_verdict(version, version.manifest(), champion=champion))
    promote(repository, version, why="test kit", variants=variants)


def promote_watched(
    repository: Repository, name: str = "tiny", *, signature: Signature | None = None, seed: int = 0
) -> Version:
    """Promote a tiny generator whose verdict has a baseline: its own samples, a little shifted, are the real ones."""
    version = publish_tiny(repository, name, signature=signature, seed=seed)
    judge_watched(repository, version)
    promote(repository, version, why="test kit")
    return version


def judge_watched(repository: Repository, version: Version, shift: float = 0.01) -> None:
    """Give a version a passing verdict with a baseline, of real samples whose features are so far from its own."""
    manifest = version.manifest()
    generator = Generator.open(version.model_path)
    extractor = random_extractor(manifest.kind, manifest.shape)
    real, fake = (generator.generate(*draw(manifest, range(start, start + 1000))) for start in (0, 1000))
    features = extractor.features(fake), extractor.features(real) + np.float32(shift)
    found = make_baseline(*features, frechet(*features), extractor=extractor, extractor_name=extractor.name)
    assert found is not None  # noqa: S101 for the type checker
    data = encode(found)
    champion = repository.aliases(version.name).champion
    verdict = fake_verdict(version, manifest, champion=champion)
    judged = msgspec.structs.replace(verdict, extractor=extractor.label, baseline=sha256(data))
    repository.add_verdict(version, judged, baseline=data)


def random_extractor(kind: Kind, shape: Sequence[int]) -> Extractor:
    """Random features for samples of a shape."""
    name = RANDOM[kind]
    stream = np.random.RandomState(0)
    graph = (
        convolutional(tuple(shape))
        if kind == "image"
        else fourier(stream.standard_normal((200, *shape)).astype(np.float32))
    )
    architecture, dim = DESCRIPTIONS[name]
    manifest = ExtractorManifest(
        name=name, kind=kind, dim=dim, shape=tuple(shape), architecture=architecture, seed=SEED
    )
    return make_extractor(graph, manifest, threads=1)


def add_tiny_variant(
    repository: Repository,
    version: Version,
    name: str = "fast",
    *,
    passed: bool = True,
    ratio: float = 2.0,
    provider: str = CPU_PROVIDER,
    requires: tuple[str, ...] = (),
) -> Variant:
    """Record a variant of a tiny version: its weights are a hundredth larger, its speed and verdict are made up."""
    digest = version.manifest().digest
    recipe = Recipe(method=name, parent=digest, provider=provider, requires=requires)
    model = onnx.load_model_from_string(version.model_path.read_bytes())
    weights = next(tensor for tensor in model.graph.initializer if tensor.name == "W")
    weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights) * np.float32(1.01), "W"))
    stamp_recipe(model, recipe)
    data = bytes(model.SerializeToString(deterministic=True))
    generator = Generator.from_bytes(data)
    speeds = {"ratio": ratio, "low": ratio, "high": ratio, "images_per_second": ratio, "parent_images_per_second": 1.0}
    manifest = VariantManifest(
        name=name,
        digest=generator.digest,
        recipe=recipe,
        golden=golden.make(generator),
        speed=tuple(Speed(batch=batch, **speeds) for batch in (1, 16)),
        machine="test kit",
        runtime="test kit",
        created=now(),
        code_version="test",
    )
    verdict = VariantVerdict(
        digest=generator.digest,
        parent=digest,
        decision="pass" if passed else "fail",
        reasons=() if passed else ("mean error 9 > 1.5",),
        numbers={"mean error": Number(value=0.5 if passed else 9.0, threshold=1.5, passed=passed)},
        policy={},
        policy_hash="0" * 64,
        extractor="fake@0000",
        created=now(),
        code_version="test",
    )
    return add_variant(repository, version, data, manifest, verdict)


def promoted_repository(root: str | os.PathLike[str], name: str = "tiny", **options: object) -> Repository:
    """A repository with one promoted tiny generator; options as in `tiny_signature`."""
    repository = Repository(Path(root))
    promote_tiny(repository, name, signature=tiny_signature(**options))  # type: ignore[arg-type]
    return repository


class FakeGenerator:
    """A generator without ONNX Runtime: sample = z * 10, as float32 [N, z_dim].

    Attributes:
        calls: sizes of the batches that were run, in order.
    """

    def __init__(self, z_dim: int = 4) -> None:
        self.signature = tiny_signature(kind="vector", z_dim=z_dim, shape=(z_dim,))
        self.digest = "f" * 64
        self.providers: tuple[str, ...] = ("FakeExecutionProvider",)
        self.batch: int | None = None
        self.arithmetic = "fake"
        self.calls: list[int] = []

    def generate(
        self, z: NDArray[np.float32], class_idx: NDArray[np.int64] | None = None
    ) -> NDArray[np.float32]:  # [N, z_dim] -> [N, z_dim]
        """Ten times z."""
        self.calls.append(len(z))
        return z * np.float32(10)

    def fall_back(self) -> bool:
        """There is one form only."""
        return False

    def settle(self) -> None:
        """Nothing to let go of."""
