"""The two reference generators that serving is measured with: DCGANs with random weights. Knows nothing of serving.

small: 1 x 32 x 32, 1.2 million parameters. medium: 3 x 64 x 64, 3.8 million. Transposed convolutions with the
normalisation folded in, z of 128, uint8 NHWC out, as users bring them: without our signature.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Z_DIM = 128
WIDTHS = {"small": (256, 128, 64), "medium": (512, 256, 128, 64)}
CHANNELS = {"small": 1, "medium": 3}
OUTPUT_SPREAD = 0.7  # standard deviation before tanh, so that pixels use the whole range


def build(name: str) -> bytes:
    """The serialised ONNX file of "small" or "medium"; always the same bytes."""
    stream = np.random.RandomState(0)
    nodes = [helper.make_node("Unsqueeze", ["z", "axes"], ["map0"])]
    weights = {"axes": np.array([2, 3], np.int64)}
    last, channels_in = "map0", Z_DIM
    for i, width in enumerate(WIDTHS[name]):
        taps = 1 if i == 0 else 4  # inputs that reach an output pixel, per channel
        spread = np.sqrt(2 / (taps * channels_in))  # He et al. 2015: keeps the second moment through ReLU
        weights[f"w{i}"] = (stream.standard_normal((channels_in, width, 4, 4)) * spread).astype(np.float32)
        weights[f"b{i}"] = (stream.standard_normal(width) * 0.02).astype(np.float32)
        stride, pad = (1, 0) if i == 0 else (2, 1)
        nodes += [
            helper.make_node(
                "ConvTranspose", [last, f"w{i}", f"b{i}"], [f"conv{i}"], strides=[stride] * 2, pads=[pad] * 4
            ),
            helper.make_node("Relu", [f"conv{i}"], [f"relu{i}"]),
        ]
        last, channels_in = f"relu{i}", width
    spread = OUTPUT_SPREAD / np.sqrt(4 * channels_in)
    weights["w"] = (stream.standard_normal((channels_in, CHANNELS[name], 4, 4)) * spread).astype(np.float32)
    nodes += [helper.make_node("ConvTranspose", [last, "w"], ["out"], strides=[2, 2], pads=[1] * 4), *_to_bytes()]
    weights |= {key: np.array(value, np.float32) for key, value in (("half", 127.5), ("low", 0), ("high", 255))}
    size = 8 * 2 ** (len(WIDTHS[name]) - 1)
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["batch", Z_DIM])],
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", size, size, CHANNELS[name]])],
        [numpy_helper.from_array(array, key) for key, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def _to_bytes() -> list[onnx.NodeProto]:
    """Tanh -> levels -> uint8 NHWC."""
    return [
        helper.make_node("Tanh", ["out"], ["tanh"]),
        helper.make_node("Mul", ["tanh", "half"], ["scaled"]),
        helper.make_node("Add", ["scaled", "half"], ["shifted"]),
        helper.make_node("Round", ["shifted"], ["rounded"]),
        helper.make_node("Clip", ["rounded", "low", "high"], ["clipped"]),
        helper.make_node("Transpose", ["clipped"], ["nhwc"], perm=[0, 2, 3, 1]),
        helper.make_node("Cast", ["nhwc"], ["image"], to=TensorProto.UINT8),
    ]


def write(folder: Path) -> dict[str, Path]:
    """Write both files into a folder; returns their paths by name."""
    paths = {name: folder / f"{name}.onnx" for name in WIDTHS}
    for name, path in paths.items():
        path.write_bytes(build(name))
    return paths
