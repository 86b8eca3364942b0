"""Variants: a version's generator made faster for some hardware, each with a manifest and a verdict. Judges nothing.

    <root>/<name>/<version>/variants/<variant>/model.onnx, manifest.json, verdict.json, verdict.sig     never change

A variant computes almost the same samples as its parent, the version's model.onnx, so its samples have addresses of
their own: its recipe is written into the file before hashing, and its digest stands where the parent's would.
"""

import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
import onnx

from models import attestation, files
from models.attestation import Attestation, Subject
from models.errors import Invalid, LoadError, NotFound
from models.manifest import Golden
from models.records import Number
from models.repository import Repository, Version, decode_file
from models.runtime import Precision

METADATA_KEY = "genserve_variant"
NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a variant was made, and what runs it; hashed with its weights.

    Args:
        method: what a person calls it: "int8", "bf16".
        parent: sha256 of the version's model.onnx.
        provider: the full name of the only ONNX Runtime provider that it is for.
        precision: that the provider computes float32 tensors in.
        requires: instruction sets of which the processor must have one; () for none.
        details: whatever else decided it, by name.
    """

    method: str
    parent: str
    provider: str
    precision: Precision = "f32"
    requires: tuple[str, ...] = ()
    details: dict[str, int | float | str | list[str]] = {}


class Speed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Images per second on one thread, against the parent as it is served, interleaved on one machine.

    Args:
        batch: images in one call.
        ratio: the median of the rounds' ratios.
        low: the least of them.
        high: the largest.
        images_per_second: of the variant, the median.
        parent_images_per_second: of the parent, the median.
    """

    batch: int
    ratio: float
    low: float
    high: float
    images_per_second: float
    parent_images_per_second: float


class VariantManifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is true of a variant: manifest.json, never changed.

    Args:
        name: of the variant, unique within its version.
        digest: sha256 of its model.onnx, 64 hexadecimal digits.
        recipe: as in the file's metadata.
        golden: its own samples as the machine that made it computed them.
        speed: as measured there, by batch size.
        machine: that it was made and measured on: processor and instruction sets.
        runtime: ONNX Runtime's distribution and version there.
        created: ISO 8601, UTC.
        code_version: of genserve.
        format: of this file.
    """

    name: str
    digest: str
    recipe: Recipe
    golden: tuple[Golden, ...]
    speed: tuple[Speed, ...]
    machine: str
    runtime: str
    created: str
    code_version: str
    format: int = 1

    @property
    def ratio(self) -> float:
        """How much faster than its parent at the batch size that it helps least."""
        return min((speed.ratio for speed in self.speed), default=0.0)


class VariantVerdict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a variant was found to be beside its parent: verdict.json.

    Args:
        digest: of the variant that was judged.
        parent: digest of the version's model.onnx.
        decision: whether its samples are its parent's as far as anybody could tell.
        reasons: what it failed by.
        numbers: every number with its threshold.
        policy: thresholds by name.
        policy_hash: of them.
        extractor: its label.
        created: ISO 8601, UTC.
        code_version: of genserve.
        format: of this file.
    """

    digest: str
    parent: str
    decision: Literal["pass", "fail"]
    reasons: tuple[str, ...]
    numbers: dict[str, Number]
    policy: dict[str, float | int]
    policy_hash: str
    extractor: str
    created: str
    code_version: str
    format: int = 1

    def loss(self, label: str) -> float | None:
        """Upper bound of what its FD to real data is larger by than its parent's, over Tr S_real and never below 0.

        None where it was not measured in the features of this label.
        """
        number = self.numbers.get(loss_name(label))
        return None if number is None or number.high is None else max(0.0, number.high)


def loss_name(label: str) -> str:
    """What the number is called that `VariantVerdict.loss` reads."""
    return f"FD loss / Tr[{label}]"


@dataclass(frozen=True)
class Variant:
    """One recorded variant; its files never change."""

    version: Version
    name: str

    def __str__(self) -> str:
        return f"{self.version} {self.name}"

    @property
    def path(self) -> Path:
        """Its folder."""
        return self.version.path / "variants" / self.name

    @property
    def model_path(self) -> Path:
        """The ONNX file."""
        return self.path / "model.onnx"

    def manifest(self) -> VariantManifest:
        """Read manifest.json.

        Raises:
            LoadError: missing or damaged.
        """
        return decode_file(self.path / "manifest.json", VariantManifest)

    def verdict(self) -> VariantVerdict:
        """Read verdict.json.

        Raises:
            LoadError: missing or damaged.
        """
        return decode_file(self.path / "verdict.json", VariantVerdict)

    @property
    def subject(self) -> Subject:
        """What its verdict speaks of."""
        return _subject(self.version, self.name, self.path)

    def attested(self, trusted: Collection[str]) -> Attestation | None:
        """The signatures of its verdict, where they hold; None for an unsigned one where no keys are trusted.

        Raises:
            LoadError: they do not, or none is by a trusted key.
        """
        return attestation.check(self.subject, trusted or None)

    def passing(self, trusted: Collection[str] = ()) -> VariantManifest:
        """Its manifest, where its verdict over this very file and this very parent is a pass.

        Args:
            trusted: public keys of which one must have signed that verdict; none for any verdict.

        Raises:
            LoadError: it is not, or its files are damaged.
        """
        manifest, verdict, parent = self.manifest(), self.verdict(), self.version.manifest().digest
        if (verdict.digest, verdict.parent, manifest.recipe.parent) != (manifest.digest, parent, parent):
            raise LoadError(f"{self}: its manifest and verdict are not of this file and this version")
        if verdict.decision != "pass":
            raise LoadError(f"{self}: its verdict is {verdict.decision!r}: {'; '.join(verdict.reasons)}")
        if trusted:
            self.attested(trusted)
        return manifest


