"""Pictures for a page that needs no other file: sample grids through time, small enough together. Knows no networks."""

import base64
import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from models import png
from models.pictures import Images

BUDGET_BYTES = 3_000_000  # of all frames, before base64 makes them a third larger
LOSSY_QUALITY = 82


class Frame(NamedTuple):
    """A sample grid of a snapshot.

    Args:
        kimg: of the snapshot.
        uri: data URI of the picture.
        width: in pixels.
        height: in pixels.
    """

    kimg: float
    uri: str
    width: int
    height: int


def frames(folder: Path, keep: float | None, budget: int = BUDGET_BYTES) -> list[Frame]:
    """The sample grids of a run, in order of time.

    They are without loss where all of them fit the budget so; else with a little, and then as many as fit, spread
    evenly: the first, the last and the one to keep among them. Files that are no pictures are passed over.

    Args:
        folder: samples/ of a run.
        keep: the kimg that must be among them.
        budget: bytes of all of them.
    """
    pictures = {kimg: picture for kimg, picture in map(_read, sorted(folder.glob("*.png"))) if picture is not None}
    encoded = {kimg: _encode(picture, lossless=True) for kimg, picture in pictures.items()}
    if sum(map(len, encoded.values())) > budget:
        encoded = {kimg: _encode(picture, lossless=False) for kimg, picture in pictures.items()}
    total = sum(map(len, encoded.values()))
    chosen = _spread(list(encoded), len(encoded) * budget // total if total > budget else len(encoded), keep)
    return [Frame(kimg, _uri(encoded[kimg], "webp"), *pictures[kimg].size) for kimg in chosen]


def picture(image: Images) -> str:  # [H, W, C] uint8
    """The data URI of one picture, as it is."""
    return _uri(png.encode(image, level=9), "png")


def _read(path: Path) -> tuple[float, Image.Image | None]:
    try:
        with Image.open(path) as opened:
            return float(path.stem), opened.convert("L" if opened.mode == "L" else "RGB")
    except (OSError, ValueError, UnidentifiedImageError):
        return 0.0, None


def _encode(picture: Image.Image, *, lossless: bool) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", lossless=lossless, quality=90 if lossless else LOSSY_QUALITY, method=4)
    return buffer.getvalue()


def _spread(kimgs: list[float], count: int, keep: float | None) -> list[float]:
    """So many of them, evenly, with both ends and the one to keep, whatever the count."""
    rows = np.linspace(0, len(kimgs) - 1, max(2, count)).round().astype(int).tolist() if kimgs else []
    kept = {kimgs[row] for row in rows}
    return sorted(kept | {kimg for kimg in kimgs if kimg == keep})


def _uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
