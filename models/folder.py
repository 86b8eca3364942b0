"""Reads a folder of images of any size and mode as one array, subfolders as classes. Knows nothing of splits."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from models.errors import DataError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
RESOLUTIONS = (8, 16, 28, 32, 64, 128, 256)
DEFAULT_MAX_RESOLUTION = 64
NAMED_AT_MOST = 10  # broken files named in one error


def image_files(folder: Path) -> list[Path]:
    """All image files below a folder, in an order that does not depend on the file system."""
    hidden = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    return sorted(path for path in hidden if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def read_folder(
    folder: Path, resolution: int | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.int64] | None, tuple[str, ...] | None]:
    """The images [N, R, R, C] uint8, their labels [N] and the classes' names; the latter two None without subfolders.

    Each image is cropped to its centre square and resized with antialiasing. C is 1 if every image is grey, else 3;
    transparency is laid over white. At most one image is in memory at its own size.

    Args:
        folder: images directly in it, or in subfolders named after their classes.
        resolution: R in pixels; by default the common size, else the largest of RESOLUTIONS that at least half of the
            images have, at most 64.

    Raises:
        DataError: no images, broken files (named), or images both in the folder and in subfolders.
    """
    paths = image_files(folder)
    if not paths:
        raise DataError(f"{folder}: no image files ({', '.join(sorted(SUFFIXES))})", field="data")
    classes = [path.relative_to(folder).parts[0] if path.parent != folder else "" for path in paths]
    names = tuple(sorted(set(classes)))
    if "" in names and len(names) > 1:
        raise DataError(f"{folder}: images beside the class folders {', '.join(names[1:])}; move them", field="data")
    samples = _read_images(paths, folder, resolution)
    if names == ("",):
        return samples, None, None
    return samples, np.array([names.index(name) for name in classes], dtype=np.int64), names


def common_resolution(sides: list[int]) -> int:
    """The resolution for images with these shorter sides (pixels), as read_folder says."""
    if len(set(sides)) == 1 and sides[0] % 4 == 0 and sides[0] <= DEFAULT_MAX_RESOLUTION:
        return sides[0]
    limit = min(float(np.median(sides)), DEFAULT_MAX_RESOLUTION)
    return max((r for r in RESOLUTIONS if r <= limit), default=RESOLUTIONS[0])


def _read_images(paths: list[Path], folder: Path, resolution: int | None) -> NDArray[np.uint8]:  # -> [N, R, R, C]
    """Two passes: sizes and modes are in the files' headers, and only then are pixels decoded, file by file."""
    broken: dict[Path, Exception] = {}
    headers = {}
    for path in paths:
        with _noted(path, broken), Image.open(path) as image:
            headers[path] = (min(image.size), _is_grey(image))
    extent = resolution or common_resolution([side for side, _ in headers.values()] or [RESOLUTIONS[0]])
    mode = "L" if all(grey for _, grey in headers.values()) else "RGB"
    samples = np.empty((len(paths), extent, extent, len(mode)), np.uint8)
    for i, path in enumerate(paths):
        if path in headers:
            with _noted(path, broken), Image.open(path) as image:
                samples[i] = _square(_plain(ImageOps.exif_transpose(image)), extent, mode)
    if broken:
        told = [f"{path.relative_to(folder)} ({broken[path]})" for path in paths if path in broken]
        more = f" and {len(told) - NAMED_AT_MOST} more" if len(told) > NAMED_AT_MOST else ""
        named = "; ".join(told[:NAMED_AT_MOST])
        raise DataError(f"{folder}: {len(told)} broken image files: {named}{more}", field="data")
    return samples


@contextlib.contextmanager
def _noted(path: Path, broken: dict[Path, Exception]) -> Iterator[None]:
    """Whatever makes a file unreadable is noted and gone past, so that all broken files are named at once."""
    try:
        yield
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        broken[path] = error


def _is_grey(image: Image.Image) -> bool:
    """Whether _plain makes it grey; known from the header."""
    return image.mode in ("1", "L", "LA", "F") or image.mode.startswith("I")


def _plain(image: Image.Image) -> Image.Image:
    """Mode L or RGB, whatever it was: 16-bit greys scaled, palettes resolved, transparency over white."""
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image, dtype=np.float64)
        return Image.fromarray((values / (257.0 if values.max(initial=0) > 255 else 1.0)).clip(0, 255).astype(np.uint8))
    if image.mode in ("1", "L"):
        return image.convert("L")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        base = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(base, layer).convert("L" if image.mode == "LA" else "RGB")
    return image.convert("RGB")


def _square(image: Image.Image, extent: int, mode: str) -> NDArray[np.uint8]:  # -> [R, R, C]
    fitted = ImageOps.fit(image.convert(mode), (extent, extent), Image.Resampling.LANCZOS)
    return np.asarray(fitted, dtype=np.uint8).reshape(extent, extent, -1)
