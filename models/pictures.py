"""Composes and encodes images the one way that commands, the repository and the service share. Knows no generator."""

import io
import math
import zlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

Images = NDArray[np.uint8]  # [N, H, W, C]

# Run-length strategy: on samples 1.2 to 2.7 times as fast as level 1 with its matching, and 3 to 6 % smaller.
FAST_PNG = {"compress_level": 1, "compress_type": zlib.Z_RLE}


def grid(images: Images, columns: int | None = None) -> Images:  # [N, H, W, C] -> [rows * H, columns * W, C]
    """Lay images out row-major without padding, blanks black; ceil(sqrt N) columns unless told."""
    count, height, width, channels = images.shape
    columns = columns or math.isqrt(count - 1) + 1
    rows = -(-count // columns)
    canvas = np.zeros((rows * columns, height, width, channels), np.uint8)
    canvas[:count] = images
    tiled = canvas.reshape(rows, columns, height, width, channels).swapaxes(1, 2)
    return tiled.reshape(rows * height, columns * width, channels)


def to_pillow(image: Images) -> Image.Image:  # [H, W, C]
    """A Pillow image, grey for one channel and RGB for three."""
    return Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)


def png(image: Images, texts: Mapping[str, str] | None = None, *, level: int | None = None) -> bytes:  # [H, W, C]
    """Encode one image as PNG; the same pixels and texts give the same bytes.

    Args:
        image: [H, W, C] uint8 with C of 1 or 3.
        texts: keywords and values of text chunks, in this order.
        level: zlib's, 0 .. 9, for files that are made once; None for what is fastest.
    """
    chunks = PngImagePlugin.PngInfo()
    for keyword, value in (texts or {}).items():
        chunks.add_text(keyword, value)
    options = FAST_PNG if level is None else {"compress_level": level}
    buffer = io.BytesIO()
    to_pillow(image).save(buffer, "PNG", pnginfo=chunks, **options)
    return buffer.getvalue()
