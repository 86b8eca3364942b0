"""Foreign ONNX generators become ours, or are refused with the reason."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from models.errors import NotServable
from models.foreign import adopt, is_stamped
from models.generator import Generator
from models.latents import draw
from models.manifest import Classes
from models.testkit import tiny_model

F, I64, U8 = TensorProto.FLOAT, TensorProto.INT64, TensorProto.UINT8
CLASSES = Classes(names=("a", "b"), frequencies=(0.5, 0.5))


def _foreign(
    *,
    z: tuple[str, int, list] = ("latent", F, ["n", 6]),
    output: tuple[str, int, list] = ("x", F, ["n", 1, 4, 4]),
    squash: str = "Tanh",
    extra_inputs: tuple = (),
    extra_nodes: tuple = (),
    opset: int = 18,
    shape: tuple[int, ...] = (-1, 1, 4, 4),
) -> bytes:
    """z -> Reshape [n, 6] -> MatMul -> squash -> Reshape `shape` -> Cast to the output's type."""
    weights = np.random.RandomState(0).standard_normal((6, 16)).astype(np.float32)
    nodes = [
        helper.make_node("Reshape", [z[0], "flat_shape"], ["z_flat"]),
        helper.make_node("MatMul", ["z_flat", "z"], ["h"]),  # its weights are called "z", to be awkward
        helper.make_node(squash, ["h"], ["images"]),  # and its middle "images"
        helper.make_node("Reshape", ["images", "out_shape"], ["cube"]),
        *extra_nodes,
        helper.make_node("Cast", ["cube"], [output[0]], to=output[1]),
    ]
    initializers = [
        numpy_helper.from_array(np.array([-1, 6], np.int64), "flat_shape"),
        numpy_helper.from_array(weights, "z"),
        numpy_helper.from_array(np.array(shape, np.int64), "out_shape"),
    ]
    inputs = [helper.make_tensor_value_info(*z), *extra_inputs]
    graph = helper.make_graph(nodes, "foreign", inputs, [helper.make_tensor_value_info(*output)], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return model.SerializeToString()


def _reference(z: np.ndarray) -> np.ndarray:
    """What the foreign network should become, written once more in numpy: [N, 4, 4, 1] uint8."""
    weights = np.random.RandomState(0).standard_normal((6, 16)).astype(np.float32)
    x = np.tanh(z @ weights).reshape(-1, 1, 4, 4)
    return np.clip((x + 1) * 127.5 + 0.5, 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)


def test_a_float_nchw_generator_gets_its_post_processing() -> None:
    """[-1, 1] NCHW floats come out as uint8 NHWC, rounded to nearest, names and signature in place."""
    generator = Generator.from_bytes(adopt(_foreign(), prior="uniform"))
    assert (generator.signature.z_dim, generator.signature.shape) == (6, (4, 4, 1))
    assert generator.signature.prior == "uniform"
    drawn = draw(generator.signature, range(9))
    difference = generator.generate(*drawn).astype(int) - _reference(drawn.z).astype(int)
    assert np.abs(difference).max() <= 1
    assert np.mean(difference == 0) > 0.98  # rounding at the edge between two levels


def test_dcgan_latents_are_taken() -> None:
    """[N, z_dim, 1, 1], as the DCGAN tutorials have it, is fed from [N, z_dim]."""
    plain = Generator.from_bytes(adopt(_foreign(), prior="normal"))
    mapped = Generator.from_bytes(adopt(_foreign(z=("latent", F, ["n", 6, 1, 1])), prior="normal"))
    drawn = draw(plain.signature, range(5))
    assert np.array_equal(plain.generate(*drawn), mapped.generate(*drawn))


def test_vectors_and_bytes_pass_through() -> None:
    """float [N, d] becomes `samples`, uint8 NHWC becomes `images`, unchanged."""
    vector = Generator.from_bytes(adopt(_foreign(output=("y", F, ["n", 16]), shape=(-1, 16)), prior="normal"))
    assert vector.signature.kind == "vector"
    assert vector.generate(*draw(vector.signature, [1])).shape == (1, 16)
    images = adopt(_foreign(output=("y", U8, ["n", 4, 4, 1]), squash="Relu", shape=(-1, 4, 4, 1)), prior="normal")
    assert Generator.from_bytes(images).signature.kind == "image"


def test_class_inputs_are_renamed_and_cast() -> None:
    """An int32 class input called y is fed from class_idx."""
    label = helper.make_tensor_value_info("y", TensorProto.INT32, ["n"])
    use = (
        helper.make_node("Cast", ["y"], ["yf"], to=F),
        helper.make_node("ReduceSum", ["yf"], ["unused"], keepdims=0),
    )
    generator = Generator.from_bytes(
        adopt(_foreign(extra_inputs=(label,), extra_nodes=use), prior="normal", classes=CLASSES)
    )
    assert generator.signature.classes == CLASSES
    assert generator.generate(*draw(generator.signature, [1, 2])).shape == (2, 4, 4, 1)


def test_adopting_is_deterministic_and_marks_the_file() -> None:
    """The same file gives the same digest; ours are told from foreign ones."""
    assert adopt(_foreign(), prior="normal") == adopt(_foreign(), prior="normal")
    assert adopt(_foreign(), prior="normal") != adopt(_foreign(), prior="uniform")
    assert is_stamped(tiny_model())
    assert not is_stamped(_foreign())


def _external() -> bytes:
    model = onnx.load_model_from_string(_foreign())
    entry = model.graph.initializer[1].external_data.add()
    entry.key, entry.value = "location", "weights.bin"
    model.graph.initializer[1].data_location = TensorProto.EXTERNAL
    return model.SerializeToString()


def _two_outputs() -> bytes:
    model = onnx.load_model_from_string(_foreign())
    model.graph.output.append(helper.make_tensor_value_info("h", F, ["n", 16]))
    return model.SerializeToString()


CASES: list[tuple[str, Callable[[], bytes], str]] = [
    ("empty", lambda: b"", "not an ONNX file"),
    ("text", lambda: b"<html>", "not an ONNX file"),
    ("external", _external, "outside the file"),
    ("noise", lambda: _foreign(extra_nodes=(helper.make_node("RandomNormalLike", ["h"], ["r"]),)), "random numbers"),
    ("domain", lambda: _foreign(extra_nodes=(helper.make_node("Foo", ["h"], ["r"], domain="acme"),)), "acme"),
    ("opset", lambda: _foreign(opset=11), "opset 11"),
    ("double", lambda: _foreign(z=("z", TensorProto.DOUBLE, ["n", 6])), "one float32 input"),
    ("two z", lambda: _foreign(extra_inputs=(helper.make_tensor_value_info("w", F, ["n", 6]),)), "one float32 input"),
    ("open z", lambda: _foreign(z=("latent", F, ["n", "m"])), "z_dim fixed"),
    ("fixed batch", lambda: _foreign(z=("latent", F, [4, 6])), "dynamic batch"),
    ("two outputs", _two_outputs, "expected one output; it has 2"),
    ("rank 3", lambda: _foreign(output=("x", F, ["n", 4, 4]), shape=(-1, 4, 4)), "the output must be"),
    ("five channels", lambda: _foreign(output=("x", F, ["n", "c", "h", "w"]), shape=(-1, 4, 2, 2)), "image is"),
    ("not a number", lambda: _foreign(squash="Log"), "not finite"),
    ("sigmoid", lambda: _foreign(squash="Sigmoid"), "never below 0"),
    ("wrong reshape", lambda: _foreign(shape=(1, -1, 4, 4)), "shape does not follow the batch|image is"),
    ("cannot run", lambda: _foreign(shape=(-1, 1, 4, 5)), "cannot run it"),
    ("classes unsaid", lambda: _foreign(extra_inputs=(helper.make_tensor_value_info("y", I64, ["n"]),)), "classes"),
]


@pytest.mark.parametrize(("build", "reason"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_what_cannot_be_served_is_refused_with_the_reason(build: Callable[[], bytes], reason: str) -> None:
    """Never a stack trace, never a guess."""
    with pytest.raises(NotServable, match=reason):
        adopt(build(), prior="normal")


def test_more_classes_than_the_file_knows_are_refused() -> None:
    """The last class is tried, not only those that chance draws."""
    rows = numpy_helper.from_array(np.zeros((3, 1), np.float32), "rows")
    nodes = (
        helper.make_node("Constant", [], ["table"], value=rows),
        helper.make_node("Gather", ["table", "y"], ["embedding"]),
    )
    data = _foreign(extra_inputs=(helper.make_tensor_value_info("y", I64, ["n"]),), extra_nodes=nodes)
    names = tuple("abcd")
    adopt(data, prior="normal", classes=Classes(names=names[:3], frequencies=(0.5, 0.5, 0.0)))
    with pytest.raises(NotServable, match="cannot run it"):
        adopt(data, prior="normal", classes=Classes(names=names, frequencies=(0.5, 0.5, 0.0, 0.0)))


def test_classes_for_an_unconditional_file_are_refused() -> None:
    """They would be drawn and ignored."""
    with pytest.raises(NotServable, match="no class input"):
        adopt(_foreign(), prior="normal", classes=CLASSES)
