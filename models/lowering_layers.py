"""Reads layers of an ONNX graph that can be computed as matrix products. Knows nothing of how they are computed."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

Weights = NDArray[np.float32]
Constants = Mapping[str, NDArray[Any]]

SIZED = {"mode": b"nearest", "keep_aspect_ratio_policy": b"stretch"}
DOUBLING_MODES = {  # coordinate transformation -> rounding modes under which a doubling repeats each pixel
    b"asymmetric": (b"floor",),
    b"half_pixel": (b"round_prefer_floor", b"round_prefer_ceil"),
    b"pytorch_half_pixel": (b"round_prefer_floor", b"round_prefer_ceil"),
    b"half_pixel_symmetric": (b"round_prefer_floor", b"round_prefer_ceil"),
}


class Layer(NamedTuple):
    """Weights as the graph stores them, and the bias where there is one."""

    kernel: Weights
    bias: Weights | None


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """A node's attributes by name."""
    return {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}


def constants(graph: onnx.GraphProto) -> dict[str, NDArray[Any]]:
    """Initialisers that no caller can override, and what Constant nodes hold."""
    inputs = {port.name for port in graph.input}
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer if tensor.name not in inputs}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            found[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    return found


def extents(model: onnx.ModelProto) -> dict[str, tuple[int | None, ...]]:
    """Shapes of all tensors that can be told without running the model; None where an extent is free."""
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    found = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        if value.type.tensor_type.HasField("shape"):
            dims = value.type.tensor_type.shape.dim
            found[value.name] = tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in dims)
    return found


def linear(node: onnx.NodeProto, known: Constants) -> Layer | None:
    """Gemm or MatMul with constant weights, as a kernel [K, N]."""
    values = attributes(node)
    weights = known.get(node.input[1])
    if weights is None or weights.dtype != np.float32 or weights.ndim != 2:
        return None
    if node.op_type == "MatMul":
        return Layer(weights, None)
    if values.get("transA", 0) or values.get("alpha", 1.0) != 1 or values.get("beta", 1.0) != 1:
        return None
    kernel = weights.T if values.get("transB", 0) else weights
    if len(node.input) < 3 or not node.input[2]:
        return Layer(kernel, None)
    bias = known.get(node.input[2])
    if bias is None:
        return None
    try:
        return Layer(kernel, np.broadcast_to(bias, (1, kernel.shape[1]))[0])
    except ValueError:
        return None


def convolution(node: onnx.NodeProto, known: Constants) -> Layer | None:
    """A Conv with stride 1 that keeps the extent, kernel [Cout, Cin, k, k] with k odd; None for any other."""
    layer = _square(node, known)
    if layer is None:
        return None
    size = layer.kernel.shape[2]
    return layer if size % 2 == 1 and _placed(node, stride=1, pad=(size - 1) // 2) else None


def doubling(node: onnx.NodeProto, known: Constants) -> Layer | None:
    """A ConvTranspose of 4 x 4 that doubles the extent (stride 2, padding 1), kernel [Cin, Cout, 4, 4]."""
    layer = _square(node, known)
    doubles = layer is not None and layer.kernel.shape[2] == 4 and _placed(node, stride=2, pad=1)
    return layer if doubles else None


def projection(node: onnx.NodeProto, known: Constants) -> Layer | None:
    """A ConvTranspose without padding, kernel [Cin, Cout, k, k]: of a 1 x 1 map it is a matrix product."""
    layer = _square(node, known)
    strides = attributes(node).get("strides", [1, 1])
    unpadded = layer is not None and _placed(node, stride=strides[0], pad=0)
    return layer if unpadded else None


def repeats_pixels(node: onnx.NodeProto, known: Constants, before: tuple[int | None, ...]) -> bool:
    """Whether a Resize of [N, C, H, W] makes each pixel 2 x 2."""
    values = {"nearest_mode": b"round_prefer_floor", "coordinate_transformation_mode": b"half_pixel"}
    values |= attributes(node)
    if any(values.get(name, wanted) != wanted for name, wanted in SIZED.items()) or "axes" in values:
        return False
    if values["nearest_mode"] not in DOUBLING_MODES.get(values["coordinate_transformation_mode"], ()):
        return False
    inputs = [*node.input, "", "", ""]
    scales, sizes = known.get(inputs[2]), known.get(inputs[3])
    if scales is not None and scales.size:
        return bool(np.array_equal(scales, [1, 1, 2, 2]))
    channels, height, width = (extent or 0 for extent in before[1:])
    return sizes is not None and np.array_equal(sizes[1:], [channels, 2 * height, 2 * width])


def normalisation(node: onnx.NodeProto, known: Constants) -> tuple[Weights, Weights] | None:
    """(scale, shift) for each channel of a BatchNormalization with constant statistics."""
    found = [known.get(name) for name in node.input[1:5]] if node.op_type == "BatchNormalization" else [None]
    if any(array is None for array in found) or attributes(node).get("training_mode", 0) or len(node.output) != 1:
        return None
    gamma, beta, mean, variance = (np.asarray(array, np.float64) for array in found)
    scale = gamma / np.sqrt(variance + attributes(node).get("epsilon", 1e-5))
    return scale.astype(np.float32), (beta - mean * scale).astype(np.float32)


def scaled(layer: Layer, axis: int, scale: Weights, shift: Weights) -> Layer:
    """A layer followed by a scale and a shift of each output channel, which lie on this axis of its kernel."""
    shape = [-1 if i == axis else 1 for i in range(layer.kernel.ndim)]
    bias = shift if layer.bias is None else layer.bias * scale + shift
    return Layer(layer.kernel * scale.reshape(shape), bias)


def _square(node: onnx.NodeProto, known: Constants) -> Layer | None:
    """Constant square float32 weights of a convolution of either kind, and its bias."""
    kernel = known.get(node.input[1])
    if kernel is None or kernel.dtype != np.float32 or kernel.ndim != 4 or kernel.shape[2] != kernel.shape[3]:
        return None
    if len(node.input) < 3 or not node.input[2]:
        return Layer(kernel, None)
    bias = known.get(node.input[2])
    return None if bias is None else Layer(kernel, bias)


def _placed(node: onnx.NodeProto, *, stride: int, pad: int) -> bool:
    """Whether a convolution has this stride and padding on both axes, and nothing else that moves its taps."""
    values = attributes(node)
    plain = {"group": (1,), "auto_pad": (b"NOTSET",), "dilations": ([1, 1],), "output_padding": ([0, 0],)}
    if any(values.get(name, allowed[0]) not in allowed for name, allowed in plain.items()) or "output_shape" in values:
        return False
    return bool(values.get("strides", [1, 1]) == [stride] * 2 and values.get("pads", [0] * 4) == [pad] * 4)
