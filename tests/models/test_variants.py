"""Variants are recorded whole, opened as promised, and give way to their version where they cannot run."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from models import processor
from models.errors import GenserveError, LoadError, NotFound
from models.latents import draw
from models.opening import open_promised, open_variant, open_version
from models.repository import Repository, Version
from models.runtime import CPU_PROVIDER, CUDA_PROVIDER
from models.testkit import add_tiny_variant, publish_tiny
from models.variants import Variant, add_variant, find_variant, read_recipe, variants

PROMISED = {CPU_PROVIDER: "fast"}


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


@pytest.fixture
def version(repository: Repository) -> Version:
    return publish_tiny(repository)


@pytest.fixture
def variant(repository: Repository, version: Version) -> Variant:
    return add_tiny_variant(repository, version)


def test_a_promised_variant_runs_under_its_own_digest(version: Version, variant: Variant) -> None:
    """So its samples, which differ, never share an address with the version's."""
    opened, plain = open_promised(version, PROMISED), open_version(version)
    assert (opened.variant, opened.passed_over) == ("fast", None)
    assert opened.manifest.digest == opened.generator.digest == variant.manifest().digest != plain.manifest.digest
    assert opened.numerics.hash != plain.numerics.hash
    assert opened.manifest.signature == plain.manifest.signature
    drawn = draw(plain.manifest.signature, range(4))
    assert not np.array_equal(opened.generator.generate(*drawn), plain.generator.generate(*drawn))


def test_without_a_promise_the_version_runs(version: Version, variant: Variant) -> None:
    """Recording a variant changes nothing; neither does a promise for another provider."""
    for promised in ({}, {CUDA_PROVIDER: "fast"}):
        opened = open_promised(version, promised)
        assert (opened.variant, opened.passed_over) == (None, None)
        assert opened.manifest == version.manifest()


def change_manifest(variant: Variant, **changed: object) -> None:
    manifest = msgspec.structs.replace(variant.manifest(), **changed)
    (variant.path / "manifest.json").write_bytes(msgspec.json.encode(manifest))


def require_another_processor(variant: Variant) -> None:
    recipe = msgspec.structs.replace(variant.manifest().recipe, requires=("no_such_isa",))
    change_manifest(variant, recipe=recipe)


def change_recipe(variant: Variant) -> None:
    change_manifest(variant, recipe=msgspec.structs.replace(variant.manifest().recipe, details={"seeds": 1}))


def fail_it(variant: Variant) -> None:
    verdict = msgspec.structs.replace(variant.verdict(), decision="fail", reasons=("too far",))
    (variant.path / "verdict.json").write_bytes(msgspec.json.encode(verdict))


def swap_golden(variant: Variant) -> None:
    other = publish_tiny(Repository(variant.path / "aside"), seed=9)
    change_manifest(variant, golden=other.manifest().golden)


FAULTS: dict[str, tuple[Callable[[Variant], object], str]] = {
    "another file": (lambda v: v.model_path.write_bytes(v.model_path.read_bytes() + b"\0"), "sha256"),
    "no file": (lambda v: v.model_path.unlink(), "cannot read"),
    "no manifest": (lambda v: (v.path / "manifest.json").unlink(), "cannot read"),
    "damaged verdict": (lambda v: (v.path / "verdict.json").write_text("{"), "damaged"),
    "a verdict that is no pass": (fail_it, "'fail': too far"),
    "another processor": (require_another_processor, "needs a processor with no_such_isa"),
    "another recipe": (change_recipe, "recipe differs"),
    "not its golden samples": (swap_golden, "golden samples"),
    "of another version": (lambda v: change_manifest(v, digest="0" * 64), "not of this file"),
}


@pytest.mark.parametrize(("damage", "complaint"), FAULTS.values(), ids=FAULTS)
def test_a_variant_that_cannot_run_gives_way_to_its_version(
    version: Version, variant: Variant, damage: Callable[[Variant], object], complaint: str
) -> None:
    """Never in silence: the reason is told, and digest and numerics are the version's."""
    damage(variant)
    with pytest.raises(LoadError, match=complaint):
        open_variant(variant)
    opened = open_promised(version, PROMISED)
    assert opened.variant is None
    assert opened.passed_over is not None
    assert complaint in opened.passed_over
    assert opened.manifest == version.manifest()


def test_a_promise_of_what_is_not_there_is_told(version: Version) -> None:
    """The folder was deleted, or not copied."""
    assert open_promised(version, PROMISED).passed_over == "fast: tiny@1 has no variant 'fast' (variants: none)"


def test_names_are_counted_up_and_nothing_is_overwritten(repository: Repository, version: Version) -> None:
    """A variant is for ever: the next of that name is another."""
    names = [add_tiny_variant(repository, version).name for _ in range(11)]
    assert names[:2] == ["fast", "fast-2"]
    assert [variant.name for variant in variants(version)] == names
    assert [variant.manifest().name for variant in variants(version)] == names
    with pytest.raises(NotFound, match="fast-11"):
        find_variant(version, "fast-12")


def test_an_interrupted_record_leaves_nothing(
    repository: Repository, version: Version, variant: Variant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole or not at all; the next writer clears what was left."""
    manifest, verdict = variant.manifest(), variant.verdict()

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("models.files.publish_folder", killed)
        with pytest.raises(KeyboardInterrupt):
            add_variant(repository, version, b"x", manifest, verdict)
    assert variants(version) == [variant]
    with repository.writing(version.name):
        assert not list(version.path.parent.glob(".staging*"))


def test_the_recipe_is_part_of_what_is_hashed(version: Version, variant: Variant) -> None:
    """The version's own file has none; metadata that is no recipe is refused."""
    assert read_recipe(version.model_path.read_bytes()) is None
    assert read_recipe(variant.model_path.read_bytes()) == variant.manifest().recipe
    with pytest.raises(GenserveError, match="damaged"):
        read_recipe(variant.model_path.read_bytes().replace(b'"method"', b'"methid"'))


def test_what_a_processor_must_have_is_any_of_a_list(
    repository: Repository, version: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    """avx512_vnni or avx_vnni."""
    variant = add_tiny_variant(repository, version, requires=("one", "other"))
    monkeypatch.setattr(processor, "features", lambda: frozenset({"other"}))
    assert open_variant(variant).variant == "fast"
