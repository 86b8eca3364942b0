"""Measures published versions against real data and has the gate decide. Knows no torch and no HTTP.

A version is measured as it is served: its model.onnx on ONNX Runtime, latents drawn as for requests. `evaluate` uses
the validation split and decides nothing; `run_gate` alone opens the gate split, and keeps what it decides as a verdict.
"""

from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from models import golden, png
from models.baseline import encode, make_baseline
from models.closest import NUM_COMPARED, closest
from models.datasets import Dataset, load_dataset
from models.errors import GenserveError, LoadError, Refused
from models.extractors import resolve_extractor
from models.frechet import difference
from models.gate import Check, gate, numbers, report_checks
from models.generator import Generator, sha256
from models.inventory import MAX_SKIPPED_SHARE
from models.latents import draw
from models.manifest import Signature
from models.measures import Comparison, Floor, Measures, Parity
from models.measuring import Measured, draw_fakes, measure, measure_distance, measure_floor
from models.opening import open_unchecked
from models.policies import effective_policy
from models.policy import Policy, make_policy
from models.records import Number, Reference, Verdict
from models.reference import RealFeatures, Stage, cache_folder
from models.repository import Repository, Version, now
from models.rivals import champion_besides, rivals
from models.runtime import available_cores
from models.splits import SPLIT_NAMES
from models.version import code_version


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What an evaluation measured, on the validation split; it decides nothing.

    Args:
        version: name@number.
        digest: of its model.onnx.
        data: the data set's name.
        split: of it.
        extractor: its label.
        measures: of the generator.
        floor: real data in its place.
        parity: of the published file on this machine.
    """

    version: str
    digest: str
    data: str
    split: str
    extractor: str
    measures: Measures
    floor: Floor
    parity: Parity

    @property
    def checks(self) -> tuple[Check, ...]:
        """All numbers, without thresholds."""
        return report_checks(self.measures, self.floor)

    @property
    def numbers(self) -> dict[str, Number]:
        """The checks by name."""
        return numbers(self.checks)


class Rival(NamedTuple):
    """A version that a candidate is compared with, opened and with its golden samples checked."""

    role: str
    version: Version
    generator: Generator


def describe_reference(
    data: str,
    *,
    dataset: Dataset | None = None,
    resolution: int | None = None,
    max_skipped: float = MAX_SKIPPED_SHARE,
    extractor: str | None = None,
    repository: Path | None = None,
    policy: dict[str, float | int | bool | str | None] | None = None,
) -> Reference:
    """What a name will be judged against, for publishing.

    Args:
        data: a data set's name or path.
        dataset: what lies there at that resolution, where it is read already.
        resolution: that a folder of images is read at, in pixels; None lets the images decide.
        max_skipped: the largest share of its images that may be broken.
        extractor: a name or name@digest, "random-conv", "random-fourier" or a folder; None for the one that suits.
        repository: whose own extractors count too.
        policy: thresholds that differ from the defaults.

    Raises:
        DataError, Unavailable: the data cannot be had.
        NotFound, DataError: there is no such extractor, or it does not take such samples.
        Invalid: an unknown threshold.
    """
    dataset = dataset or load_dataset(data, resolution=resolution, max_skipped=max_skipped)
    chosen = resolve_extractor(extractor, dataset, repository=repository)
    make_policy(policy or {})
    return Reference(
        data=data,
        data_hash=dataset.content_hash,
        splits={name: len(dataset.indices[name]) for name in SPLIT_NAMES},
        extractor=chosen.name if extractor is None else extractor,
        extractor_digest=chosen.digest,
        policy=policy or {},
        resolution=resolution,
        max_skipped=max_skipped,
    )


def open_reference(
    reference: Reference,
    *,
    extractor: str | None = None,
    repository: Path | None = None,
    cache: Path | None = None,
) -> RealFeatures:
    """The real data of a reference.json, as its extractor (or another that is named) sees it.

    The reference's own is found by its digest, among those that ship and those of the repository.

    Raises:
        Refused: the data set or extractor found now is not the one that the model was published against.
        DataError, Unavailable, NotFound: it cannot be had at all.
    """
    dataset = load_dataset(reference.data, resolution=reference.resolution, max_skipped=reference.max_skipped)
    if dataset.content_hash != reference.data_hash:
        raise Refused(
            f"{reference.data} has content {dataset.content_hash[:12]}... now, the model was published against "
            f"{reference.data_hash[:12]}...: publish it under another name to judge it against this data",
            field="data",
        )
    digest = reference.extractor_digest if extractor is None else None
    chosen = resolve_extractor(extractor or reference.extractor, dataset, repository=repository, digest=digest)
    if extractor is None and chosen.digest != reference.extractor_digest:
        raise Refused(
            f"extractor {chosen.label} is not the one that the model was published against "
            f"({reference.extractor_digest[:4]}...)",
            field="extractor",
        )
    return RealFeatures(dataset, chosen, cache=cache)


def evaluate(
    repository: Repository,
    version: Version,
    *,
    extractor: str | None = None,
    num_fake: int | None = None,
    cache: Path | None = None,
    progress: Stage | None = None,
) -> Report:
    """Measure a version on the validation split.

    Args:
        repository: the one it lies in.
        version: what to measure.
        extractor: another than the reference's.
        num_fake: samples to draw; None for the policy's 50,000.
        cache: folder for features of real data; None for the usual one.
        progress: told each stage of the work and how far it is.

    Raises:
        Refused: it has no reference data, or what is found now is other data.
        LoadError: its files are damaged.
    """
    reals = open_reference(
        _reference(repository, version), extractor=extractor, repository=repository.root, cache=cache or cache_folder()
    )
    policy = _policy(Policy(), num_fake)
    generator, parity = open_generator(version, reals.dataset)
    measured = measure(generator, reals, "validation", policy, salt=generator.digest, stage=progress)
    return Report(
        version=str(version),
        digest=generator.digest,
        data=reals.dataset.name,
        split="validation",
        extractor=reals.extractor.label,
        measures=measured.measures,
        floor=measure_floor(reals, "validation", policy, progress),
        parity=parity,
    )


def run_gate(
    repository: Repository,
    version: Version,
    *,
    policy: Policy | None = None,
    num_fake: int | None = None,
    cache: Path | None = None,
    progress: Stage | None = None,
) -> Verdict:
    """Judge a version on the gate split, and append the verdict to it.

    The champion and the best version ever promoted are measured again, under this policy and extractor. The champion
    itself is not judged: it serves by the verdict that it was promoted with, and another could only take that away.

    Args:
        repository: the one it lies in; it is written to.
        version: what to judge.
        policy: thresholds; None for those of the repository's policy.toml and of its reference.json.
        num_fake: samples to draw, in place of the policy's.
        cache: folder for features of real data; None for the usual one.
        progress: told each stage of the work and how far it is.

    Raises:
        Refused: it is the champion, it has no reference data, what is found now is other data, or a version that it
            must be compared with cannot be measured.
        LoadError: its files are damaged.
    """
    champion = champion_besides(repository, version)
    reference = _reference(repository, version)
    reals = open_reference(reference, repository=repository.root, cache=cache or cache_folder())
    kind = version.manifest().kind
    policy = _policy(policy or effective_policy(repository, version.name, kind), num_fake)
    generator, parity = open_generator(version, reals.dataset)
    others = [_open_rival(role, other, reals.dataset) for role, other in rivals(repository, version, reals, champion)]
    measured = measure(generator, reals, "gate", policy, salt=generator.digest, stage=progress)
    comparisons = [_compare(measured, rival, reals, policy, generator.digest, progress) for rival in others]
    floor = measure_floor(reals, "gate", policy, progress)
    decision = gate(measured.measures, floor, comparisons, policy, parity)
    baseline = _baseline(measured, reals, reference)
    verdict = Verdict(
        version=version.number,
        digest=generator.digest,
        decision=decision.decision,
        reasons=decision.reasons,
        numbers=decision.numbers,
        policy=policy.as_dict(),
        policy_hash=policy.hash,
        champion=None if champion is None else champion.number,
        champion_digest=next((rival.generator.digest for rival in others if rival.version == champion), None),
        reference=reals.hash,
        extractor=reals.extractor.label,
        created=now(),
        code_version=code_version(),
        baseline=None if baseline is None else sha256(baseline),
    )
    picture = closest_picture(generator, reals)
    champion_besides(repository, version)  # promoted meanwhile, by an earlier verdict, it is not judged either
    repository.add_verdict(version, verdict, closest=picture, baseline=baseline)
    return verdict


def _baseline(measured: Measured, reals: RealFeatures, reference: Reference) -> bytes | None:
    """What servers hold the version against, as it is kept beside the verdict."""
    made = make_baseline(
        measured.features,
        reals.extracted("gate").features,
        measured.frechet,
        extractor=reals.extractor,
        extractor_name=reference.extractor,
    )
    return None if made is None else encode(made)


def closest_picture(generator: Generator, reals: RealFeatures) -> bytes | None:
    """PNG of the samples of seeds 0 .. 499 that lie nearest to training images, over those; None for vectors."""
    if generator.signature.kind != "image":
        return None
    samples = generator.generate(*draw(generator.signature, np.arange(NUM_COMPARED)))
    train, held_out = (reals.split(name).samples for name in ("train", "validation"))
    found = closest(*(np.asarray(images, np.uint8) for images in (samples, train, held_out[:NUM_COMPARED])))
    return png.encode(found.picture, level=9)


def open_generator(version: Version, dataset: Dataset) -> tuple[Generator, Parity]:
    """Opens a version and checks its golden samples on this machine, in mixed batches (G0).

    Raises:
        LoadError: its files are damaged or disagree; golden samples that do not agree are told by the parity.
        Refused: it does not make samples of the data set's kind and shape.
    """
    manifest = version.manifest()
    generator = open_unchecked(version, manifest, threads=available_cores())
    check_fits(generator.signature, dataset)
    try:
        here = golden.check(generator, manifest.golden)
    except LoadError as error:
        return generator, Parity(ok=False, detail=error.detail)
    return generator, Parity(ok=True, detail=f"golden samples agree here, numerics {here.hash}")


def check_fits(signature: Signature, dataset: Dataset) -> None:
    """Raises Refused where a generator's samples cannot be compared with a data set's."""
    if (signature.kind, tuple(signature.shape)) != (dataset.kind, dataset.shape):
        made, real = (" x ".join(map(str, shape)) for shape in (signature.shape, dataset.shape))
        raise Refused(
            f"the generator makes {signature.kind}s of {made}, {dataset.name} holds {dataset.kind}s of {real}",
            field="data",
        )


def _compare(
    candidate: Measured, rival: Rival, reals: RealFeatures, policy: Policy, salt: str, stage: Stage | None
) -> Comparison:
    """Measures another version on the same reals and takes the paired difference."""
    fakes = draw_fakes(rival.generator, reals.extractor, policy, salt=salt, stage=stage)
    frechet = measure_distance(fakes.extracted.features, reals, "gate", stage)
    delta, se = difference(candidate.frechet, frechet)
    return Comparison(
        role=rival.role,
        version=rival.version.number,
        digest=rival.generator.digest,
        fd_inf=frechet.fd_inf,
        delta=delta,
        se=se,
    )


def _open_rival(role: str, version: Version, dataset: Dataset) -> Rival:
    """Opens a version to compare with, before anything is measured: without it there is no verdict."""
    try:
        generator, parity = open_generator(version, dataset)
    except GenserveError as error:
        raise Refused(f"{version}, the {role} to compare with, cannot be measured: {error.detail}") from error
    if not parity.ok:
        raise Refused(f"{version}, the {role} to compare with, cannot be measured: {parity.detail}")
    return Rival(role, version, generator)


def _reference(repository: Repository, version: Version) -> Reference:
    reference = repository.reference(version.name)
    if reference is None:
        raise Refused(f"{version} was published without --data: there is nothing to judge it against", field="data")
    return reference


def _policy(policy: Policy, num_fake: int | None) -> Policy:
    return policy if num_fake is None else make_policy({**policy.as_dict(), "num_fake": num_fake})
