"""What clients may send, and its strict decoding. Knows nothing of models: nothing here depends on which is asked."""

import re
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta

from models.errors import Invalid
from models.latents import MAX_SEED
from models.manifest import Prior

Seed = Annotated[int, Meta(ge=0, le=MAX_SEED, description="The whole randomness of one sample.")]
ModelReference = Annotated[
    str, Meta(min_length=1, max_length=100, description="name, name@3 or name@champion", examples=["fashion-mnist"])
]
ClassIndex = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Truncation = Annotated[float, Meta(gt=0, le=8, description="At most 8 for a normal prior, 1 for a uniform one.")]
Latent = list[float]
SampleFormat = Literal["png", "webp", "jpeg", "npy", "zip", "json"]
WalkFormat = Literal["webp", "gif", "apng", "strip", "npy", "zip", "json"]


class SampleRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Draw samples. Exactly one of seed (with num_images), seeds and z, or none of them.

    Args:
        model: default: the server's default model.
        num_images: with seed or alone; default 1.
        seed: image i has (seed + i) mod 2^32; left out, the server draws one and reports it.
        seeds: one for each image.
        z: [N, z_dim], finite.
        class_idx: one for all or one for each; only for conditional models.
        truncation: not with z.
        prior: a check: the wrong one is refused.
        format: beats the Accept header.
    """

    model: ModelReference | None = None
    num_images: Annotated[int, Meta(ge=1)] | None = None
    seed: Seed | None = None
    seeds: Annotated[list[Seed], Meta(min_length=1)] | None = None
    z: Annotated[list[Latent], Meta(min_length=1)] | None = None
    class_idx: ClassIndex | Annotated[list[ClassIndex], Meta(min_length=1)] | None = None
    truncation: Truncation | None = None
    prior: Prior | None = None
    format: SampleFormat | None = None


class KeyFrame(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A stop of a walk: exactly one of seed and z.

    Args:
        seed: the latent that this seed draws.
        z: [z_dim], finite.
    """

    seed: Seed | None = None
    z: Latent | None = None


class InterpolateRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Walk between latents. Key frame k is frame k * frames.

    Args:
        model: default: the server's default model.
        keyframes: at least 2.
        frames: steps from one key frame to the next.
        loop: walk back to the first one; it is not repeated.
        method: auto is slerp for a normal prior and linear for a uniform one.
        class_idx: of the whole walk; default: the first key frame's.
        truncation: applied after the walk.
        prior: a check: the wrong one is refused.
        format: beats the Accept header.
        fps: frames each second, of animations: 1 to 100.
    """

    model: ModelReference | None = None
    keyframes: Annotated[list[KeyFrame], Meta(min_length=2)]
    frames: Annotated[int, Meta(ge=1)] = 24
    loop: bool = False
    method: Literal["auto", "slerp", "linear"] = "auto"
    class_idx: ClassIndex | None = None
    truncation: Truncation | None = None
    prior: Prior | None = None
    format: WalkFormat | None = None
    fps: Annotated[float, Meta(ge=1, le=100)] = 24.0


class ImageQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The query of the image route.

    Args:
        class_idx: only for conditional models.
        truncation: see SampleRequest.
    """

    class_idx: ClassIndex | None = None
    truncation: Truncation | None = None


T = TypeVar("T")
_FIELD = re.compile(r"^(?P<what>.*?)(?: - at `(?P<path>\$.*)`)?$", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<name>.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(?P<name>.*)`", re.DOTALL)


def decode_body(body: bytes | memoryview, kind: type[T], *, field: str = "") -> T:
    """A JSON body, or the text of one of its fields, as what it stands for; an empty one means all defaults.

    Raises:
        Invalid: not JSON, or not this request; it names the field.
    """
    try:
        return msgspec.json.decode(body or b"{}", type=kind)
    except msgspec.ValidationError as error:
        raise invalid(error, field) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid(f"the body is not valid JSON: {error}") from error


def decode_query(pairs: dict[str, str], kind: type[T]) -> T:
    """A query string's values as a request; numbers may be written as text.

    Raises:
        Invalid: unknown name or bad value; it names the field.
    """
    try:
        return msgspec.convert(pairs, kind, strict=False)
    except msgspec.ValidationError as error:
        raise invalid(error) from error


def invalid(error: msgspec.ValidationError, field: str = "") -> Invalid:
    """Our error for msgspec's, with the field taken from its message: "seeds[3]", "keyframes[0].z".

    Args:
        error: msgspec's.
        field: that was decoded; "" for a whole request.
    """
    match = _FIELD.match(str(error))
    what, path = (match["what"], match["path"] or "$") if match else (str(error), "$")
    named = _UNKNOWN.fullmatch(what) or _MISSING.fullmatch(what)
    path = f"{path}.{named['name'][:64]}" if named else path
    return Invalid(what.replace("`", "")[:300], field=f"{field}{path.removeprefix('$')}".lstrip(".") or None)
