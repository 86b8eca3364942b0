"""Decodes one image file of any size and mode to square pixels. Knows no folders and no data sets."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

DRAFT = 2  # a JPEG is decoded at a fraction of its size, but at no less than this many times the resolution
MODES = {
    "1": "black and white",
    "L": "grey",
    "LA": "grey with alpha",
    "P": "palette",
    "PA": "palette with alpha",
    "RGB": "colour",
    "RGBA": "colour with alpha",
    "CMYK": "CMYK",
    "YCbCr": "YCbCr",
}


class Unreadable(Exception):
    """A file whose content is no image that can be used; the message says why."""


class Header(NamedTuple):
    """What a file says of its image before any pixel is decoded.

    Args:
        width: in pixels, as stored.
        height: likewise.
        mode: as a person calls it.
        transparent: whether it may have transparent pixels.
        animated: whether it holds several frames or pages.
    """

    width: int
    height: int
    mode: str
    transparent: bool
    animated: bool


def read_header(path: Path) -> Header:
    """Open a file and look at its header.

    Raises:
        Unreadable: it is no image.
        OSError: it cannot be read at all.
    """
    try:
        with Image.open(path) as image:
            mode = "16-bit grey" if image.mode.startswith("I;16") else MODES.get(image.mode, image.mode)
            animated = getattr(image, "n_frames", 1) > 1
            return Header(image.width, image.height, mode, image.has_transparency_data, animated)
    except Exception as error:  # Pillow's decoders raise a dozen classes on damaged files
        raise _told(error) from error


def read_square(path: Path, extent: int) -> NDArray[np.uint8]:  # -> [extent, extent, 1 or 3]
    """The centre square of a file's image (of the first, where it holds several), resized with antialiasing (Lanczos).

    Turned as its EXIF orientation says; transparency over white; 16-bit greys rounded to 8; one channel if its mode is
    grey, three otherwise.

    Raises:
        Unreadable: it is no image, is damaged or cut short, or its values have no agreed range (32-bit, floats).
        OSError: it cannot be read at all.
    """
    try:
        with Image.open(path) as image:
            image.draft(None, (DRAFT * extent, DRAFT * extent))
            ImageOps.exif_transpose(image, in_place=True)
            plain = _plain(image)
            fitted = ImageOps.fit(plain, (extent, extent), Image.Resampling.LANCZOS)
    except Exception as error:  # as above
        raise _told(error) from error
    return np.asarray(fitted, dtype=np.uint8).reshape(extent, extent, -1)


def has_colour(pixels: NDArray[np.uint8]) -> bool:  # [R, R, C]
    """Whether any pixel is not grey."""
    return pixels.shape[2] == 3 and bool((pixels != pixels[:, :, :1]).any())


def _plain(image: Image.Image) -> Image.Image:
    """Mode L or RGB, whatever it was."""
    if image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((values + 128) // 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise Unreadable("32-bit values have no agreed range: convert it to 8 or 16 bits")
    target = "L" if image.mode in ("1", "L", "LA") else "RGB"
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return image if image.mode == target else image.convert(target)


def _told(error: Exception) -> Exception:
    """The reason in a few words; what the operating system refuses stays what it is."""
    if isinstance(error, Unreadable) or (isinstance(error, OSError) and error.errno is not None):
        return error
    if isinstance(error, UnidentifiedImageError):  # its own message holds the whole path
        return Unreadable("not an image")
    return Unreadable(str(error) or type(error).__name__)
