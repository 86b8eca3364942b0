"""Composes images the one way that commands, the repository and the service share. Knows no generator."""

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

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
