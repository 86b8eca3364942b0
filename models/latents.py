"""The one place that draws z. Knows nothing of networks, images or requests.

A sample's randomness is RandomState(seed): a stream frozen by NumPy's policy, and the one that StyleGAN's and R3GAN's
scripts draw z from. Truncation maps each coordinate through the probability integral transform, so the same seed keeps
its character and the result is exactly the truncated prior.
"""

import itertools
import threading
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from models.errors import Invalid
from models.manifest import Prior, Signature

Latents = NDArray[np.float32]  # [N, z_dim]
ClassIndices = NDArray[np.int64]  # [N]
Method = Literal["auto", "slerp", "linear"]

MAX_SEED = 2**32 - 1
MAX_TRUNCATION: dict[str, float] = {"normal": 8.0, "uniform": 1.0}
MAX_LATENT: dict[str, float] = {"normal": 38.0, "uniform": 1.0}  # ndtr(-38) is the last that float64 holds
PARALLEL = 1e-6  # below this sine the directions are parallel and slerp has no plane to turn in

_thread = threading.local()


class Drawn(NamedTuple):
    """What a generator takes.

    Args:
        z: [N, z_dim] float32.
        class_idx: [N] int64; None for an unconditional generator.
    """

    z: Latents
    class_idx: ClassIndices | None


def draw(
    signature: Signature,
    seeds: Sequence[int] | NDArray[np.integer],
    *,
    class_idx: int | Sequence[int] | None = None,
    truncation: float | None = None,
) -> Drawn:
    """Draw one latent (and class) for each seed.

    Args:
        signature: gives prior, z_dim and classes.
        seeds: [N], each 0 .. 2^32 - 1.
        class_idx: one for all or one for each; None lets each image's own stream draw it, after z.
        truncation: t of `truncate`; None for the whole prior.

    Returns:
        z [N, z_dim] float32 and class_idx [N] int64 (None for an unconditional generator).

    Raises:
        Invalid: a seed, class or truncation outside its range.
    """
    check_truncation(signature.prior, truncation)
    chosen = check_classes(signature, class_idx, len(seeds))
    z = np.empty((len(seeds), signature.z_dim), np.float64)
    drawn = np.zeros(len(seeds), np.int64)
    edges = np.cumsum(signature.classes.frequencies) if signature.classes else None
    for i, seed in enumerate(seeds):
        stream = _stream(int(seed))
        z[i] = _draw_one(stream, signature.prior, signature.z_dim)
        if edges is not None and chosen is None:
            u = stream.random_sample() * edges[-1]  # the sum may fall short of 1 by rounding
            drawn[i] = np.searchsorted(edges, u, side="right")
    latents = z.astype(np.float32) if truncation is None else truncate(z, signature.prior, truncation)
    if edges is None:
        return Drawn(latents, None)
    return Drawn(latents, drawn if chosen is None else chosen)


def draw_untruncated(signature: Signature, seeds: Sequence[int] | NDArray[np.integer]) -> NDArray[np.float64]:
    """The z of each seed before truncation and before the cast: [N, z_dim] float64, for walks between seeds."""
    return np.stack([_draw_one(_stream(int(seed)), signature.prior, signature.z_dim) for seed in seeds])


def check_truncation(prior: Prior, truncation: float | None) -> None:
    """Refuse a truncation outside (0, 8] for the normal prior or (0, 1] for the uniform one."""
    limit = MAX_TRUNCATION[prior]
    if truncation is not None and not 0 < truncation <= limit:
        raise Invalid(f"{truncation} is outside (0, {limit:g}] for the {prior} prior", field="truncation")


def check_classes(
    signature: Signature, class_idx: int | Sequence[int] | None, count: int
) -> ClassIndices | None:  # [N]
    """The classes asked for as [N] int64, None when none was asked for; refuses what the generator does not have."""
    if class_idx is None:
        return None
    if signature.classes is None:
        raise Invalid("this generator is unconditional: leave class_idx out", field="class_idx")
    indices = np.asarray(class_idx, np.int64)
    if indices.ndim == 0:
        indices = np.full(count, indices, np.int64)
    if indices.shape != (count,):
        raise Invalid(f"{indices.size} classes for {count} samples: give one, or one for each", field="class_idx")
    last = signature.num_classes - 1
    if indices.size and (indices.min() < 0 or indices.max() > last):
        raise Invalid(f"classes are 0 .. {last}", field="class_idx")
    return indices


