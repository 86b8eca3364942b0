"""Bodies of POST requests: whether they are JSON, and how large ones are read. Knows nothing of a model but its z_dim.

msgspec holds Python's lock while it decodes: 8 MB of numbers, or of empty lists, stopped a whole server for a second,
on whichever thread. So a large body is read on a thread, first without its lists; these are counted before anything in
them is decoded, and latents are decoded one by one, each into its place, with the lock free in between.
"""

from functools import lru_cache
from typing import Annotated, Any, Protocol, TypeVar

import msgspec
import numpy as np
from msgspec import Meta, Raw, Struct
from numpy.typing import NDArray

from models.errors import Invalid
from serving.asgi import Incoming
from serving.errors import WrongMediaType
from serving.requests import InterpolateRequest, KeyFrame, Latent, SampleRequest, decode_body

LARGE_BODY_BYTES = 16 * 1024  # up to here a body is decoded at once, in 0.25 ms; a thread's two hops take 0.1 ms
NULL = b"null"

R_co = TypeVar("R_co", covariant=True)


def json_body(request: Incoming) -> bytes:
    """The request's body.

    Raises:
        WrongMediaType: it is not application/json in UTF-8, or compressed.
    """
    declared = request.headers.get(b"content-type", b"")
    if (request.body or declared) and not _is_json(declared):
        raise WrongMediaType("expected content-type: application/json", field="content-type")
    if request.header(b"content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise WrongMediaType("compressed bodies are not read", field="content-encoding")
    return request.body


@lru_cache(maxsize=64)  # clients send the same few
def _is_json(declared: bytes) -> bool:
    """Whether a Content-Type says JSON.

    Raises:
        WrongMediaType: in another charset than UTF-8.
    """
    media, _, parameters = declared.decode("latin-1").partition(";")
    charset = parameters.strip().lower().replace('"', "").replace(" ", "")
    if charset.startswith("charset=") and charset not in ("charset=utf-8", "charset=utf8"):
        raise WrongMediaType("JSON is UTF-8", field="content-type")
    return media.strip().lower() == "application/json"


class Outline(Protocol[R_co]):
    """A large body whose latents are still as they came."""

    model: str | None  # that it asks for

    def request(self, z_dim: int) -> R_co:
        """The whole of it.

        Raises:
            Invalid: a latent is wrong, or does not have `z_dim` values; it names the field.
        """
        ...


class SampleOutline:
    """A large POST /sample.

    Args:
        body: JSON.
        max_images: of one request.

    Raises:
        Invalid: not JSON, not this request, or of more than `max_images` images; it names the field.
    """

    def __init__(self, body: bytes, max_images: int) -> None:
        self._fields = msgspec.structs.asdict(decode_body(body, _Sample))
        self.model: str | None = self._fields["model"]
        for name, what in (("seeds", "images asked for"), ("class_idx", "classes")):
            text = memoryview(self._fields[name])
            _check_count(_count(text, ",") + 1, what, max_images, name)
            self._fields[name] = decode_body(text, _SAMPLE_TYPES[name], field=name)
        self._z = memoryview(self._fields.pop("z"))
        _check_count(_count(self._z, "[") - 1, "images asked for", max_images, "z")

    def request(self, z_dim: int) -> SampleRequest:
        """See Outline."""
        z: Any = None if self._z == NULL else _latents(self._z, z_dim)
        return SampleRequest(**self._fields, z=z)


class WalkOutline:
    """A large POST /interpolate; see SampleOutline."""

    def __init__(self, body: bytes, max_images: int) -> None:
        _check_count(body.count(b"{") - 1, "key frames", max_images, "keyframes")
        self._fields = msgspec.structs.asdict(decode_body(body, _Walk))
        self.model: str | None = self._fields["model"]

    def request(self, z_dim: int) -> InterpolateRequest:
        """See Outline."""
        stops = []
        for i, stop in enumerate(self._fields["keyframes"]):
            text = memoryview(stop.z)
            z: Any = None if text == NULL else _latent(text, z_dim, f"keyframes[{i}].z")
            stops.append(KeyFrame(seed=stop.seed, z=z))
        return InterpolateRequest(**{**self._fields, "keyframes": stops})


def _outline(kind: type[Struct], **types: Any) -> type[Struct]:  # noqa: ANN401 whatever msgspec takes for a type
    """The same request, with other types for some of its fields; what is Raw stays as it came."""
    fields: list[Any] = []
    for known in msgspec.structs.fields(kind):
        hint = types.get(known.name, known.type)
        default = Raw(NULL) if hint is Raw else known.default
        fields.append((known.name, hint) if default is msgspec.NODEFAULT else (known.name, hint, default))
    return msgspec.defstruct(kind.__name__, fields, frozen=True, kw_only=True, forbid_unknown_fields=True)


_SAMPLE_TYPES = {known.name: known.type for known in msgspec.structs.fields(SampleRequest)}
_Sample = _outline(SampleRequest, seeds=Raw, z=Raw, class_idx=Raw)
_Stop = _outline(KeyFrame, z=Raw)
_Walk = _outline(InterpolateRequest, keyframes=Annotated[list[_Stop], Meta(min_length=2)])  # type: ignore[valid-type]  # made above


def _check_count(count: int, what: str, max_images: int, field: str) -> None:
    if count > max_images:
        raise Invalid(f"{count} {what}, at most {max_images} in one request", field=field)


def _latents(text: memoryview, z_dim: int) -> NDArray[np.float64]:  # [N, z_dim]
    """An array of arrays, which is known to be JSON."""
    rows = _rows(text) if not _count(text, '"') and not _count(text, "{") else []
    if not rows or _count(text, ",") != sum(_count(row, ",") for row in rows) + len(rows) - 1:
        raise Invalid("expected an array of arrays of numbers", field="z")
    for i, row in enumerate(rows):
        _check_values(row, z_dim, f"z[{i}]")
    z = np.empty((len(rows), z_dim), np.float64)
    for i, row in enumerate(rows):
        z[i] = decode_body(row, Latent, field=f"z[{i}]")
    return z


def _rows(text: memoryview) -> list[memoryview]:
    """The arrays in an array, where none holds another; else nothing."""
    signs = np.frombuffer(text, np.uint8)
    starts, ends = np.flatnonzero(signs == ord("["))[1:], np.flatnonzero(signs == ord("]"))[:-1]
    if len(starts) != len(ends) or (starts[1:] < ends[:-1]).any():
        return []
    return [text[start : end + 1] for start, end in zip(starts, ends, strict=True)]


def _latent(text: memoryview, z_dim: int, field: str) -> NDArray[np.float64]:  # [z_dim]
    _check_values(text, z_dim, field)
    return np.array(decode_body(text, Latent, field=field), np.float64)


def _check_values(row: memoryview, z_dim: int, field: str) -> None:
    """Count before decoding."""
    commas = _count(row, ",")
    values = commas + 1 if commas or bytes(row[1:-1]).strip() else 0
    if values != z_dim:
        raise Invalid(f"{values} values, the model's z_dim is {z_dim}", field=field)


def _count(text: memoryview, sign: str) -> int:
    """How often a sign comes, with the lock of Python free."""
    return int(np.count_nonzero(np.frombuffer(text, np.uint8) == ord(sign)))
