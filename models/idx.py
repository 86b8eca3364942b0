"""Reads IDX files (the MNIST family's format), plain or gzipped. Knows nothing of which data set they hold.

Format: two zero bytes, one type byte (8 is unsigned byte), one byte for the number of dimensions, then each extent as
a big-endian 32-bit integer, then the values in C order (http://yann.lecun.com/exdb/mnist/, "THE IDX FILE FORMAT").
"""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.errors import DataError

GZIP_MAGIC = b"\x1f\x8b"
UNSIGNED_BYTE = 8
MAX_VALUES = 1 << 33  # 8 GiB of unsigned bytes: data sets are held in memory


def uncompressed(path: Path) -> bytes:
    """The file's bytes, gunzipped if it is a gzip file.

    Raises:
        DataError: it cannot be read, or its gzip stream is damaged or cut short.
    """
    try:
        raw = path.read_bytes()
        return gzip.decompress(raw) if raw.startswith(GZIP_MAGIC) else raw
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: {error}", field="data") from error


def read_idx(path: Path) -> NDArray[np.uint8]:
    """An IDX file of unsigned bytes as an array of its own shape.

    Raises:
        DataError: not an IDX file of unsigned bytes, or its length does not fit its header.
    """
    raw = uncompressed(path)
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] != UNSIGNED_BYTE or not 1 <= raw[3] <= 4:
        raise DataError(f"{path}: not an IDX file of unsigned bytes with 1 to 4 dimensions", field="data")
    header = 4 + 4 * raw[3]
    if len(raw) < header:
        raise DataError(f"{path}: the header is cut short", field="data")
    shape = struct.unpack(f">{raw[3]}I", raw[4:header])
    size = math.prod(shape)
    if size > MAX_VALUES or len(raw) - header != size:
        raise DataError(f"{path}: the header says {shape}, but {len(raw) - header} values follow", field="data")
    return np.frombuffer(raw, np.uint8, offset=header).reshape(shape)
