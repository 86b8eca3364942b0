"""Feature extractors that need no training, as ONNX graphs: random convolutions and random Fourier features.

The weights come from a frozen random stream, so the same shape (and, for Fourier features, the same data) gives the
same file and the same digest everywhere. Knows nothing of measures or files.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

SEED = 0
OPSET, IR_VERSION = 18, 10  # fixed: both are part of the file, and so of the digest
WIDTHS = (32, 64, 128)
CONV_DIM = sum(WIDTHS)
NUM_FREQUENCIES = 128
FOURIER_DIM = 2 * NUM_FREQUENCIES
BANDWIDTHS = (0.01, 0.03, 0.1, 0.3, 1.0)  # times the median distance
MEDIAN_OF = 1000  # samples whose distances give the median heuristic
DESCRIPTIONS: dict[str, tuple[str, int]] = {
    "random-conv": ("random zero-sum conv3x3-relu-pool 32-64-128, means over positions of every stage", CONV_DIM),
    "random-fourier": ("random Fourier features, cosine and sine, bandwidths .01 .03 .1 .3 1", FOURIER_DIM),
}


def convolutional(shape: tuple[int, ...]) -> onnx.ModelProto:
    """Random convolutional features (Naeem et al. 2020 use random networks outside ImageNet's domain).

    Three stages of 3x3 convolution, ReLU and 2x2 mean pooling (left out where the image has become too small); each
    stage's means over positions are features. Every filter sums to zero: with plain ones nearly all of the reals'
    variance is brightness, and noise or blur weigh five to twelve times less against it (Fashion-MNIST).

    Args:
        shape: (H, W, C) of the images.

    Returns:
        `images` uint8 [N, H, W, C] -> `features` float32 [N, 224].
    """
    height, width, channels = shape
    random = np.random.RandomState(SEED)
    graph = _Graph()
    x = graph.add("Cast", "images", to=TensorProto.FLOAT)
    x = graph.add("Transpose", x, perm=[0, 3, 1, 2])
    x = graph.add("Sub", graph.add("Div", x, graph.constant(np.float32(127.5))), graph.constant(np.float32(1)))
    means = []
    extent = min(height, width)
    for outputs in WIDTHS:
        weight, bias = _filters(random, channels, outputs)
        x = graph.add("Conv", x, graph.constant(weight), graph.constant(bias), kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        x = graph.add("Relu", x)
        means.append(graph.add("ReduceMean", x, graph.constant(np.array([2, 3])), keepdims=0))
        if extent >= 4:
            x = graph.add("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
            extent //= 2
        channels = outputs
    graph.add("Concat", *means, axis=1, output="features")
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", *shape])
    return graph.model(images, CONV_DIM)


def fourier(samples: NDArray[np.float32]) -> onnx.ModelProto:
    """Random Fourier features (Rahimi & Recht 2007) of standardised vectors, at five bandwidths.

    The bandwidths are those of `BANDWIDTHS` times the median distance between samples; moments of raw features are
    blind to shape (N(0, I/2) equals a ring in the first two), moments of these are a kernel's.

    Args:
        samples: [N, d] float32, the training split: it gives the scale of each coordinate and the median distance.

    Returns:
        `samples` float32 [N, d] -> `features` float32 [N, 256]: cosines, then sines.
    """
    random = np.random.RandomState(SEED)
    dim = samples.shape[1]
    mean, scale = _rounded(samples.mean(0, np.float64)), _rounded(samples.std(0, dtype=np.float64))
    scale[scale == 0] = 1
    chosen = samples[random.permutation(len(samples))[:MEDIAN_OF]]
    median = _rounded(np.array([_median_distance((chosen - mean) / scale)]))[0] or 1.0
    widths = median * np.resize(BANDWIDTHS, NUM_FREQUENCIES)
    frequencies = random.standard_normal((dim, NUM_FREQUENCIES)) / widths
    graph = _Graph()
    x = graph.add("Sub", "samples", graph.constant(mean.astype(np.float32)))
    x = graph.add("Div", x, graph.constant(scale.astype(np.float32)))
    angles = graph.add("MatMul", x, graph.constant(frequencies.astype(np.float32)))
    graph.add("Concat", graph.add("Cos", angles), graph.add("Sin", angles), axis=1, output="features")
    vectors = helper.make_tensor_value_info("samples", TensorProto.FLOAT, ["N", dim])
    return graph.model(vectors, FOURIER_DIM)


class _Graph:
    """Gathers nodes and constants, naming each value by its position."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._names: Iterator[int] = iter(range(1_000_000))

    def constant(self, value: Any) -> str:  # noqa: ANN401 an array or a scalar
        name = f"c{next(self._names)}"
        self._constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def add(self, operator: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:  # noqa: ANN401 ONNX's own
        name = output or f"x{next(self._names)}"
        self._nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    def model(self, source: onnx.ValueInfoProto, dim: int) -> onnx.ModelProto:
        features = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", dim])
        graph = helper.make_graph(self._nodes, "features", [source], [features], self._constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        onnx.checker.check_model(model)
        return model


def _filters(
    random: np.random.RandomState, inputs: int, outputs: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:  # [outputs, inputs, 3, 3], [outputs]
    """He-scaled normal filters that sum to zero, and small biases."""
    weight = random.standard_normal((outputs, inputs, 3, 3))
    weight -= weight.mean((1, 2, 3), keepdims=True)
    weight *= np.sqrt(2 / (9 * inputs))
    bias = 0.1 * random.standard_normal(outputs)
    return weight.astype(np.float32), bias.astype(np.float32)


def _median_distance(points: NDArray[np.float64]) -> float:  # [N, d]
    from scipy.spatial.distance import pdist  # 3 MB, that a server of such extractors has no use for

    return float(np.median(pdist(points))) if len(points) > 1 else 0.0


def _rounded(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Four significant digits: sums differ in their last bits between processors, the digest must not."""
    return np.array([float(f"{value:.4g}") for value in values])
