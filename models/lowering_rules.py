"""Which node becomes what on maps that are rows of channels. Knows nothing of matrix products or of whole graphs."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
import onnx

from models import lowering_layers as layers
from models.lowering_forms import affine, convolved, doubling_kernel, linear, windowed
from models.lowering_layers import Layer, Weights, attributes
from models.lowering_rows import FLAT, NCHW, NHWC, Part, Rows, Sheet
from models.lowering_walk import Walk
from models.lowering_winograd import SHARES, WINDOWS, centred, paired

UNARY = (
    "Abs", "Cast", "Ceil", "Celu", "Clip", "Cos", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish",
    "Identity", "LeakyRelu", "Mish", "Neg", "Relu", "Round", "Selu", "Sigmoid", "Sin", "Softplus", "Softsign", "Sqrt",
    "Tanh", "ThresholdedRelu",
)  # fmt: skip
BINARY = ("Add", "Div", "Max", "Min", "Mul", "PRelu", "Sub")


FEW_CHANNELS = 4  # of images: ONNX Runtime's own ConvTranspose is fast where products would have so few columns
SMALL_LAYER = 2**20  # multiplications below which the fewest nodes win
SHARED_AREA = 16  # pixels of a map up to which the columns outside it, which windows compute, cost more than sums
CENTRED_AREA = 64  # and up to which fewer nodes win over smaller ones

Form = Callable[[Sheet, Rows, Weights, Weights | None], Rows]


def rewritten(walk: Walk, node: onnx.NodeProto) -> Rows | None:
    """The map that a node makes, its new nodes written to the walk's sheet; None where it must stay as it is."""
    if node.domain not in ("", "ai.onnx") or len(node.output) != 1 or not node.input:
        return None
    rule = RULES.get(node.op_type)
    return rule(walk, node) if rule is not None else None


def _linear(walk: Walk, node: onnx.NodeProto) -> Rows | None:
    """A product whose columns become a map further on: they are put in the order of rows of channels."""
    layer, shape = layers.linear(node, walk.constants), _destination(walk, node)
    if layer is None or shape is None or walk.extents(node.input[0])[1:] != (layer.kernel.shape[0],):
        return None
    channels, height, width = shape
    order = np.arange(channels * height * width).reshape(channels, -1).T.reshape(-1)
    walk.settle(node.input[0])
    bias = None if layer.bias is None else layer.bias[order]
    return replace(linear(walk.sheet, node.input[0], layer.kernel[:, order], bias, (height, width)), layout=FLAT)


def _destination(walk: Walk, node: onnx.NodeProto) -> tuple[int, int, int] | None:
    """(C, H, W) of the map that a vector is reshaped into, pointwise nodes between them allowed."""
    reader = walk.sole_consumer(node.output[0])
    while reader is not None and reader.op_type in UNARY:
        reader = walk.sole_consumer(reader.output[0])
    if reader is None or reader.op_type != "Reshape":
        return None
    _, *shape = walk.extents(reader.output[0]) or (None,)
    if len(shape) != 3:
        return None
    channels, height, width = (extent or 0 for extent in shape)
    return (channels, height, width) if channels * height * width else None


def _reshape(walk: Walk, node: onnx.NodeProto) -> Rows | None:
    """The columns of a product seen as the map that they were sorted for."""
    rows = walk.known(node.input[0])
    if rows is None or rows.layout != FLAT or walk.extents(node.output[0])[1:] != (rows.channels, *rows.extent):
        return None
    return replace(rows, layout=NCHW)


def _transposed(walk: Walk, node: onnx.NodeProto) -> Rows | None:
    """A ConvTranspose that doubles the extent, or that makes a map of a single pixel."""
    layer = layers.doubling(node, walk.constants)
    if layer is not None:
        if walk.form == "fastest" and layer.kernel.shape[1] <= FEW_CHANNELS:
            return None
        rows = walk.rows(node.input[0])
        return None if rows is None else _layer(walk, node, layer, rows, 1, _doubling(walk, layer, rows))
    layer = layers.projection(node, walk.constants)
    if layer is None or walk.extents(node.input[0])[2:] != (1, 1):
        return None
    rows = walk.rows(node.input[0])
    return None if rows is None else _layer(walk, node, layer, rows, 1, affine)


def _convolution(walk: Walk, node: onnx.NodeProto) -> Rows | None:
    """A convolution that keeps the extent; right after a nearest doubling it is a doubling layer."""
    layer, rows = layers.convolution(node, walk.constants), walk.known(node.input[0])
    if layer is None or rows is None:
        return None
    if rows.under is None or layer.kernel.shape[2] != 3:
        return _layer(walk, node, layer, rows, 0, convolved)
    small, layer = replace(rows, index=rows.under, under=None), Layer(doubling_kernel(layer.kernel), layer.bias)
    return _layer(walk, node, layer, small, 1, _doubling(walk, layer, small, after_doubling=True))


def _doubling(walk: Walk, layer: Layer, rows: Rows, *, after_doubling: bool = False) -> Form:
    """The form that measures best for a layer that doubles the extent."""
    inputs, outputs = layer.kernel.shape[:2]
    area = rows.index.size
    small = outputs <= FEW_CHANNELS or 16 * inputs * outputs * area < SMALL_LAYER
    if walk.form == "windows" or small:
        return windowed
    if after_doubling and area <= CENTRED_AREA:
        return partial(centred, columns=SHARES)
    return partial(paired, columns=SHARES if area <= SHARED_AREA else WINDOWS)


