"""Holds a variant against its parent on the same latents, and decides whether it may serve in its place.

Three questions, after the gate's manner: are its pixels its parent's (mean and tail of the error), would features
tell the two sets of samples apart (Frechet distance between them), and where the model's real data is at hand, is it
further from them than its parent is (paired on the same latents and the same real samples)? Knows no repository.
"""

import hashlib
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from models import random_features
from models.batches import batches, generate_all
from models.extractor_manifest import ExtractorManifest
from models.extractors import RANDOM, Extractor, make_extractor
from models.frechet import Frechet, frechet, frechet_distance, moments
from models.generator import Generator, Samples
from models.latents import draw
from models.manifest import Signature
from models.measuring import hashed_seeds
from models.records import Number
from models.reference import RealFeatures
from models.variants import VariantVerdict, loss_name
from models.version import code_version

TAIL = 0.999
TINY = float(np.finfo(np.float32).tiny)
VECTOR_LEVELS = 64  # levels in a standard deviation of a vector model's samples, about as many as images have


class VariantPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a variant must keep to; why these numbers: docs/decisions/0005-variants.md.

    Args:
        num_samples: drawn from both.
        max_mean_error: mean absolute error in levels of 255: what JPEG at quality 95 does to the same images.
        max_tail_error: that 99.9 % of the errors stay within, in levels: a tenth of the range.
        max_fd: upper limit of FD(variant, parent) / Tr S_parent: what the gate's standard error cannot tell apart.
        max_fd_loss: upper bound of FD(variant, reals) - FD(parent, reals), over Tr S_real: the gate's own margin.
        z_one_sided: standard errors on that bound: 1.645 for 95 %.
    """

    num_samples: int = 4096
    max_mean_error: float = 1.5
    max_tail_error: float = 25.0
    max_fd: float = 0.001
    max_fd_loss: float = 0.002
    z_one_sided: float = 1.645

    @property
    def hash(self) -> str:
        """sha256 of the policy as canonical JSON: equal policies have equal hashes."""
        return hashlib.sha256(msgspec.json.encode(self, order="sorted")).hexdigest()


class Loss(NamedTuple):
    """FD(variant, reals) - FD(parent, reals) with its standard error, both over Tr S_real."""

    delta: float
    se: float


def judge_variant(
    variant: Generator,
    parent: Generator,
    *,
    extractor: Extractor | None = None,
    reals: RealFeatures | None = None,
    policy: VariantPolicy | None = None,
    created: str,
) -> VariantVerdict:
    """Draw the same latents with both, and decide.

    Args:
        variant: opened.
        parent: opened, as it is served.
        extractor: what sees features; None for the reals' own, or random ones for the samples' shape.
        reals: the data that the model is judged against; its validation split is used, the gate's is the gate's.
        policy: thresholds; None for the defaults.
        created: when this is, ISO 8601.
    """
    policy = policy or VariantPolicy()
    drawn = draw(parent.signature, hashed_seeds(f"{parent.digest} {policy.hash}", policy.num_samples))
    ours, theirs = (generate_all(generator, *drawn) for generator in (variant, parent))
    extractor = extractor or (reals.extractor if reals else default_extractor(parent.signature, theirs))
    features = extractor.features(ours), extractor.features(theirs)
    numbers = {**pixel_numbers(ours, theirs, policy), **feature_numbers(*features, extractor.label, policy)}
    if reals is not None and reals.extractor.label == extractor.label:
        numbers |= loss_numbers(*features, reals, policy)
    reasons = tuple(
        f"{name} {number.value:.4g} > {number.threshold:.4g}"
        if number.high is None
        else f"{name} <= {number.high:.4g}, allowed is {number.threshold:.4g}"
        for name, number in numbers.items()
        if number.passed is False
    )
    return VariantVerdict(
        digest=variant.digest,
        parent=parent.digest,
        decision="fail" if reasons else "pass",
        reasons=reasons,
        numbers=numbers,
        policy=msgspec.structs.asdict(policy),
        policy_hash=policy.hash,
        extractor=extractor.label,
        created=created,
        code_version=code_version(),
    )


def pixel_numbers(ours: Samples, theirs: Samples, policy: VariantPolicy) -> dict[str, Number]:
    """Errors in levels: of 255 for images, of a 64th of the parent's standard deviation for vectors."""
    if theirs.dtype == np.uint8:
        errors = _Errors.of_levels(ours, theirs)
    else:
        scale = VECTOR_LEVELS / max(float(theirs.std()), TINY)
        errors = _Errors.of_values(np.abs(ours - theirs) * scale)
    return {
        "mean error": _limited(errors.mean, policy.max_mean_error),
        "99.9 % of errors": _limited(errors.tail, policy.max_tail_error),
        "largest error": Number(value=errors.largest),
        "share of errors over 1": Number(value=errors.share),
    }


