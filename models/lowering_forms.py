"""The ways to compute one layer on rows of channels with matrix products. Knows nothing of ONNX files."""

import numpy as np

from models.lowering_layers import Weights
from models.lowering_rows import Index, Part, Rows, Sheet, bordered

VECTOR = 9  # columns of a product from which a core is busy enough


def linear(sheet: Sheet, name: str, weights: Weights, bias: Weights | None, extent: tuple[int, int]) -> Rows:
    """A tensor [B, K] times weights [K, H * W * Cout]: the map [B, Cout, H, W]."""
    height, width = extent
    product, size = gemm(sheet, name, weights, bias), height * width
    return Rows((Part(product, size),), weights.shape[1] // size, np.arange(size).reshape(height, width))


def affine(sheet: Sheet, rows: Rows, kernel: Weights, bias: Weights | None) -> Rows:
    """A transposed convolution [Cin, Cout, H, W] of a map of one pixel: the map [B, Cout, H, W]."""
    inputs, _, height, width = kernel.shape
    wide = None if bias is None else np.tile(bias, height * width)
    flat = sheet.reshape(sheet.ordered(rows), -1, inputs)
    return linear(sheet, flat, kernel.transpose(0, 2, 3, 1).reshape(inputs, -1), wide, (height, width))


def gemm(sheet: Sheet, left: str, weights: Weights, bias: Weights | str | None = None) -> str:
    """left [M, K] times constant weights [K, N], plus a constant bias [N] or a tensor [M, N]."""
    inputs = [left, sheet.constant(weights)]
    if bias is not None:
        inputs.append(bias if isinstance(bias, str) else sheet.constant(bias))
    return sheet.emit("Gemm", *inputs)


def windowed(sheet: Sheet, rows: Rows, kernel: Weights, bias: Weights | None) -> Rows:
    """A doubling layer over 2 x 2 windows: one product [B(H+1)(W+1), 4 Cin] x [4 Cin, 4 Cout].

    Window (a, b) holds pixels (a-1, b-1) .. (a, b), zero outside the map, and gives output pixel (2a-1, 2b-1) and the
    three after it; those outside the output are computed and never read.

    Args:
        sheet: where the nodes go.
        rows: [B, Cin, H, W].
        kernel: [Cin, Cout, 4, 4] of a transposed convolution with stride 2 and padding 1.
        bias: [Cout].

    Returns:
        [B, Cout, 2H, 2W].
    """
    inputs, outputs = kernel.shape[:2]
    (height, width), outside = rows.extent, rows.count
    framed = bordered(rows.index, outside, (1, 1, 1, 1))
    corners = [framed[u : u + height + 1, v : v + width + 1] for u in (0, 1) for v in (0, 1)]
    windows = sheet.gather(sheet.stack(rows, border=True), np.stack(corners, -1))
    # Window row u and output row p (0: odd, from the row above; 1: even) meet at tap 2(1-u) + p
    taps = np.array([[2, 3], [0, 1]])
    weights = kernel[:, :, taps][:, :, :, :, taps]  # [Cin, Cout, u, p, v, q]
    weights = weights.transpose(2, 4, 0, 3, 5, 1).reshape(4 * inputs, 4 * outputs)
    product = gemm(sheet, sheet.reshape(windows, -1, 4 * inputs), weights, None if bias is None else np.tile(bias, 4))
    count = 4 * (height + 1) * (width + 1)
    return Rows((Part(product, count),), outputs, _interleaved(height, width))


def _interleaved(height: int, width: int) -> Index:
    """Where output pixel (y, x) lies among the rows (a, b, p, q) of `windowed`: y = 2a-1+p, x = 2b-1+q."""
    y, x = np.arange(2 * height)[:, None] + 1, np.arange(2 * width)[None, :] + 1
    index: Index = ((y // 2 * (width + 1) + x // 2) * 2 + y % 2) * 2 + x % 2
    return index


def convolved(sheet: Sheet, rows: Rows, kernel: Weights, bias: Weights | None) -> Rows:
    """A convolution with stride 1 that keeps the extent: each product gives a block of pixels from a window around it.

    With one output channel a product of one column would leave a core's vectors empty; blocks fill them, and read each
    pixel less often.

    Args:
        sheet: where the nodes go.
        rows: [B, Cin, H, W].
        kernel: [Cout, Cin, k, k], k odd, padding (k-1)/2.
        bias: [Cout].
    """
    outputs, inputs, size = kernel.shape[:3]
    (height, width), reach, block = rows.extent, (size - 1) // 2, _block(outputs, size)
    down, across = -(-height // block), -(-width // block)
    beyond = (down * block - height + reach, across * block - width + reach)
    framed = bordered(rows.index, rows.count, (reach, beyond[0], reach, beyond[1]))
    window = np.arange(block + size - 1)
    y = np.arange(0, down * block, block)[:, None, None, None] + window[:, None]
    x = np.arange(0, across * block, block)[:, None, None] + window
    gathered = sheet.gather(sheet.stack(rows, border=bool((framed == rows.count).any())), framed[y, x])
    weights = np.zeros((len(window), len(window), inputs, block, block, outputs), np.float32)
    for i, j in np.ndindex(block, block):
        weights[i : i + size, j : j + size, :, i, j] = kernel.transpose(2, 3, 1, 0)
    depth, lanes = len(window) ** 2 * inputs, block**2 * outputs
    wide = None if bias is None else np.tile(bias, block**2)
    product = gemm(sheet, sheet.reshape(gathered, -1, depth), weights.reshape(depth, lanes), wide)
    y, x = np.arange(height)[:, None], np.arange(width)
    index = ((y // block * across + x // block) * block + y % block) * block + x % block
    return Rows((Part(product, down * across * block**2),), outputs, index)


def _block(outputs: int, size: int) -> int:
    """Pixels a side that one product gives: enough to fill a vector of 16 floats."""
    return next((block for block in (1, 2, 4) if block**2 * outputs >= VECTOR or size == 1), 4)


def doubling_kernel(kernel: Weights) -> Weights:  # [Cout, Cin, 3, 3] -> [Cin, Cout, 4, 4]
    """The transposed convolution (stride 2, padding 1) that equals a nearest doubling and then a 3 x 3 convolution.

    An output pixel sees two source rows: at even rows one through tap 0 and one through taps 1 and 2, at odd rows one
    through taps 0 and 1 and one through tap 2; likewise columns.
    """
    spread = np.zeros((4, 3))
    spread[3, 0] = spread[1, 1] = spread[1, 2] = spread[2, 0] = spread[2, 1] = spread[0, 2] = 1
    merged = np.einsum("ak,bl,oikl->ioab", spread, spread, kernel.astype(np.float64))
    return np.ascontiguousarray(merged, np.float32)
