"""Golden samples: what a version must look like on every machine, and the hash of what it looks like on this one.

ONNX Runtime's rounding differs between processors and providers, so identical bytes are promised per (digest,
numerics) only, and only after this check. Knows nothing of requests or repositories.
"""

import base64
import hashlib
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from models import png
from models.errors import LoadError
from models.generator import DTYPES, Generator, Samples
from models.latents import Drawn, draw
from models.manifest import Golden, Signature

SEEDS = (0, 1, 2, 7, 42, 1000, 2**31, 2**32 - 1)
AGREEING_SHARE = 0.999  # of the values, within one level (images) or 1e-4 standard deviations (vectors)
VECTOR_TOLERANCE = 1e-4
MIXED_BATCHES = (2, 3, 4, 5, 6, 7, 8, 16, 31, 64)  # all that are usual on processors, and some larger
FIXED_BATCH = 16


class Numerics(NamedTuple):
    """What this machine makes of a version.

    Args:
        hash: 12 hexadecimal digits of the golden samples as computed here, of what computed them (runtime, provider and
            the form of the graph, so that equal samples by luck are not taken for equal arithmetic), and of what
            encodes them as PNG.
        batch: None, or the one batch shape at which samples do not depend on their neighbours here.
    """

    hash: str
    batch: int | None


def make(generator: Generator) -> tuple[Golden, ...]:
    """Golden samples of a generator: eight seeds, some truncated, and for conditional ones some with a class asked."""
    asked = [_ask(generator.signature, i, seed) for i, seed in enumerate(SEEDS)]
    made = []
    for golden in asked:
        sample = _alone(generator, golden)
        data = base64.b64encode(zlib.compress(sample.tobytes(), 9)).decode()
        made.append(Golden(seed=golden.seed, class_idx=golden.class_idx, truncation=golden.truncation, data=data))
    return tuple(made)


def check(generator: Generator, golden: Sequence[Golden]) -> Numerics:
    """Check a generator on this machine, and set its `batch` to what makes its samples independent of neighbours.

    One that fails in a faster form than it was published in is checked again as it was published.

    Raises:
        LoadError: too many values differ from the golden samples, or samples depend on their neighbours even at one
            fixed padded batch shape.
    """
    if not golden:
        raise LoadError("the manifest has no golden samples")
    try:
        numerics = _numerics(generator, golden, (None,))
    except LoadError:
        generator.fall_back()
        numerics = _numerics(generator, golden, (None, FIXED_BATCH))
    generator.settle()
    return numerics


def _numerics(generator: Generator, golden: Sequence[Golden], batches: Sequence[int | None]) -> Numerics:
    """Of the first batch shape that makes samples independent."""
    for batch in batches:
        generator.batch = batch
        alone = np.concatenate([_alone(generator, entry) for entry in golden])
        _compare(generator.signature, alone, golden)
        if _independent(generator, golden, alone):
            encoder = png.fingerprint() if generator.signature.kind == "image" else ""
            facts = f"{generator.arithmetic} {encoder}".encode() + alone.tobytes()
            return Numerics(hashlib.sha256(facts).hexdigest()[:12], batch)
    raise LoadError(f"samples depend on what else is in the batch, even at a fixed batch of {FIXED_BATCH}")


def _ask(signature: Signature, i: int, seed: int) -> Golden:
    truncated = i % 3 == 2
    with_class = signature.classes is not None and i % 2 == 1
    return Golden(
        seed=seed,
        truncation=0.7 if truncated else None,
        class_idx=i % signature.num_classes if with_class else None,
        data="",
    )


def _latents(signature: Signature, golden: Golden) -> Drawn:
    return draw(signature, [golden.seed], class_idx=golden.class_idx, truncation=golden.truncation)


def _alone(generator: Generator, golden: Golden) -> Samples:  # [1, ...]
    return generator.generate(*_latents(generator.signature, golden))


def _compare(signature: Signature, here: Samples, golden: Sequence[Golden]) -> None:
    """Hold the samples computed here against the stored ones."""
    dtype = np.dtype(DTYPES[signature.kind])
    try:
        raw = b"".join(zlib.decompress(base64.b64decode(entry.data)) for entry in golden)
        stored = np.frombuffer(raw, dtype).reshape(here.shape)
    except (ValueError, zlib.error) as error:
        raise LoadError(f"the manifest's golden samples are damaged: {error}") from error
    difference = np.abs(here.astype(np.float64) - stored.astype(np.float64))
    limit = 1.0 if signature.kind == "image" else VECTOR_TOLERANCE * float(stored.std())
    share = float(np.mean(difference <= limit))  # a NaN agrees with nothing
    if share < AGREEING_SHARE:
        raise LoadError(
            f"only {share:.2%} of the golden samples' values are within {limit:.3g} here, {AGREEING_SHARE:.1%} needed"
        )


def _independent(generator: Generator, golden: Sequence[Golden], alone: Samples) -> bool:
    """Whether each golden sample has the same bytes in mixed batches of several sizes, at shifting positions."""
    drawn = [_latents(generator.signature, entry) for entry in golden]
    z = np.concatenate([entry.z for entry in drawn])
    classes = [entry.class_idx for entry in drawn if entry.class_idx is not None]
    class_idx = np.concatenate(classes) if classes else None
    for step, size in enumerate(MIXED_BATCHES):
        rows = (np.arange(size) * 3 + step) % len(golden)
        mixed = generator.generate(z[rows], None if class_idx is None else class_idx[rows])
        if mixed.tobytes() != alone[rows].tobytes():
            return False
    return True
