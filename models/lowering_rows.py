"""Feature maps laid out as rows of channels, and the nodes that move them. Knows nothing of convolutions.

A map [B, C, H, W] is kept as tensors whose memory is [B, rows, C]; which row holds which pixel is an index known when
the graph is built. Moving pixels is then one Gather with a constant index, a memcpy of C floats for each pixel, and an
order that a layer happens to produce costs nothing: it becomes the next layer's index.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

Index = NDArray[np.int64]

NCHW, NHWC, FLAT = "nchw", "nhwc", "flat"  # what the graph takes a map for: [B, C, H, W], [B, H, W, C], [B, C*H*W]


@dataclass(frozen=True)
class Part:
    """A tensor whose memory is [B, count, channels], whatever its declared shape."""

    name: str
    count: int


@dataclass(frozen=True)
class Rows:
    """A feature map as rows of channels.

    Args:
        parts: hold the rows, one after the other for each image.
        channels: floats in a row.
        index: [H, W], the row of each pixel; there may be rows that no pixel uses.
        layout: what the graph takes the map for.
        under: the index before a nearest doubling, [H/2, W/2], where the map comes from one.
    """

    parts: tuple[Part, ...]
    channels: int
    index: Index
    layout: str = NCHW
    under: Index | None = None

    @property
    def count(self) -> int:
        """Rows of an image, used or not."""
        return sum(part.count for part in self.parts)

    @property
    def extent(self) -> tuple[int, int]:
        """Height and width."""
        return self.index.shape[0], self.index.shape[1]

    @property
    def shape(self) -> tuple[int, ...]:
        """What follows the batch in the shape that the graph knows."""
        (height, width), channels = self.extent, self.channels
        shapes = {NCHW: (channels, height, width), NHWC: (height, width, channels)}
        return shapes.get(self.layout, (channels * height * width,))


class Sheet:
    """New nodes and constants of a graph that is being rewritten, under names of their own.

    Args:
        taken: names that the graph uses already.
    """

    def __init__(self, taken: set[str]) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []
        self._known: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._prefix = "lowered/"
        while any(name.startswith(self._prefix) for name in taken):
            self._prefix += "_/"

    def constant(self, array: NDArray[Any]) -> str:
        """The name of a constant; equal arrays are stored once."""
        array = np.ascontiguousarray(array).reshape(array.shape)  # it makes a scalar a vector
        key = (array.dtype.str, array.shape, hashlib.sha256(array.tobytes()).digest())
        if key not in self._known:
            self._known[key] = f"{self._prefix}c{len(self.tensors)}"
            self.tensors.append(numpy_helper.from_array(array, self._known[key]))
        return self._known[key]

    def emit(self, op: str, *inputs: str, output: str = "", **attributes: Any) -> str:  # noqa: ANN401 whatever ONNX knows
        """Append a node with one output and return that output's name: `output`, or a new one."""
        name = f"{self._prefix}{len(self.nodes)}"
        output = output or name
        self.nodes.append(helper.make_node(op, list(inputs), [output], name, **attributes))
        return output

    def reshape(self, name: str, *shape: int, output: str = "") -> str:
        """A view; -1 is the extent that follows from the others."""
        return self.emit("Reshape", name, self.constant(np.array(shape, np.int64)), output=output)

    def gather(self, stack: str, index: Index) -> str:  # [B, S, C] -> [B, index.size, C]
        """Rows of a stack, in another order."""
        return self.emit("Gather", stack, self.constant(index.reshape(-1).astype(np.int64)), axis=1)

    def map(self, rows: Rows, op: str, *operands: str, first: bool = True, **attributes: Any) -> Rows:  # noqa: ANN401 whatever ONNX knows
        """A pointwise node over every value of a map, which is its first operand or comes after the others."""
        parts = []
        for part in rows.parts:
            inputs = (part.name, *operands) if first else (*operands, part.name)
            parts.append(Part(self.emit(op, *inputs, **attributes), part.count))
        return replace(rows, parts=tuple(parts))

    def stack(self, rows: Rows, *, border: bool) -> str:
        """All rows of a map in one tensor [B, S, C]; with a border, row S is zero, for pixels outside the map."""
        names = [self.reshape(part.name, -1, part.count, rows.channels) for part in rows.parts]
        if border:
            names[-1] = self.emit("Pad", names[-1], self.constant(np.array([0, 0, 0, 0, 1, 0], np.int64)))
        return names[0] if len(names) == 1 else self.emit("Concat", *names, axis=1)

    def ordered(self, rows: Rows) -> str:
        """A map as [B, H*W, C], row by row and column by column."""
        wanted, stack = rows.index.reshape(-1), self.stack(rows, border=False)
        if np.array_equal(wanted, np.arange(rows.count)):
            return stack
        run = _run(rows)
        if run == 1:
            return self.gather(stack, wanted)
        chunks = self.reshape(stack, -1, rows.count // run, run * rows.channels)
        return self.reshape(self.gather(chunks, wanted[::run] // run), -1, wanted.size, rows.channels)

    def settle(self, rows: Rows, name: str) -> None:
        """Give a map the name and shape that the rest of the graph knows it by."""
        ordered = self.ordered(rows)
        if rows.layout != NHWC and rows.channels > 1 and rows.index.size > 1:
            ordered = self.emit("Transpose", ordered, perm=[0, 2, 1])
        self.reshape(ordered, -1, *rows.shape, output=name)

    def rows_of(self, name: str, shape: Sequence[int]) -> Rows:
        """Rows of a tensor that the graph holds as [B, C, H, W]; `shape` is (C, H, W)."""
        channels, height, width = shape
        size = height * width
        index = np.arange(size).reshape(height, width)
        if channels > 1 and size > 1:
            name = self.emit("Transpose", self.reshape(name, -1, channels, size), perm=[0, 2, 1])
        return Rows((Part(name, size),), channels, index)


def bordered(index: Index, outside: int, margin: tuple[int, int, int, int]) -> Index:
    """An index with rows and columns of outside pixels around it: (above, below, left, right)."""
    above, below, left, right = margin
    return np.pad(index, ((above, below), (left, right)), constant_values=outside)


def _run(rows: Rows) -> int:
    """How many rows can be moved at once: pixels side by side that lie side by side, from a multiple of their count."""
    for run in (16, 8, 4, 2):
        if rows.count % run == 0 and rows.extent[1] % run == 0:
            runs = rows.index.reshape(-1, run)
            if np.all(runs[:, :1] % run == 0) and np.all(np.diff(runs) == 1):
                return run
    return 1