def check_latents(signature: Signature, z: NDArray[np.float64]) -> None:
    """Refuse latents that are not finite [N, z_dim] within the prior's reach: |z| <= 38 (normal) or <= 1 (uniform)."""
    if z.ndim != 2 or z.shape[1] != signature.z_dim:
        raise Invalid(f"expected [N, {signature.z_dim}], got {list(z.shape)}", field="z")
    limit = MAX_LATENT[signature.prior]
    if not np.isfinite(z).all() or (z.size and np.abs(z).max() > limit):
        raise Invalid(f"every value must be finite and |z| <= {limit:g} for the {signature.prior} prior", field="z")


def truncate(z: NDArray[np.floating], prior: Prior, t: float) -> Latents:  # [N, z_dim] -> [N, z_dim]
    """Map each coordinate to the prior truncated to [-t, t], by the probability integral transform in float64.

    N(0, 1): z' = -sign(z) ndtri(ndtr(-t) + ndtr(-|z|) (1 - 2 ndtr(-t))), clipped to [-t, t]; U(-1, 1): z' = t z.
    The lower tail is used throughout, where float64 keeps its relative precision.
    """
    z = np.asarray(z, np.float64)
    if prior == "uniform":
        return (t * z).astype(np.float32)
    tail = ndtr(-t)
    mapped = -np.sign(z) * ndtri(tail + ndtr(-np.abs(z)) * (1.0 - 2.0 * tail))
    truncated: Latents = np.clip(mapped, -t, t).astype(np.float32)
    return truncated


def slerp(a: NDArray[np.float64], b: NDArray[np.float64], u: float) -> NDArray[np.float64]:  # [d], [d] -> [d]
    """Spherical interpolation (Shoemake 1985), angle between the unit vectors, weights on the raw ones.

    Linear where the sine of the angle is below 1e-6, and where either vector is zero.
    """
    norms = np.linalg.norm(a) * np.linalg.norm(b)
    angle = np.arccos(np.clip(a @ b / norms, -1.0, 1.0)) if norms > 0 else 0.0
    sine = np.sin(angle)
    if sine < PARALLEL:
        return lerp(a, b, u)
    return np.asarray((np.sin((1.0 - u) * angle) * a + np.sin(u * angle) * b) / sine)


def lerp(a: NDArray[np.float64], b: NDArray[np.float64], u: float) -> NDArray[np.float64]:  # [d], [d] -> [d]
    """Linear interpolation."""
    return (1.0 - u) * a + u * b


def walk(
    keyframes: NDArray[np.float64], frames: int, *, loop: bool, method: Method, prior: Prior
) -> NDArray[np.float64]:  # [K, z_dim] -> [F, z_dim]
    """The latents of a walk through key frames; key frame k is frame k * frames, exactly.

    Args:
        keyframes: [K, z_dim] float64, K >= 2.
        frames: steps from one key frame to the next, >= 1.
        loop: whether to walk back to the first; K * frames latents then (the first is not repeated), else
            (K - 1) * frames + 1.
        method: "auto" is slerp for the normal prior and linear for the uniform one.
        prior: of the generator.

    Raises:
        Invalid: fewer than 2 key frames, or fewer than 1 frame.
    """
    if len(keyframes) < 2:
        raise Invalid(f"{len(keyframes)} given, at least 2 needed", field="keyframes")
    if frames < 1:
        raise Invalid(f"{frames} is below 1", field="frames")
    chosen = ("slerp" if prior == "normal" else "linear") if method == "auto" else method
    between = slerp if chosen == "slerp" else lerp
    ends = np.concatenate([keyframes, keyframes[:1]]) if loop else keyframes
    path = [
        a if step == 0 else between(a, b, step / frames) for a, b in itertools.pairwise(ends) for step in range(frames)
    ]
    return np.stack(path if loop else [*path, ends[-1]])


def _draw_one(stream: np.random.RandomState, prior: Prior, z_dim: int) -> NDArray[np.float64]:  # [z_dim]
    return stream.standard_normal(z_dim) if prior == "normal" else stream.uniform(-1.0, 1.0, z_dim)


def _stream(seed: int) -> np.random.RandomState:
    """This thread's RandomState, reseeded: making a new one costs 150-370 us, reseeding 2-9."""
    if not 0 <= seed <= MAX_SEED:
        raise Invalid(f"{seed} is outside 0 .. {MAX_SEED}", field="seed")
    stream: np.random.RandomState | None = getattr(_thread, "stream", None)
    if stream is None:
        stream = _thread.stream = np.random.RandomState()
    stream.seed(seed)
    return stream
