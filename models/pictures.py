"""Composes and encodes images the one way that commands, the repository and the service share. Knows no generator."""

import io
import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

Images = NDArray[np.uint8]  # [N, H, W, C]


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


def png(image: Images, *, text: dict[str, str] | None = None, level: int = 1) -> bytes:  # [H, W, C]
    """Encode one image as PNG; the same pixels and text give the same bytes.

    Args:
        image: [H, W, C] uint8 with C of 1 or 3.
        text: keywords and values of text chunks, in this order.
        level: zlib's, 0 .. 9.
    """
    chunks = PngImagePlugin.PngInfo()
    for keyword, value in (text or {}).items():
        chunks.add_text(keyword, value)
    buffer = io.BytesIO()
    to_pillow(image).save(buffer, "PNG", compress_level=level, pnginfo=chunks)
    return buffer.getvalue()
