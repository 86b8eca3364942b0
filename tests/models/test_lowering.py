"""A lowered generator computes what the original computes, whatever its layers."""

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from bench import reference_models
from models.lowering import Form, lower
from models.runtime import make_session

FORMS: tuple[Form, ...] = ("fastest", "windows")
Z_DIM = 8


def _model(nodes: list[onnx.NodeProto], weights: dict[str, NDArray[Any]], shape: tuple[int, ...]) -> onnx.ModelProto:
    """z [N, 8] through a Gemm to the map `shape` (C, H, W), named "map", then the nodes, which end in "out"."""
    values = int(np.prod(shape))
    stream = np.random.RandomState(1)
    weights = {
        "entry": stream.standard_normal((Z_DIM, values)).astype(np.float32),
        "entry_bias": stream.standard_normal(values).astype(np.float32),
        "shape": np.array([-1, *shape], np.int64),
        **weights,
    }
    entry = [
        helper.make_node("Gemm", ["z", "entry", "entry_bias"], ["flat"]),
        helper.make_node("Reshape", ["flat", "shape"], ["map"]),
    ]
    graph = helper.make_graph(
        [*entry, *nodes],
        "g",
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["batch", Z_DIM])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model)


def _run(model: onnx.ModelProto, z: NDArray[np.float32]) -> NDArray[Any]:
    return make_session(model.SerializeToString()).run(None, {"z": z})[0]


def _z(count: int, z_dim: int = Z_DIM) -> NDArray[np.float32]:
    return np.random.RandomState(7).standard_normal((count, z_dim)).astype(np.float32)


def _agree(model: onnx.ModelProto, form: Form) -> onnx.ModelProto:
    """Lower a model, check it against the original, and return it."""
    lowered = lower(model, form=form)
    for count in (1, 3):
        wanted, got = _run(model, _z(count)), _run(lowered, _z(count))
        assert got.shape == wanted.shape
        np.testing.assert_allclose(got, wanted, atol=1e-5 * max(1.0, float(np.abs(wanted).max())), rtol=0)
    return lowered


def _ops(model: onnx.ModelProto) -> set[str]:
    return {node.op_type for node in model.graph.node}


def _weights(*shape: int) -> NDArray[np.float32]:
    return np.random.RandomState(0).standard_normal(shape).astype(np.float32)


def _transposed(**attributes: Any) -> onnx.NodeProto:
    values = {"strides": [2, 2], "pads": [1] * 4, **attributes}
    return helper.make_node("ConvTranspose", ["map", "w", "b"], ["out"], **values)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("inputs", "outputs"), [(1, 1), (3, 16), (16, 3), (16, 16), (5, 1)])
@pytest.mark.parametrize("extent", [(1, 1), (2, 2), (3, 5), (4, 4), (7, 7), (8, 6), (1, 4)])
def test_a_transposed_convolution_becomes_products(
    form: Form, inputs: int, outputs: int, extent: tuple[int, int]
) -> None:
    """Any channels, any extent, odd ones and single rows too."""
    model = _model([_transposed()], {"w": _weights(inputs, outputs, 4, 4), "b": _weights(outputs)}, (inputs, *extent))
    assert "ConvTranspose" not in _ops(_agree(model, form))


@pytest.mark.parametrize("name", ["small", "medium"])
@pytest.mark.parametrize("form", FORMS)
def test_the_reference_models_keep_their_pixels(name: str, form: Form) -> None:
    """Within one level, on nearly all values without any difference."""
    model = onnx.load_model_from_string(reference_models.build(name))
    lowered = lower(model, form=form)
    z = _z(16, reference_models.Z_DIM)
    wanted, got = (_run(each, z).astype(int) for each in (model, lowered))
    assert np.abs(wanted - got).max() <= 1
    assert np.mean(wanted != got) < 1e-3
    assert _ops(lowered).isdisjoint({"ConvTranspose", "Transpose"})


def test_an_unknown_graph_comes_back_itself() -> None:
    """The very same object."""
    model = _model([_transposed(strides=[1, 1])], {"w": _weights(3, 3, 4, 4), "b": _weights(3)}, (3, 4, 4))
    assert lower(model) is model
