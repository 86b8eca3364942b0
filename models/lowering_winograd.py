"""Doubling layers with a quarter fewer multiplications: Winograd's F(2, 2) over rows. Knows nothing of ONNX files.

A doubling layer sees each output row through two taps. With rows x[i-1], x[i], x[i+1] of the input and taps k0 .. k3,
output rows 2i and 2i+1 are x[i-1] k3 + x[i] k1 and x[i] k2 + x[i+1] k0. Two of the four products are saved where a
product serves two output rows (Winograd 1980, after Toom):

    pairs of rows x1 = x[2t], x2 = x[2t+1], with x0 before and x3 after them:
        even rows   x1 (k1 + k3) + (x0 - x1) k3      x1 (k1 + k3) + (x2 - x1) k1
        odd rows    x2 (k0 + k2) - (x2 - x1) k2      x2 (k0 + k2) + (x3 - x2) k0
    any row x1, where k0 + k2 = k1 + k3, as after a nearest doubling:
        even row    x1 (k1 + k3) + (x0 - x1) k3      odd row    x1 (k1 + k3) + (x2 - x1) k0

The differences are taken on rows, the sums cost nothing: they are what a Gemm adds. Columns go one of two ways: by
windows of two pixels (W+1 products of 2 Cin x 2 Cout in a row) or by shares (W products of Cin x 4 Cout, whose results
are added in pairs afterwards).
"""

from typing import NamedTuple

import numpy as np

from models.lowering_forms import gemm
from models.lowering_layers import Weights
from models.lowering_rows import Index, Part, Rows, Sheet, bordered

WINDOW_TAPS = np.array([[2, 3], [0, 1]])  # of the kernel: [pixel of the window, column that it gives]


class Columns(NamedTuple):
    """How the columns of a doubling layer are computed.

    Args:
        taps: pixels that a product reads: the 2 of a window, or 1.
        lanes: columns that it gives: 2, or the shares of all 4 taps.
    """

    taps: int
    lanes: int

    def reading(self, pixels: Index, outside: int) -> Index:  # [T, W] -> [T, positions, taps]
        """Which rows of channels the products over some rows of pixels read."""
        if self.taps == 1:
            return pixels[:, :, None]
        framed = bordered(pixels, outside, (0, 0, 1, 1))
        return np.stack([framed[:, :-1], framed[:, 1:]], -1)

    def weights(self, row: Weights) -> Weights:  # [Cin, Cout, 4] -> [taps * Cin, lanes * Cout]
        """One row of a kernel as a matrix."""
        if self.taps == 1:
            return row.transpose(0, 2, 1).reshape(len(row), -1)
        return row[:, :, WINDOW_TAPS].transpose(2, 0, 3, 1).reshape(2 * len(row), -1)

    def bias(self, bias: Weights | None) -> Weights | None:  # [Cout] -> [lanes * Cout]
        """A bias that reaches every output once: of the shares, one of tap 1 or 2 is in each."""
        if bias is None:
            return None
        return np.tile(bias, 2) if self.taps == 2 else np.concatenate([0 * bias, bias, bias, 0 * bias])


WINDOWS, SHARES = Columns(2, 2), Columns(1, 4)


def paired(sheet: Sheet, rows: Rows, kernel: Weights, bias: Weights | None, columns: Columns = WINDOWS) -> Rows:
    """A doubling layer over pairs of rows, six products; of an odd height the last pair has one row outside.

    Args:
        sheet: where the nodes go.
        rows: [B, Cin, H, W].
        kernel: [Cin, Cout, 4, 4] of a transposed convolution with stride 2 and padding 1.
        bias: [Cout].
        columns: how they are computed.

    Returns:
        [B, Cout, 2H, 2W].
    """
    height = rows.extent[0]
    framed = bordered(rows.index, rows.count, (1, 1 + height % 2, 0, 0))
    x0, x1, x2, x3 = _streams(sheet, rows, [framed[i : i + height : 2] for i in range(4)], kernel, columns)
    k0, k1, k2, k3 = (columns.weights(kernel[:, :, k]) for k in range(4))
    wide = columns.bias(bias)
    even, odd = gemm(sheet, x1, k1 + k3, wide), gemm(sheet, x2, k0 + k2, wide)
    between = sheet.emit("Sub", x2, x1)
    products = (
        gemm(sheet, sheet.emit("Sub", x0, x1), k3, even),
        gemm(sheet, between, -k2, odd),
        gemm(sheet, between, k1, even),
        gemm(sheet, sheet.emit("Sub", x3, x2), k0, odd),
    )
    return _assembled(sheet, products, kernel.shape[1], rows.extent, columns)


def centred(sheet: Sheet, rows: Rows, kernel: Weights, bias: Weights | None, columns: Columns = WINDOWS) -> Rows:
    """A doubling layer whose kernel has k0 + k2 = k1 + k3, row by row, three products; arguments as of `paired`."""
    height = rows.extent[0]
    framed = bordered(rows.index, rows.count, (1, 1, 0, 0))
    x0, x1, x2 = _streams(sheet, rows, [framed[i : i + height] for i in range(3)], kernel, columns)
    k0, k1, _, k3 = (columns.weights(kernel[:, :, k]) for k in range(4))
    both = gemm(sheet, x1, k1 + k3, columns.bias(bias))
    products = (
        gemm(sheet, sheet.emit("Sub", x0, x1), k3, both),
        gemm(sheet, sheet.emit("Sub", x2, x1), k0, both),
    )
    return _assembled(sheet, products, kernel.shape[1], rows.extent, columns)


def _streams(sheet: Sheet, rows: Rows, indices: list[Index], kernel: Weights, columns: Columns) -> list[str]:
    """What the products read of some rows each: matrices [B*T*positions, taps * Cin]."""
    stack, depth = sheet.stack(rows, border=True), columns.taps * len(kernel)
    gathered = [sheet.gather(stack, columns.reading(index, rows.count)) for index in indices]
    return [sheet.reshape(name, -1, depth) for name in gathered]


def _assembled(
    sheet: Sheet, products: tuple[str, ...], channels: int, extent: tuple[int, int], columns: Columns
) -> Rows:
    """The map whose row y is row y // len(products) of product y % len(products)."""
    height, width = extent
    step, line = len(products), columns.lanes * (width + columns.taps - 1)
    count = -(-2 * height // step) * line
    parts = tuple(Part(name, count) for name in products)
    y, x = np.arange(2 * height)[:, None], np.arange(2 * width)[None, :]
    first = y % step * count + y // step * line
    if columns.taps == 2:  # column x = 2b-1+q of window b
        return Rows(parts, channels, first + x + 1)
    # Column x sums the shares of tap 1 or 2 of pixel x // 2, and of tap 3 or 0 of the pixel before or after it
    near = first + x // 2 * 4 + 1 + x % 2
    beside = x // 2 + np.where(x % 2, 1, -1)
    inside = (beside >= 0) & (beside < width)
    far = np.where(inside, first + beside * 4 + np.where(x % 2, 0, 3), step * count)
    stack = sheet.stack(Rows(parts, channels, near), border=True)
    summed = sheet.emit("Add", sheet.gather(stack, near), sheet.gather(stack, far))
    return Rows((Part(summed, near.size),), channels, np.arange(near.size).reshape(near.shape))