class _Errors(NamedTuple):
    """What is told of many errors."""

    mean: float
    tail: float
    largest: float
    share: float

    @classmethod
    def of_levels(cls, ours: Samples, theirs: Samples) -> "_Errors":
        """Of bytes: counted, since there are hundreds of millions of them and 256 kinds."""
        counts = np.zeros(256, np.int64)
        for rows in batches(len(ours), ours.shape[1:]):
            difference = np.abs(ours[rows].astype(np.int16) - theirs[rows])
            counts += np.bincount(difference.reshape(-1), minlength=256)
        levels, total = np.arange(256), counts.sum()
        return cls(
            mean=float((counts * levels).sum() / total),
            tail=float(np.searchsorted(np.cumsum(counts), TAIL * total)),
            largest=float(np.flatnonzero(counts)[-1]),
            share=float(counts[2:].sum() / total),
        )

    @classmethod
    def of_values(cls, errors: NDArray[Any]) -> "_Errors":
        """Of anything else."""
        return cls(
            mean=float(errors.mean(dtype=np.float64)),
            tail=float(np.quantile(errors, TAIL)),
            largest=float(errors.max()),
            share=float(np.mean(errors > 1)),
        )


def feature_numbers(
    ours: NDArray[Any], theirs: NDArray[Any], label: str, policy: VariantPolicy
) -> dict[str, Number]:  # [N, D] each
    """How far apart the two sets are; the same latents leave FD's bias nearly no room."""
    parent = moments(theirs)
    scale = max(float(np.trace(parent.covariance)), TINY)
    return {f"FD to parent / Tr[{label}]": _limited(frechet_distance(moments(ours), parent) / scale, policy.max_fd)}


def loss_numbers(
    ours: NDArray[Any], theirs: NDArray[Any], reals: RealFeatures, policy: VariantPolicy
) -> dict[str, Number]:
    """How much further from real data, with the upper bound that is held against the limit."""
    real = reals.extracted("validation").features
    variant, parent = frechet(ours, real), frechet(theirs, real)
    loss = paired_loss(variant, parent)
    high = loss.delta + policy.z_one_sided * loss.se
    label = reals.extractor.label
    return {
        f"FD to real / Tr[{label}]": Number(value=variant.fd / variant.trace_real),
        f"FD to real / Tr of the parent[{label}]": Number(value=parent.fd / parent.trace_real),
        loss_name(label): Number(
            value=loss.delta, high=high, threshold=policy.max_fd_loss, passed=high <= policy.max_fd_loss
        ),
    }


def paired_loss(variant: Frechet, parent: Frechet) -> Loss:
    """The difference of two FDs that share latents and reals: what they have in common cancels, bias included."""
    pairs = ((variant.influence_fake, parent.influence_fake), (variant.influence_real, parent.influence_real))
    variance = sum(float((ours - theirs).var()) / len(ours) for ours, theirs in pairs)
    return Loss((variant.fd - parent.fd) / parent.trace_real, float(np.sqrt(variance)) / parent.trace_real)


def default_extractor(signature: Signature, samples: Samples) -> Extractor:
    """Random features for the samples' shape; for vectors their bandwidths come from the parent's samples."""
    name = RANDOM[signature.kind]
    architecture, dim = random_features.DESCRIPTIONS[name]
    model = random_features.convolutional(signature.shape) if signature.kind == "image" else None
    manifest = ExtractorManifest(
        name=name, kind=signature.kind, dim=dim, shape=signature.shape, architecture=architecture,
        seed=random_features.SEED,
    )  # fmt: skip
    return make_extractor(model or random_features.fourier(samples), manifest)


def _limited(value: float, limit: float) -> Number:
    return Number(value=value, threshold=limit, passed=value <= limit)
