"""What is true of a generator: its signature, hashed with the weights, and its manifest. Knows no files.

The signature decides the samples besides the weights, so it is written into the ONNX file's metadata before hashing:
the digest covers it. The manifest says the same again beside the file, with its history.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import msgspec

from models.errors import Invalid

if TYPE_CHECKING:
    import onnx

Kind = Literal["image", "vector"]
Prior = Literal["normal", "uniform"]

METADATA_KEY = "genserve"
OUTPUT_NAMES: dict[str, str] = {"image": "images", "vector": "samples"}
MAX_VALUES_PER_SAMPLE = 1024 * 1024 * 4


class Classes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The classes of a conditional generator.

    Args:
        names: what a person calls each class; its position is class_idx.
        frequencies: share of each class in the training data, non-negative, summing to 1 within 1e-6.
    """

    names: tuple[str, ...]
    frequencies: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.names or len(self.names) != len(self.frequencies):
            raise Invalid(f"{len(self.names)} names but {len(self.frequencies)} frequencies", field="classes")
        if any(not 0 <= f <= 1 for f in self.frequencies) or abs(math.fsum(self.frequencies) - 1) > 1e-6:
            raise Invalid("frequencies must be in [0, 1] and sum to 1", field="classes.frequencies")


class Signature(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What decides a sample besides the weights.

    Args:
        kind: "image" (output `images`, uint8 [N, H, W, C]) or "vector" (output `samples`, float32 [N, d]).
        prior: "normal" for z ~ N(0, I), "uniform" for z ~ U(-1, 1).
        z_dim: length of z, >= 1.
        shape: of one sample: (H, W, C) with C of 1 or 3 for images, (d,) for vectors.
        classes: None for an unconditional generator.
    """

    kind: Kind
    prior: Prior
    z_dim: int
    shape: tuple[int, ...]
    classes: Classes | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.z_dim <= 65536:
            raise Invalid(f"{self.z_dim} is outside 1 .. 65536", field="z_dim")
        if any(extent < 1 for extent in self.shape) or math.prod(self.shape) > MAX_VALUES_PER_SAMPLE:
            raise Invalid(f"{self.shape} must be positive and at most {MAX_VALUES_PER_SAMPLE} values", field="shape")
        if self.kind == "image" and (len(self.shape) != 3 or self.shape[2] not in (1, 3)):
            raise Invalid(f"an image is (H, W, 1) or (H, W, 3), not {self.shape}", field="shape")
        if self.kind == "vector" and len(self.shape) != 1:
            raise Invalid(f"a vector is (d,), not {self.shape}", field="shape")

    @property
    def output_name(self) -> str:
        """The ONNX output: `images` or `samples`."""
        return OUTPUT_NAMES[self.kind]

    @property
    def num_classes(self) -> int:
        """How many classes there are; 0 for an unconditional generator."""
        return len(self.classes.names) if self.classes else 0


class Golden(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One sample as the publishing machine computed it.

    Args:
        seed: 0 .. 2^32 - 1.
        class_idx: the class asked for, None to let the seed draw it (or for an unconditional generator).
        truncation: the t of models.latents.truncate, None for none.
        data: base64 of the zlib-compressed raw bytes, C order: uint8 [H, W, C] or float32 little-endian [d].
    """

    seed: int
    class_idx: int | None = None
    truncation: float | None = None
    data: str


class Provenance(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a generator comes from.

    Args:
        source: "trained" by genserve, or "foreign".
        data: the data set as it was named; None when unknown.
        data_hash: sha256 of its content.
        licence: of the data.
        configuration: of the training run.
        seed: of the training run.
        kimg: thousands of real images shown to D.
        code_version: of genserve at publishing.
        note: anything a person added, for instance why this checkpoint was picked.
    """

    source: Literal["trained", "foreign"]
    data: str | None = None
    data_hash: str | None = None
    licence: str | None = None
    configuration: dict[str, object] | None = None
    seed: int | None = None
    kimg: float | None = None
    code_version: str
    note: str | None = None


class Manifest(Signature, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A published version: manifest.json, never changed after publishing.

    Args:
        name: of the model.
        version: its number, from 1.
        digest: sha256 of model.onnx, 64 hexadecimal digits.
        golden: samples that every machine must reproduce within 1 level.
        provenance: where it comes from.
        created: when it was published, ISO 8601, UTC.
        format: of this file.
    """

    name: str
    version: int
    digest: str
    golden: tuple[Golden, ...]
    provenance: Provenance
    created: str
    format: int = 1

    @property
    def signature(self) -> Signature:
        """The part that is hashed with the weights."""
        return Signature(kind=self.kind, prior=self.prior, z_dim=self.z_dim, shape=self.shape, classes=self.classes)


def stamp(model: "onnx.ModelProto", signature: Signature) -> None:
    """Write the signature into an ONNX model's metadata, as canonical JSON, replacing what stood there."""
    kept = [entry for entry in model.metadata_props if entry.key != METADATA_KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    entry = model.metadata_props.add()
    entry.key = METADATA_KEY
    entry.value = msgspec.json.encode(signature, order="sorted").decode()


def read_signature(metadata: Mapping[str, str]) -> Signature:
    """The signature in an ONNX model's metadata.

    Args:
        metadata: the model's metadata_props as a mapping.

    Raises:
        Invalid: nothing is written there, or it is not a signature.
    """
    text = metadata.get(METADATA_KEY)
    if text is None:
        raise Invalid(f"the ONNX file carries no {METADATA_KEY!r} metadata: publish it first", field="metadata")
    try:
        return msgspec.json.decode(text, type=Signature)
    except msgspec.DecodeError as error:
        raise Invalid(f"the {METADATA_KEY!r} metadata is damaged: {error}", field="metadata") from error
