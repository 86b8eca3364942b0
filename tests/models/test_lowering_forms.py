"""Each form of a doubling layer is the transposed convolution that it stands for."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper

from models.lowering_forms import doubling_kernel, windowed
from models.lowering_rows import Rows, Sheet
from models.lowering_winograd import SHARES, WINDOWS, centred, paired
from models.runtime import make_session

FORMS = {
    "windowed": windowed,
    "paired windows": partial(paired, columns=WINDOWS),
    "paired shares": partial(paired, columns=SHARES),
    "centred windows": partial(centred, columns=WINDOWS),
    "centred shares": partial(centred, columns=SHARES),
}
Weights = NDArray[np.float32]


def _random(*shape: int, seed: int = 0) -> Weights:
    return np.random.RandomState(seed).standard_normal(shape).astype(np.float32)


def _by_form(name: str, kernel: Weights, bias: Weights | None, extent: tuple[int, int], source: Weights) -> Weights:
    """What a form makes of a map."""
    sheet = Sheet(set())
    rows: Rows = sheet.rows_of("map", (kernel.shape[0], *extent))
    sheet.settle(FORMS[name](sheet, rows, kernel, bias), "out")
    ports = [helper.make_tensor_value_info(port, TensorProto.FLOAT, None) for port in ("map", "out")]
    graph = helper.make_graph(sheet.nodes, "g", ports[:1], ports[1:], sheet.tensors)
    graph.input[0].type.tensor_type.shape.dim.add().dim_param = "batch"
    for side in (kernel.shape[0], *extent):
        graph.input[0].type.tensor_type.shape.dim.add().dim_value = side
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return make_session(model.SerializeToString()).run(None, {"map": source})[0]


def _directly(kernel: Weights, bias: Weights | None, source: Weights) -> Weights:
    """A transposed convolution of stride 2 and padding 1, by its definition, in float64."""
    count, _, height, width = source.shape
    out = np.zeros((count, kernel.shape[1], 2 * height + 2, 2 * width + 2))
    for y, x, ky, kx in np.ndindex(height, width, 4, 4):
        out[:, :, 2 * y + ky, 2 * x + kx] += source[:, :, y, x].astype(np.float64) @ kernel[:, :, ky, kx]
    return out[:, :, 1:-1, 1:-1] + (0 if bias is None else bias[:, None, None])


@pytest.mark.parametrize("name", FORMS)
@settings(max_examples=25, deadline=None)
@given(
    channels=st.tuples(st.sampled_from([1, 3, 16, 64]), st.sampled_from([1, 2, 3, 16, 64])),
    extent=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    biased=st.booleans(),
)
def test_each_form_is_the_transposed_convolution(
    name: str, channels: tuple[int, int], extent: tuple[int, int], biased: bool
) -> None:
    """For any channels and any extent: odd ones, single rows and single pixels too."""
    inputs, outputs = channels
    kernel = _random(inputs, outputs, 4, 4)
    if name.startswith("centred"):
        kernel = doubling_kernel(_random(outputs, inputs, 3, 3))
    bias = _random(outputs, seed=3) if biased else None
    source = _random(2, inputs, *extent, seed=4)
    got, wanted = _by_form(name, kernel, bias, extent, source), _directly(kernel, bias, source)
    np.testing.assert_allclose(got, wanted, atol=1e-5 * np.abs(wanted).max(), rtol=0)
