"""Samples kept by what they are: (digest, numerics, seed, class, truncation). Knows nothing of requests or networks.

Two backends behind one interface: serving.cache_memory (in this process) and serving.cache_redis (shared). Whatever a
backend cannot answer, for whichever reason, is a miss: a cache never fails a request.
"""

import hashlib
import math
import struct
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, Protocol

import numpy as np

from models.generator import DTYPES, Samples
from models.manifest import Kind

SCHEME = 1  # of drawing and of this key; whoever changes either raises it
MAGIC = b"GSC1"
CODES: dict[str, int] = {"image": 0, "vector": 1}
DIGEST_BYTES = 16
ITEM_BYTES = {kind: np.dtype(dtype).itemsize for kind, dtype in DTYPES.items()}

Tier = Literal["local", "redis"]
Result = Literal["hit", "miss", "error"]


class SampleKey(NamedTuple):
    """What decides one sample's bytes on this machine.

    Args:
        digest: of model.onnx.
        numerics: what this machine makes of it.
        seed: 0 .. 2^32 - 1.
        class_idx: None for an unconditional generator.
        truncation: None for none.
    """

    digest: str
    numerics: str
    seed: int
    class_idx: int | None
    truncation: float | None

    def text(self) -> str:
        """One line that no other key has."""
        class_idx = "" if self.class_idx is None else str(self.class_idx)
        truncation = "" if self.truncation is None else self.truncation.hex()
        return f"{prefix(self.digest, self.numerics)}{self.seed}:{class_idx}:{truncation}"


def prefix(digest: str, numerics: str) -> str:
    """What the texts of all keys of a model begin with."""
    return f"genserve:{SCHEME}:{digest}:{numerics}:"


class Form(NamedTuple):
    """What every sample of a generator looks like; an entry of another form is a miss.

    Args:
        kind: decides the type of the values.
        shape: of one sample.
    """

    kind: Kind
    shape: tuple[int, ...]


class Cache(Protocol):
    """A backend."""

    async def get_many(self, keys: Sequence[SampleKey], form: Form) -> dict[SampleKey, Samples]:
        """Those that are there, [*shape] each, read-only; never raises."""
        ...

    async def put_many(self, samples: Mapping[SampleKey, Samples], form: Form) -> None:
        """Keep samples, [*shape] each; never raises."""
        ...

    async def close(self) -> None:
        """Let go of connections and memory."""
        ...


class CacheObserver(Protocol):
    """Whoever counts hits."""

    def looked_up(self, tier: Tier, result: Result, images: int) -> None:
        """`images` lookups ended this way."""
        ...

    def available(self, tier: Tier, yes: bool) -> None:
        """A tier became usable, or stopped being so."""
        ...


def encode_entry(key: SampleKey, sample: Samples, form: Form) -> bytes:
    """A sample for storage elsewhere: magic, type, shape, a digest keyed with the key, values (little-endian)."""
    values = np.ascontiguousarray(sample).tobytes()
    header = _header(form)
    return header + _digest(key, header, values) + values


def decode_entry(key: SampleKey, entry: bytes, form: Form) -> Samples | None:
    """The sample [*shape], read-only; None where the entry is damaged, cut, of another form or of another key."""
    header = _header(form)
    start = len(header) + DIGEST_BYTES
    if len(entry) != start + value_bytes(form) or entry[: len(header)] != header:
        return None
    values = entry[start:]
    if entry[len(header) : start] != _digest(key, header, values):
        return None
    return np.frombuffer(values, DTYPES[form.kind]).reshape(form.shape)


def value_bytes(form: Form) -> int:
    """Size of one sample's values."""
    return math.prod(form.shape) * ITEM_BYTES[form.kind]


def _header(form: Form) -> bytes:
    return MAGIC + struct.pack(f"<BB{len(form.shape)}I", CODES[form.kind], len(form.shape), *form.shape)


def _digest(key: SampleKey, header: bytes, values: bytes) -> bytes:
    secret = hashlib.blake2b(key.text().encode(), digest_size=32).digest()
    state = hashlib.blake2b(header, key=secret, digest_size=DIGEST_BYTES)
    state.update(values)
    return state.digest()
