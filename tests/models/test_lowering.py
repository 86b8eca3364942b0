"""A lowered generator computes what the original computes, whatever its layers."""

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from bench import reference_models
from models import lowering_rules
from models.foreign import adopt
from models.generator import Generator
from models.latents import draw
from models.lowering import lower
from models.lowering_rows import Rows
from models.lowering_walk import Form
from models.lowering_winograd import SHARES, WINDOWS
from models.manifest import Classes
from models.repository import ZOO
from models.runtime import make_session

Z_DIM = 8
WANTED: tuple[Form, ...] = ("fastest", "windows")
THREE = Classes(names=("a", "b", "c"), frequencies=(0.5, 0.25, 0.25))
Weights = NDArray[np.float32]


def _random(*shape: int, seed: int = 0) -> Weights:
    return np.random.RandomState(seed).standard_normal(shape).astype(np.float32)


def _graph(nodes: list[onnx.NodeProto], weights: dict[str, NDArray[Any]], shape: tuple[int, ...]) -> onnx.ModelProto:
    """z [N, 8] through a product to the map `shape` (C, H, W), named "map", then the nodes, which end in "out"."""
    values = int(np.prod(shape))
    weights = {
        "entry": _random(Z_DIM, values, seed=1),
        "entry_bias": _random(values, seed=2),
        "map_shape": np.array([-1, *shape], np.int64),
        **weights,
    }
    entry = [
        helper.make_node("Gemm", ["z", "entry", "entry_bias"], ["flat"]),
        helper.make_node("Reshape", ["flat", "map_shape"], ["map"]),
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


def _transposed(source: str = "map", target: str = "out", weights: str = "w", **attributes: Any) -> onnx.NodeProto:
    values = {"strides": [2, 2], "pads": [1] * 4, **attributes}
    return helper.make_node("ConvTranspose", [source, weights], [target], **values)


def _run(model: onnx.ModelProto, z: Weights) -> NDArray[Any]:
    return make_session(model.SerializeToString()).run(None, {"z": z})[0]


def _z(count: int, z_dim: int = Z_DIM) -> Weights:
    return _random(count, z_dim, seed=7)


def _close(got: NDArray[Any], wanted: NDArray[Any]) -> None:
    assert got.shape == wanted.shape
    np.testing.assert_allclose(got, wanted, atol=1e-5 * float(np.abs(wanted).max(initial=1)), rtol=0)


def _agree(model: onnx.ModelProto, form: Form = "fastest") -> onnx.ModelProto:
    """Lower a model, check what it computes against the original, and return it."""
    onnx.checker.check_model(model)
    lowered = lower(model, form=form)
    onnx.checker.check_model(lowered)
    for count in (1, 3, 0):
        _close(_run(lowered, _z(count)), _run(model, _z(count)))
    return lowered


def _ops(model: onnx.ModelProto) -> set[str]:
    return {node.op_type for node in model.graph.node}


def test_every_form_is_chosen_for_some_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few nodes for small layers, sums of shares on small maps, windows on large ones; images stay as they are."""
    chosen: list[str] = []

    def noted(name: str) -> Any:
        form = getattr(lowering_rules, name)

        def call(*arguments: Any, **options: Any) -> Rows:
            chosen.append(f"{name} {options.get('columns', '')}".strip())
            return form(*arguments, **options)

        return call

    for name in ("windowed", "paired", "centred"):
        monkeypatch.setattr(lowering_rules, name, noted(name))
    layers = [
        _transposed("map", "a", "w1"), _transposed("a", "b", "w2"), _transposed("b", "c", "w3"),
        _transposed("c", "out", "w4"),
    ]  # fmt: skip
    weights = {f"w{i + 1}": _random(*c, 4, 4) for i, c in enumerate([(256, 64), (64, 64), (64, 8), (8, 3)])}
    assert "ConvTranspose" in _ops(lower(_graph(layers, weights, (256, 4, 4))))
    assert chosen == [f"paired {SHARES}", f"paired {WINDOWS}", f"paired {WINDOWS}"]
    chosen.clear()
    lower(_graph([_transposed()], {"w": _random(8, 8, 4, 4)}, (8, 8, 8)))
    lower(_doubled(64, 64, (7, 7)))
    lower(_doubled(64, 64, (14, 14)))
    assert chosen == ["windowed", f"centred {SHARES}", f"paired {WINDOWS}"]


@pytest.mark.parametrize("form", WANTED)
@pytest.mark.parametrize("channels", [(3, 16), (16, 3), (16, 16)])
@pytest.mark.parametrize("extent", [(1, 1), (3, 5), (4, 4), (8, 6)])
def test_transposed_convolutions_become_products(
    form: Form, channels: tuple[int, int], extent: tuple[int, int]
) -> None:
    """In a whole graph, the entry's columns sorted too; only an image's few channels may stay."""
    model = _graph([_transposed()], {"w": _random(*channels, 4, 4)}, (channels[0], *extent))
    lowered = _agree(model, form)
    assert ("ConvTranspose" in _ops(lowered)) == (form == "fastest" and channels[1] <= 3)


@pytest.mark.parametrize(
    ("node", "kernel"),
    [
        (_transposed(strides=[1, 1]), (8, 8, 4, 4)),
        (_transposed(), (8, 8, 3, 3)),
        (_transposed(kernel_shape=[2, 2], pads=[0] * 4), (8, 8, 2, 2)),
        (_transposed(group=2), (8, 4, 4, 4)),
        (_transposed(dilations=[2, 2]), (8, 8, 4, 4)),
        (_transposed(output_padding=[1, 1]), (8, 8, 4, 4)),
        (_transposed(pads=[1, 1, 2, 2]), (8, 8, 4, 4)),
        (_transposed(pads=[0] * 4, output_shape=[8, 8]), (8, 8, 4, 4)),
        (_transposed(pads=[0] * 4, auto_pad="SAME_UPPER"), (8, 8, 4, 4)),
        (_transposed(), (8, 8, 4, 6)),
    ],
)
def test_what_is_not_understood_comes_back_itself(node: onnx.NodeProto, kernel: tuple[int, ...]) -> None:
    """The very same object, not a copy."""
    model = _graph([node], {"w": _random(*kernel)}, (8, 4, 4))
    assert lower(model) is model


def test_a_free_extent_is_left_alone() -> None:
    """As are weights that are computed, and weights that a caller may override."""
    free = _graph([_transposed()], {"w": _random(8, 8, 4, 4), "map_shape": np.array([-1, 8, 4, 4])}, (8, 4, 4))
    for value in free.graph.value_info:
        if value.name == "map":
            value.type.tensor_type.shape.dim[2].dim_param = "height"
    free.graph.initializer[2].CopyFrom(numpy_helper.from_array(np.array([-1, 8, 4, 4]), "unused"))
    free.graph.input.append(helper.make_tensor_value_info("map_shape", TensorProto.INT64, [4]))
    assert lower(free) is free
    computed = _graph([helper.make_node("Abs", ["v"], ["w"]), _transposed()], {"v": _random(8, 8, 4, 4)}, (8, 4, 4))
    assert lower(computed) is computed
    overridden = _graph([_transposed()], {"w": _random(8, 8, 4, 4)}, (8, 4, 4))
    overridden.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [8, 8, 4, 4]))
    assert lower(overridden) is overridden


def _doubled(inputs: int, outputs: int, extent: tuple[int, int], **attributes: Any) -> onnx.ModelProto:
    values = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor", **attributes}
    nodes = [
        helper.make_node("Resize", ["map", "", "scales"], ["large"], **values),
        helper.make_node("Conv", ["large", "w", "b"], ["out"], pads=[1] * 4),
    ]
    weights = {"w": _random(outputs, inputs, 3, 3), "b": _random(outputs), "scales": np.array([1, 1, 2, 2], np.float32)}
    return _graph(nodes, weights, (inputs, *extent))


@pytest.mark.parametrize("form", WANTED)
@pytest.mark.parametrize(
    "rounding",
    [
        {},
        {"coordinate_transformation_mode": "half_pixel", "nearest_mode": "round_prefer_floor"},
        {"coordinate_transformation_mode": "half_pixel", "nearest_mode": "round_prefer_ceil"},
        {"coordinate_transformation_mode": "pytorch_half_pixel", "nearest_mode": "round_prefer_floor"},
    ],
)
@pytest.mark.parametrize("shape", [(64, 64, 7, 5), (16, 3, 4, 4), (16, 16, 12, 12)])
def test_a_doubling_and_its_convolution_become_one(
    form: Form, rounding: dict[str, str], shape: tuple[int, ...]
) -> None:
    """However the graph says that each pixel is repeated."""
    lowered = _agree(_doubled(shape[0], shape[1], (shape[2], shape[3]), **rounding), form)
    assert _ops(lowered).isdisjoint({"Resize", "Conv", "ConvTranspose"})


@pytest.mark.parametrize(
    "attributes",
    [{"mode": "linear"}, {"nearest_mode": "ceil"}, {"coordinate_transformation_mode": "align_corners"}],
)
def test_other_resizes_stay(attributes: dict[str, str]) -> None:
    """Linear ones, and those that do not repeat each pixel twice."""
    model = _doubled(8, 8, (4, 4), **attributes)
    assert lower(model) is model


@pytest.mark.parametrize("form", WANTED)
@pytest.mark.parametrize(("size", "outputs"), [(1, 16), (3, 1), (3, 3), (3, 16), (5, 2)])
@pytest.mark.parametrize("extent", [(4, 4), (5, 3)])
def test_convolutions_in_the_chain_stay_in_it(form: Form, size: int, outputs: int, extent: tuple[int, int]) -> None:
    """Of any odd size and any channels, also where the blocks that they are computed in do not fit the map."""
    nodes = [
        _transposed(target="a"),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("Conv", ["r", "v", "b"], ["out"], pads=[(size - 1) // 2] * 4),
    ]
    weights = {"w": _random(8, 8, 4, 4), "v": _random(outputs, 8, size, size), "b": _random(outputs)}
    assert _ops(_agree(_graph(nodes, weights, (8, *extent)), form)).isdisjoint({"Conv", "ConvTranspose"})
    lowered = _agree(_graph([_transposed(target="a"), *nodes[1:]], weights, (8, *extent)), form)
    assert _ops(lowered).isdisjoint({"Conv", "Transpose"}) or outputs > 1


@pytest.mark.parametrize("form", WANTED)
def test_pointwise_nodes_keep_the_layout(form: Form) -> None:
    """Normalisation, activations, scales for each channel, residual sums, and what must see the map as it was."""
    nodes = [
        helper.make_node("Relu", ["map"], ["m"]),
        _transposed("m", "a", "w1"),
        helper.make_node("BatchNormalization", ["a", "gamma", "beta", "mean", "variance"], ["n"], epsilon=1e-3),
        helper.make_node("LeakyRelu", ["n"], ["l"], alpha=0.2),
        helper.make_node("Mul", ["scale", "l"], ["s"]),
        helper.make_node("Conv", ["s", "w3"], ["c"], pads=[1] * 4),
        helper.make_node("Add", ["s", "c"], ["sum"]),
        helper.make_node("BatchNormalization", ["sum", "gamma", "beta", "mean", "variance"], ["n2"]),
        helper.make_node("Sub", ["one", "n2"], ["d"]),
        helper.make_node("InstanceNormalization", ["d", "gamma", "beta"], ["i"]),
        _transposed("i", "e", "w2"),
        helper.make_node("PRelu", ["e", "slope"], ["p"]),
        helper.make_node("Clip", ["p", "low"], ["out"]),
    ]
    weights = {
        "w1": _random(8, 16, 4, 4), "w2": _random(16, 8, 4, 4), "w3": _random(16, 16, 3, 3) / 12,
        "gamma": _random(16), "beta": _random(16), "mean": _random(16), "variance": np.abs(_random(16)) + 0.5,
        "scale": _random(16, 1, 1), "one": np.array([1], np.float32), "slope": _random(8, 1, 1),
        "low": np.array(-1, np.float32),
    }  # fmt: skip
    lowered = _agree(_graph(nodes, weights, (8, 4, 4)), form)
    assert _ops(lowered).isdisjoint({"Conv", "ConvTranspose"})
    assert sum(node.op_type == "BatchNormalization" for node in lowered.graph.node) == 0
    assert "InstanceNormalization" in _ops(lowered)


@pytest.mark.parametrize("form", WANTED)
def test_scales_of_a_class_keep_the_layout(form: Form) -> None:
    """A conditional normalisation: each image has its own scale and shift for each channel."""
    nodes = [
        helper.make_node("MatMul", ["z", "to_scale"], ["s1"]),
        helper.make_node("Unsqueeze", ["s1", "axes"], ["scale"]),
        helper.make_node("Gemm", ["z", "to_shift"], ["s2"]),
        helper.make_node("Reshape", ["s2", "wide"], ["shift"]),
        _transposed(target="a"),
        helper.make_node("Mul", ["a", "scale"], ["m"]),
        helper.make_node("Add", ["shift", "m"], ["s"]),
        helper.make_node("Relu", ["s"], ["r"]),
        _transposed("r", "out", "v"),
    ]
    weights = {
        "w": _random(64, 64, 4, 4), "v": _random(64, 8, 4, 4), "to_scale": _random(Z_DIM, 64),
        "to_shift": _random(Z_DIM, 64, seed=5), "axes": np.array([2, 3]), "wide": np.array([-1, 64, 1, 1]),
    }  # fmt: skip
    lowered = _agree(_graph(nodes, weights, (64, 4, 4)), form)
    assert [node.op_type for node in lowered.graph.node].count("Transpose") == 1


@pytest.mark.parametrize("form", WANTED)
def test_a_map_that_others_read_too_is_still_there(form: Form) -> None:
    """An intermediate result that is an output keeps its name, shape and values."""
    model = _graph([_transposed(target="a"), _transposed("a", "out")], {"w": _random(8, 8, 4, 4)}, (8, 4, 4))
    model.graph.output.append(helper.make_tensor_value_info("a", TensorProto.FLOAT, None))
    lowered = lower(model, form=form)
    results = [make_session(each.SerializeToString()).run(None, {"z": _z(2)}) for each in (lowered, model)]
    for got, wanted in zip(*results, strict=True):
        _close(got, wanted)


def test_shapes_that_the_graph_computes_are_known_before() -> None:
    """As exporters write a view: the nodes that computed it are gone, and constants may be nodes too."""
    nodes = [
        helper.make_node("Constant", [], ["wanted"], value=numpy_helper.from_array(_random(8, 8, 4, 4))),
        helper.make_node("Shape", ["flat"], ["extents"]),
        helper.make_node("Gather", ["extents", "zero"], ["count"]),
        helper.make_node("Unsqueeze", ["count", "zeros"], ["counts"]),
        helper.make_node("Concat", ["counts", "rest"], ["view"], axis=0),
        helper.make_node("Reshape", ["flat", "view"], ["viewed"]),
        _transposed("viewed", "out", "wanted"),
    ]
    weights = {"zero": np.array(0), "zeros": np.array([0]), "rest": np.array([8, 4, 4])}
    model = _graph(nodes, weights, (8, 4, 4))
    del model.graph.node[1]  # the view by a constant
    lowered = _agree(model)
    assert _ops(lowered) == {"Gemm", "Reshape", "Pad", "Gather", "Transpose"}
    assert [node.op_type for node in lowered.graph.node].count("Transpose") == 1


def test_nested_graphs_functions_and_old_files_are_left_alone() -> None:
    """What the nodes at the top do not tell is not guessed."""
    old = _graph([_transposed()], {"w": _random(8, 8, 4, 4)}, (8, 4, 4))
    old.opset_import[0].version = 11
    assert lower(old) is old
    named = _graph([_transposed()], {"w": _random(8, 8, 4, 4)}, (8, 4, 4))
    named.functions.append(onnx.FunctionProto(name="f", domain="local"))
    assert lower(named) is named


# Whole generators


def _generator(name: str) -> tuple[onnx.ModelProto, int]:
    if name == "shipped":
        return onnx.load(ZOO / "fashion-mnist" / "2" / "model.onnx"), 64
    return onnx.load_model_from_string(reference_models.build(name)), reference_models.Z_DIM


@pytest.mark.parametrize("name", ["small", "medium", "shipped"])
@pytest.mark.parametrize("form", WANTED)
def test_generators_keep_their_pixels(name: str, form: Form) -> None:
    """Within one level, on nearly all values without any difference; metadata, names and shapes as before."""
    model, z_dim = _generator(name)
    lowered = lower(model, form=form)
    wanted, got = (_run(each, _z(16, z_dim)).astype(int) for each in (model, lowered))
    assert np.abs(wanted - got).max() <= 1
    assert np.mean(wanted != got) < 1e-3
    assert lowered.metadata_props == model.metadata_props
    assert (lowered.graph.input, lowered.graph.output) == (model.graph.input, model.graph.output)
    assert "Resize" not in _ops(lowered)
    assert sum(node.op_type == "ConvTranspose" for node in lowered.graph.node) == (
        form == "fastest" and name != "shipped"
    )


@pytest.mark.parametrize(
    ("name", "form"),
    [("small", "fastest"), ("medium", "fastest"), ("shipped", "fastest"), ("small", "windows"), ("shipped", "windows")],
)
def test_a_sample_does_not_depend_on_its_batch(name: str, form: Form) -> None:
    """Bit by bit, at batches of 1 to 64 and at any position."""
    model, z_dim = _generator(name)
    session = make_session(lower(model, form=form).SerializeToString())
    z = _z(64, z_dim)
    together = session.run(None, {"z": z})[0]
    stream = np.random.RandomState(0)
    for count in (1, 1, 2, 3, 5, 7, 8, 16, 31, 33):
        rows = stream.randint(0, 64, count)
        assert np.array_equal(session.run(None, {"z": z[rows]})[0], together[rows])


@pytest.mark.parametrize("form", WANTED)
def test_a_conditional_generator_keeps_its_pixels(form: Form) -> None:
    """Of which the class chooses an embedding that joins z."""
    stream = {"table": _random(3, 4), "dense": _random(12, 64 * 16), "w1": _random(64, 32, 4, 4) / 16}
    stream |= {"w2": _random(32, 3, 4, 4) / 12, "map_shape": np.array([-1, 64, 4, 4])}
    nodes = [
        helper.make_node("Gather", ["table", "class_idx"], ["embedding"]),
        helper.make_node("Concat", ["z", "embedding"], ["joined"], axis=1),
        helper.make_node("MatMul", ["joined", "dense"], ["flat"]),
        helper.make_node("Relu", ["flat"], ["relu"]),
        helper.make_node("Reshape", ["relu", "map_shape"], ["map"]),
        _transposed("map", "a", "w1"),
        _transposed("a", "b", "w2"),
        helper.make_node("Tanh", ["b"], ["out"]),
    ]
    ports = [("z", TensorProto.FLOAT, ["n", Z_DIM]), ("class_idx", TensorProto.INT64, ["n"])]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(*port) for port in ports],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n", 3, 16, 16])],
        [numpy_helper.from_array(array, name) for name, array in stream.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    generators = [
        Generator.from_bytes(adopt(each.SerializeToString(), prior="normal", classes=THREE), lower=False)
        for each in (model, lower(model, form=form))
    ]
    adopted = Generator.from_bytes(adopt(model.SerializeToString(), prior="normal", classes=THREE))
    assert "lowered" in adopted.arithmetic
    drawn = draw(adopted.signature, range(20))
    wanted = generators[0].generate(*drawn).astype(int)
    for generator in (adopted, generators[1]):
        assert np.abs(generator.generate(*drawn) - wanted).max() <= 1


def test_the_weights_are_not_kept_twice() -> None:
    """Weights that nothing reads any more are left out: the rest is at most 1.6 times the original."""
    for name in ("small", "medium"):
        model, _ = _generator(name)
        assert lower(model).ByteSize() < 1.6 * model.ByteSize()
