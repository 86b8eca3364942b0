"""Which format an answer takes, from the request's wish and the Accept header. Pure; encodes nothing itself."""

from functools import lru_cache
from typing import Literal, NamedTuple

from models.errors import Invalid
from models.manifest import Kind
from serving.errors import NotAcceptable

Operation = Literal["sample", "walk"]

# In order of preference: the first is what "*/*" means.
OFFERED: dict[tuple[Operation, Kind], tuple[str, ...]] = {
    ("sample", "image"): ("png", "webp", "jpeg", "json", "npy", "zip"),
    ("sample", "vector"): ("json", "npy"),
    ("walk", "image"): ("webp", "gif", "apng", "strip", "json", "npy", "zip"),
    ("walk", "vector"): ("json", "npy"),
}

MEDIA_TYPES = {
    "png": "image/png",
    "strip": "image/png",
    "webp": "image/webp",
    "jpeg": "image/jpeg",
    "gif": "image/gif",
    "apng": "image/apng",
    "npy": "application/x-npy",
    "zip": "application/zip",
    "json": "application/json",
}


class Range(NamedTuple):
    """One media range of an Accept header."""

    type: str
    subtype: str
    quality: float

    @property
    def precision(self) -> int:
        """How exactly it names a type: 0 for */*, 1 for image/*, 2 for image/png."""
        return (self.type != "*") + (self.subtype != "*")

    def covers(self, media_type: str) -> bool:
        """Whether a media type is in the range."""
        kind, _, subtype = media_type.partition("/")
        return self.type in ("*", kind) and self.subtype in ("*", subtype)


def choose_format(asked: str | None, accept: str | None, *, operation: Operation, kind: Kind) -> str:
    """The format of an answer.

    Args:
        asked: the request's `format`; beats everything.
        accept: the Accept header; None where there is none.
        operation: what is answered.
        kind: of the model's samples.

    Raises:
        Invalid: this kind of sample has no such format.
        NotAcceptable: nothing that is accepted is offered.
    """
    offered = OFFERED[operation, kind]
    if asked is not None:
        if asked not in offered:
            raise Invalid(f"{kind} models answer {', '.join(offered)}, not {asked}", field="format")
        return asked
    best = _best(accept, offered)
    if best is None:
        types = dict.fromkeys(MEDIA_TYPES[name] for name in offered)
        raise NotAcceptable(f"none of the accepted types can be answered; there are {', '.join(types)}", field="accept")
    return best


@lru_cache(maxsize=256)  # clients send the same few headers again and again
def _best(accept: str | None, offered: tuple[str, ...]) -> str | None:
    """The offered format of the highest quality, the first among equals; None where none is acceptable."""
    ranges = parse_accept(accept) if accept and accept.strip() else [Range("*", "*", 1.0)]
    best = max(offered, key=lambda name: _quality(ranges, MEDIA_TYPES[name]))
    return best if _quality(ranges, MEDIA_TYPES[best]) > 0 else None


def parse_accept(accept: str) -> list[Range]:
    """The media ranges of an Accept header; what is malformed is left out."""
    ranges = []
    for part in accept.split(","):
        media, *parameters = (piece.strip().lower() for piece in part.split(";"))
        kind, slash, subtype = media.partition("/")
        quality = next((p[2:] for p in parameters if p.startswith("q=")), "1")
        try:
            value = float(quality)
        except ValueError:
            continue
        if slash and kind and subtype and 0 <= value <= 1:
            ranges.append(Range(kind, subtype, value))
    return ranges


def _quality(ranges: list[Range], media_type: str) -> float:
    """The quality of the most precise range that covers a media type; 0 where none does."""
    covering = [r for r in ranges if r.covers(media_type)]
    return max(covering, key=lambda r: r.precision).quality if covering else 0.0
