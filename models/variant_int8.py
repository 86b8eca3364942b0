"""Quantises a generator's matrix products to int8, calibrated on its own prior. Knows no repository and no judging.

Weights are int8 with a scale for each output channel, activations uint8 with one scale each. That pair, and no other,
runs on the processor's VNNI instructions in ONNX Runtime: int8 by int8 and uint8 by uint8 are 6 to 60 times slower.
"""

import contextlib
import io
import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from models.errors import NotServable
from models.runtime import make_session

Feed = dict[str, NDArray[Any]]
Kept = Literal["first", "edges"]

PRODUCTS = frozenset({"Gemm", "MatMul", "Conv"})
NEAR = 2.0  # of a value before tanh; those beyond it are within 4 % of the end of the range
ENOUGH = 100  # such values of a channel: from fewer no shift can be told
CARRIERS = ("Gather", "Reshape", "Pad", "Relu", "Concat")  # move quantised values without computing on them


def quantise(model: onnx.ModelProto, feeds: Sequence[Feed], *, kept: Kept) -> onnx.ModelProto:
    """The same generator with most of its matrix products in int8.

    The first product stays in float32: its rounding would be of z itself, and what it costs is small. So does what
    follows the last product: its output goes to the pixels unrounded.

    Args:
        model: with products on constant weights; see models.lowering, form "windows".
        feeds: what to run while the ranges of the activations are noted; a few dozen latents, since every further
            one stretches ranges by its outliers and makes the steps for all the others coarser.
        kept: which products stay in float32: the "first", or the "edges", the last one too.

    Raises:
        NotServable: there are not enough products.
    """
    named = onnx.ModelProto()
    named.CopyFrom(model)
    for i, node in enumerate(named.graph.node):
        node.name = f"n{i}"
    weights = {tensor.name for tensor in named.graph.initializer}
    places = [
        i for i, node in enumerate(named.graph.node) if node.op_type in PRODUCTS and set(node.input[1:]) <= weights
    ]
    if len(places) < (2 if kept == "first" else 3):
        raise NotServable(f"only {len(places)} of the graph's nodes are products with constant weights")
    inner = range(places[0] + 1, places[-1] + (kept == "first"))
    chosen = [named.graph.node[i].name for i in inner if named.graph.node[i].op_type in (*PRODUCTS, *CARRIERS)]
    quantised = _quantised(named, feeds, chosen)
    if kept == "first":
        _unround_last(quantised.graph)
    _centre_last(quantised, named, feeds)
    del quantised.metadata_props[:]
    quantised.metadata_props.extend(model.metadata_props)
    return quantised


def _quantised(model: onnx.ModelProto, feeds: Sequence[Feed], nodes: list[str]) -> onnx.ModelProto:
    """ONNX Runtime's static quantisation, which works on files and talks a lot."""
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    with tempfile.TemporaryDirectory() as folder, _silence():
        before, after = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, before)
        quantize_static(
            before,
            after,
            _Reader(feeds),
            quant_format=QuantFormat.QOperator,
            op_types_to_quantize=[*PRODUCTS, *CARRIERS],
            nodes_to_quantize=nodes,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
        return onnx.load(after)


class _Reader:
    """onnxruntime.quantization's CalibrationDataReader, which asks for one feed after another until None."""

    def __init__(self, feeds: Sequence[Feed]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> Feed | None:
        return next(self._feeds, None)

    def __iter__(self) -> "_Reader":
        return self

    def __next__(self) -> Feed:
        return next(self._feeds)


def _unround_last(graph: onnx.GraphProto) -> None:
    """Let the last product answer in float32, without the rounding to 256 steps that its output would get."""
    last = _last(graph, ("QGemm",))
    if last is None:  # a convolution, which only answers in 8 bits
        return
    after = [node for node in graph.node if last.output[0] in node.input]
    if len(after) == 1 and after[0].op_type == "DequantizeLinear" and len(last.input) == 9:
        del last.input[7:]  # scale and zero point of the output
        last.output[0] = after[0].output[0]
        graph.node.remove(after[0])
        _drop_unused(graph)


def _centre_last(quantised: onnx.ModelProto, original: onnx.ModelProto, feeds: Sequence[Feed]) -> None:
    """Move the last product's bias so that rounding shifts no channel (Nagel et al. 2019, for one layer).

    The shift of a channel is the mean over what is near the middle of the range: beyond it, where tanh is flat, the
    numbers are large and so are their errors, and none of them is seen.
    """
    theirs, ours = (_last(model.graph, ("Gemm", "QGemm")) for model in (original, quantised))
    if theirs is None or ours is None or len(ours.input) > 7:  # it is a convolution, or answers in 8 bits
        return
    before, after = (_values(model, node.output[0], feeds) for model, node in ((original, theirs), (quantised, ours)))
    near = np.abs(before) < NEAR
    shifts = np.array(
        [
            (before - after)[rows, channel].mean() if (rows := near[:, channel]).sum() >= ENOUGH else 0.0
            for channel in range(before.shape[1])
        ]
    )
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in quantised.graph.initializer}
    place = 6 if ours.op_type == "QGemm" else 2
    if ours.op_type == "QGemm":  # its bias counts in steps of both scales
        shifts = np.round(shifts / (constants[ours.input[1]] * constants[ours.input[4]]))
    bias = constants.get(ours.input[place], 0) if len(ours.input) > place else 0
    kind = np.int32 if ours.op_type == "QGemm" else np.float32
    moved = numpy_helper.from_array((bias + shifts).astype(kind), "centred_bias")
    quantised.graph.initializer.append(moved)
    del ours.input[place:]
    ours.input.append(moved.name)
    _drop_unused(quantised.graph)


def _values(model: onnx.ModelProto, name: str, feeds: Sequence[Feed]) -> NDArray[np.float32]:  # [rows, channels]
    """What a tensor of a graph is for all feeds."""
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    shown.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    session = make_session(shown.SerializeToString())
    return np.concatenate([session.run([name], feed)[0] for feed in feeds])


def _last(graph: onnx.GraphProto, kinds: Sequence[str]) -> onnx.NodeProto | None:
    return next((node for node in reversed(graph.node) if node.op_type in kinds), None)


def _drop_unused(graph: onnx.GraphProto) -> None:
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)
