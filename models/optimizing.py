"""Makes a version's variants, measures and judges each, and records what came of it. Promotes nothing."""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from models import golden, processor
from models.errors import GenserveError, LoadError, NotFound
from models.generator import Generator
from models.golden import check
from models.judge import open_reference
from models.manifest import Signature
from models.opening import open_version
from models.probing import probe
from models.reference import RealFeatures, cache_folder
from models.repository import Repository, Version, now
from models.runtime import available_providers, check_runtime
from models.variant_judging import VariantPolicy, judge_variant
from models.variant_making import Candidate, candidates
from models.variant_speed import measure_speed
from models.variants import Variant, VariantManifest, VariantVerdict, add_variant, variants
from models.version import code_version


class Outcome(NamedTuple):
    """What came of one candidate.

    Args:
        method: what it was to be.
        provider: that it is for.
        variant: the record; None where it could not be made, or is recorded already.
        manifest: of the record, or of the one that there was; None where it could not be made.
        verdict: likewise.
        reason: why there is no new record; "" where there is.
    """

    method: str
    provider: str
    variant: Variant | None = None
    manifest: VariantManifest | None = None
    verdict: VariantVerdict | None = None
    reason: str = ""


def optimize(
    repository: Repository,
    version: Version,
    *,
    only: Collection[str] = (),
    policy: VariantPolicy | None = None,
    cache: Path | None = None,
) -> Iterator[Outcome]:
    """Try every candidate that makes sense on this machine; each is recorded, passing or not, as it is done.

    A candidate whose very file is recorded already is left alone: its verdict would be the same.

    Args:
        repository: the one that the version lies in; it is written to.
        version: whose generator to make faster.
        only: methods; () for all.
        policy: of judging; None for the defaults.
        cache: folder for features of real data; None for the usual one.

    Raises:
        LoadError: the version itself cannot be opened.
        NotFound: a method that is not known here.
    """
    signature = open_version(version).generator.signature  # the parent must be sound before anything is made of it
    parent = version.model_path.read_bytes()
    usable = [name for name in available_providers() if probe(name).fault is None]
    found = list(candidates(parent, signature, usable))
    known = [candidate.recipe.method for candidate in found]
    if strange := sorted(set(only) - set(known)):
        listed = ", ".join(known) or "none"
        raise NotFound(f"{', '.join(strange)} cannot be made with this ONNX Runtime (it can: {listed})", field="only")
    reals = _reals(repository, version, cache)
    for candidate in found:
        if not only or candidate.recipe.method in only:
            yield _try(repository, version, candidate, signature, reals, policy)


def _try(
    repository: Repository,
    version: Version,
    candidate: Candidate,
    signature: Signature,
    reals: RealFeatures | None,
    policy: VariantPolicy | None,
) -> Outcome:
    recipe = candidate.recipe
    nothing = Outcome(recipe.method, recipe.provider)
    if candidate.make is None:
        return nothing._replace(reason=candidate.reason)
    try:
        model = candidate.make()
        generator = Generator.from_bytes(model, providers=(recipe.provider,), precision=recipe.precision)
        if generator.signature != signature:
            raise LoadError("its signature is not the version's")
        samples = golden.make(generator)
        check(generator, samples)
    except GenserveError as error:
        return nothing._replace(reason=error.detail)
    except Exception as error:  # whatever a quantiser says of a graph that it does not understand
        return nothing._replace(reason=f"it cannot be made: {type(error).__name__}: {error}")
    if same := _recorded(version, generator.digest):
        return nothing._replace(
            manifest=same.manifest(), verdict=same.verdict(), reason=f"recorded before: {same.name}"
        )
    parent = open_version(version, providers=(recipe.provider,)).generator
    manifest = VariantManifest(
        name=recipe.method,
        digest=generator.digest,
        recipe=recipe,
        golden=samples,
        speed=measure_speed(generator, parent),
        machine=f"{processor.model_name()} ({', '.join(processor.telling_features())})",
        runtime=check_runtime(),
        created=now(),
        code_version=code_version(),
    )
    verdict = judge_variant(generator, parent, reals=reals, policy=policy, created=now())
    variant = add_variant(repository, version, model, manifest, verdict)
    return nothing._replace(variant=variant, manifest=manifest, verdict=verdict)


def _recorded(version: Version, digest: str) -> Variant | None:
    """The variant whose file this is; None where none has been recorded, or can be read."""
    for variant in variants(version):
        try:
            if variant.manifest().digest == digest:
                return variant
        except LoadError:
            continue
    return None


def _reals(repository: Repository, version: Version, cache: Path | None) -> RealFeatures | None:
    """The real data that the model is judged against, where it is at hand."""
    reference = repository.reference(version.name)
    if reference is None:
        return None
    try:
        return open_reference(reference, repository=repository.root, cache=cache or cache_folder())
    except GenserveError:  # it was published elsewhere, with data that is not here
        return None