def variants(version: Version) -> list[Variant]:
    """All variants of a version, by name; "int8-10" after "int8-9"."""
    folder = version.path / "variants"
    found = [entry.name for entry in folder.iterdir() if entry.is_dir()] if folder.is_dir() else []
    return [Variant(version, name) for name in sorted(filter(NAME.fullmatch, found), key=_natural)]


def find_variant(version: Version, name: str) -> Variant:
    """A variant by its name.

    Raises:
        NotFound: there is none; the detail lists those there are.
    """
    known = variants(version)
    if found := next((variant for variant in known if variant.name == name), None):
        return found
    listed = ", ".join(variant.name for variant in known) or "none"
    raise NotFound(f"{version} has no variant {name!r} (variants: {listed})", field="variant")


def add_variant(
    repository: Repository, version: Version, model: bytes, manifest: VariantManifest, verdict: VariantVerdict
) -> Variant:
    """Record a variant with its verdict, whole or not at all; its name is counted up where it is taken.

    Args:
        repository: the one that the version lies in.
        version: the parent.
        model: the ONNX file.
        manifest: its name is what it is called if nothing is called so yet.
        verdict: passing or not: what failed is kept too.
    """
    with repository.writing(version.name):
        taken = {variant.name for variant in variants(version)}
        name, count = manifest.name, 1
        while name in taken:
            count += 1
            name = f"{manifest.name}-{count}"
        staging = version.path.parent / f".staging-variant-{os.getpid()}"  # where an interrupted one is cleared away
        staging.mkdir()
        named = msgspec.structs.replace(manifest, name=name)
        contents = {"model.onnx": model, "manifest.json": files.pretty_json(named)}
        contents["verdict.json"] = files.pretty_json(verdict)
        if repository.key is not None:
            signed = attestation.attest(_subject(version, name, staging), repository.key, contents)
            contents["verdict.sig"] = signed
        for filename, data in contents.items():
            files.write_file(staging / filename, data)
        variant = Variant(version, name)
        variant.path.parent.mkdir(exist_ok=True)
        files.publish_folder(staging, variant.path)
    return variant


def best_variants(version: Version, *, min_speedup: float, trusted: Collection[str] = ()) -> dict[str, str]:
    """For each provider the fastest variant that passed, where it is at least so much faster than the parent.

    Args:
        version: the parent.
        min_speedup: times the parent's speed.
        trusted: see Variant.passing.
    """
    best: dict[str, tuple[float, str]] = {}
    for variant in variants(version):
        try:
            manifest = variant.passing(trusted)
        except LoadError:  # it failed, is damaged or not trusted: either way it serves nobody
            continue
        fastest, _ = best.get(manifest.recipe.provider, (0.0, ""))
        if manifest.ratio >= min_speedup and manifest.ratio > fastest:
            best[manifest.recipe.provider] = (manifest.ratio, variant.name)
    return {provider: name for provider, (_, name) in sorted(best.items())}


def _subject(version: Version, name: str, folder: Path) -> Subject:
    return Subject(f"{version}/variants/{name}", folder, "verdict.json")


def stamp_recipe(model: onnx.ModelProto, recipe: Recipe) -> None:
    """Write the recipe into an ONNX model's metadata, so that its digest covers what runs it."""
    entry = next((entry for entry in model.metadata_props if entry.key == METADATA_KEY), None)
    entry = model.metadata_props.add() if entry is None else entry
    entry.key, entry.value = METADATA_KEY, msgspec.json.encode(recipe, order="sorted").decode()


def read_recipe(data: bytes) -> Recipe | None:
    """The recipe in an ONNX file; None for a file that is no variant.

    Raises:
        Invalid: what is written there is no recipe.
    """
    for entry in onnx.load_model_from_string(data).metadata_props:
        if entry.key == METADATA_KEY:
            try:
                return msgspec.json.decode(entry.value, type=Recipe)
            except msgspec.DecodeError as error:
                raise Invalid(f"the {METADATA_KEY!r} metadata is damaged: {error}", field="metadata") from error
    return None


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in name.split("-")]