def _layer(walk: Walk, node: onnx.NodeProto, layer: Layer, rows: Rows, axis: int, form: Form) -> Rows | None:
    """A layer in some form, with the BatchNormalization that follows it folded in.

    Args:
        walk: where we are.
        node: the convolution.
        layer: its weights.
        rows: its input.
        axis: of the kernel that holds the output channels.
        form: computes it.
    """
    if rows.layout != NCHW or rows.channels != layer.kernel.shape[1 - axis]:
        return None
    walk.gained = True
    reader = walk.sole_consumer(node.output[0])
    normal = layers.normalisation(reader, walk.constants) if reader is not None else None
    if reader is None or normal is None:
        return form(walk.sheet, rows, *layer)
    made = form(walk.sheet, rows, *layers.scaled(layer, axis, *normal))
    walk.absorb(reader, made)
    return made


def _resize(walk: Walk, node: onnx.NodeProto) -> Rows | None:
    """A nearest doubling: each row is named four times."""
    if not layers.repeats_pixels(node, walk.constants, walk.extents(node.input[0])):
        return None
    reader = walk.sole_consumer(node.output[0])
    wanted = reader is not None and reader.op_type == "Conv" and layers.convolution(reader, walk.constants) is not None
    rows = walk.rows(node.input[0]) if wanted else walk.known(node.input[0])
    if rows is None or rows.layout != NCHW:
        return None
    return replace(rows, index=rows.index.repeat(2, 0).repeat(2, 1), under=rows.index)


def _normalisation(walk: Walk, node: onnx.NodeProto) -> Rows | None:
    """A BatchNormalization on its own: one product and one sum for each channel."""
    rows, normal = walk.known(node.input[0]), layers.normalisation(node, walk.constants)
    if rows is None or normal is None or rows.layout != NCHW:
        return None
    scale, shift = (walk.sheet.constant(array) for array in normal)
    return walk.sheet.map(walk.sheet.map(_by_channel(walk, rows), "Mul", scale), "Add", shift)


def _unary(walk: Walk, node: onnx.NodeProto) -> Rows | None:
    """A function of each value alone; further inputs (Clip's) must be constants."""
    rows = walk.known(node.input[0])
    if rows is None or not all(name in walk.constants for name in node.input[1:] if name):
        return None
    return walk.sheet.map(rows, node.op_type, *node.input[1:], **attributes(node))


def _binary(walk: Walk, node: onnx.NodeProto) -> Rows | None:
    """A function of two maps, or of a map and one value for all of it or for each channel."""
    if len(node.input) != 2:
        return None
    first, second = (walk.known(name) for name in node.input)
    if first is not None and second is not None and first.shape == second.shape:
        return _of_maps(walk, node, first, second)
    leads = first is not None and (second is None or second.extent == (1, 1))
    rows, other = (first, node.input[1]) if leads else (second, node.input[0])
    prepared = None if rows is None else _operand(walk, rows, other)
    if prepared is None:
        return None
    rows, name = prepared
    return walk.sheet.map(rows, node.op_type, name, first=leads)


def _operand(walk: Walk, rows: Rows, name: str) -> tuple[Rows, str] | None:
    """A map and the other operand of a pointwise node, both shaped so that they fit; None where they cannot be."""
    sheet, constant = walk.sheet, walk.constants.get(name)
    if constant is not None and constant.size == 1 and constant.ndim <= 4:
        return rows, sheet.constant(constant.reshape(()))
    if rows.layout != NCHW or rows.channels == 1:
        return None
    if constant is not None:
        if constant.shape[-3:] != (rows.channels, 1, 1) or constant.size != rows.channels:
            return None
        parts = [sheet.reshape(part.name, -1, rows.channels) for part in rows.parts]
        other = sheet.constant(constant.reshape(-1))
    elif walk.extents(name)[1:] == (rows.channels, 1, 1):  # for each image its own, as of its class
        walk.settle(name)
        parts = [sheet.reshape(part.name, -1, part.count, rows.channels) for part in rows.parts]
        other = sheet.reshape(name, -1, 1, rows.channels)
    else:
        return None
    shaped = (Part(part, old.count) for part, old in zip(parts, rows.parts, strict=True))
    return replace(rows, parts=tuple(shaped)), other


def _of_maps(walk: Walk, node: onnx.NodeProto, first: Rows, second: Rows) -> Rows | None:
    """A function of two maps of one shape, each brought into plain order first."""
    if first.layout != second.layout:
        return None
    result = walk.sheet.emit(node.op_type, walk.sheet.ordered(first), walk.sheet.ordered(second))
    index = np.arange(first.index.size).reshape(first.extent)
    return Rows((Part(result, index.size),), first.channels, index, first.layout)


def _by_channel(walk: Walk, rows: Rows) -> Rows:
    """The same map with its channels as the last axis of every part."""
    parts = tuple(Part(walk.sheet.reshape(part.name, -1, rows.channels), part.count) for part in rows.parts)
    return replace(rows, parts=parts)


def _transpose(walk: Walk, node: onnx.NodeProto) -> Rows | None:
    """Channels last: that is how rows lie anyway."""
    rows = walk.known(node.input[0])
    if rows is None or rows.layout != NCHW or attributes(node).get("perm") != [0, 2, 3, 1]:
        return None
    return replace(rows, layout=NHWC)


RULES: Mapping[str, Callable[[Walk, onnx.NodeProto], Rows | None]] = {
    "Gemm": _linear,
    "MatMul": _linear,
    "Reshape": _reshape,
    "ConvTranspose": _transposed,
    "Conv": _convolution,
    "Resize": _resize,
    "BatchNormalization": _normalisation,
    "Transpose": _transpose,
    **dict.fromkeys(UNARY, _unary),
    **dict.fromkeys(BINARY, _binary),
}
