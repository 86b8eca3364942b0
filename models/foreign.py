"""Turns any ONNX generator into one of ours: names normalised, post-processing appended, signature written in.

A file is taken if it has one latent input [N, z_dim] (or [N, z_dim, 1, 1]), optionally one integer class input [N],
and one output: uint8 [N, H, W, C], float [N, C, H, W] in [-1, 1], or float [N, d]. Everything else is refused with the
reason. Knows nothing of repositories.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, compose, helper, numpy_helper

from models.errors import Invalid, NotServable, Unavailable
from models.graph import external_tensors, foreign_domains, random_ops
from models.latents import draw
from models.manifest import METADATA_KEY, OUTPUT_NAMES, Classes, Kind, Prior, Signature, stamp
from models.runtime import make_session

PREFIX = "g/"
PROBED_BATCHES = (1, 2, 7)
MIN_OPSET = 13
CLASS_TYPES = (TensorProto.INT64, TensorProto.INT32)


@dataclass(frozen=True)
class _Port:
    """One input or output as declared: its element type and dimensions (None where dynamic)."""

    name: str
    element: int
    dims: tuple[int | None, ...]

    def __str__(self) -> str:
        dims = ", ".join("?" if dim is None else str(dim) for dim in self.dims)
        return f"{self.name} {TensorProto.DataType.Name(self.element).lower()}[{dims}]"


def is_stamped(data: bytes) -> bool:
    """Whether an ONNX file carries a signature already, as our own exports do."""
    return any(entry.key == METADATA_KEY for entry in _parse(data).metadata_props)


def takes_classes(data: bytes) -> bool:
    """Whether an ONNX file has an integer input, which for a generator is the class."""
    graph = _parse(data).graph
    weights = {tensor.name for tensor in graph.initializer}
    return any(_port(value).element in CLASS_TYPES for value in graph.input if value.name not in weights)


def adopt(data: bytes, *, prior: Prior, classes: Classes | None = None) -> bytes:
    """The same generator with our names, our post-processing and its signature inside.

    Args:
        data: a serialised ONNX model.
        prior: what its z is drawn from; no file says so.
        classes: names and frequencies for a conditional generator.

    Raises:
        NotServable: it cannot be served, and why.
    """
    model = _parse(data)
    _refuse_unservable(model)
    z, class_input = _inputs(model, classes)
    output = _output(model)
    bare = Signature(kind="vector", prior=prior, z_dim=_z_dim(z), shape=(1,), classes=classes)
    shape = _probe(data, z, class_input, output, bare)
    kind, body = _rewrite(model, z, class_input, output)
    try:
        stamp(body, Signature(kind=kind, prior=prior, z_dim=_z_dim(z), shape=shape, classes=classes))
    except Invalid as error:
        raise NotServable(str(error)) from error
    return bytes(body.SerializeToString(deterministic=True))


def _parse(data: bytes) -> onnx.ModelProto:
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # protobuf's DecodeError is no public name
        raise NotServable(f"not an ONNX file: {error}") from error
    if not model.graph.node:
        raise NotServable("not an ONNX file, or one without any operator")
    return model


def _refuse_unservable(model: onnx.ModelProto) -> None:
    if outside := external_tensors(model):
        raise NotServable(f"tensor {outside[0]!r} lies outside the file: save the model with its weights inside")
    if ops := random_ops(model):
        raise NotServable(f"the graph draws random numbers ({', '.join(ops)}): z must be the only randomness")
    if domains := foreign_domains(model):
        raise NotServable(f"operators of unknown domains: {', '.join(domains)}")
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if opset < MIN_OPSET:
        raise NotServable(f"opset {opset} is too old: export with opset {MIN_OPSET} or later")


def _inputs(model: onnx.ModelProto, classes: Classes | None) -> tuple[_Port, _Port | None]:
    """The latent and the class input, told apart by their element types."""
    weights = {tensor.name for tensor in model.graph.initializer}
    ports = [_port(value) for value in model.graph.input if value.name not in weights]
    listed = "; ".join(str(port) for port in ports) or "none"
    latents = [port for port in ports if port.element == TensorProto.FLOAT]
    indices = [port for port in ports if port.element in CLASS_TYPES]
    if len(latents) != 1 or len(indices) > 1 or len(latents) + len(indices) != len(ports):
        raise NotServable(f"expected one float32 input z and at most one integer class input; its inputs: {listed}")
    z, class_input = latents[0], indices[0] if indices else None
    if len(z.dims) not in (2, 4) or z.dims[1] is None or any(dim != 1 for dim in z.dims[2:]):
        raise NotServable(f"z must be [N, z_dim] or [N, z_dim, 1, 1] with z_dim fixed; it is {z}")
    if class_input is not None and len(class_input.dims) != 1:
        raise NotServable(f"the class input must be [N] integers; it is {class_input}")
    for port in (z, class_input):
        if port is not None and port.dims[0] is not None:
            raise NotServable(f"the batch dimension of {port} is fixed: export with a dynamic batch")
    if (class_input is None) != (classes is None):
        raise NotServable(
            "it takes a class input: name labelled data, or how many classes it has"
            if class_input
            else "it takes no class input, but classes are given",
            field="classes",
        )
    return z, class_input


def _output(model: onnx.ModelProto) -> _Port:
    if len(model.graph.output) != 1:
        names = ", ".join(value.name for value in model.graph.output)
        raise NotServable(f"expected one output; it has {len(model.graph.output)}: {names}")
    port = _port(model.graph.output[0])
    image8 = port.element == TensorProto.UINT8 and len(port.dims) == 4
    floats = port.element == TensorProto.FLOAT and len(port.dims) in (2, 4)
    if not image8 and not floats:
        raise NotServable(
            f"the output must be uint8 [N, H, W, C], float32 [N, C, H, W] in [-1, 1], or float32 [N, d]; it is {port}"
        )
    return port


def _rewrite(
    model: onnx.ModelProto, z: _Port, class_input: _Port | None, output: _Port
) -> tuple[Kind, onnx.ModelProto]:
    """Prefix every name of the file, so that ours are free, then put our ports around it."""
    body: onnx.ModelProto = compose.add_prefix(model, PREFIX)
    graph = body.graph
    kind: Kind = "image" if len(output.dims) == 4 else "vector"
    nodes = [*_entry(graph, z, class_input), *graph.node, *_exit(graph, output)]
    weights = {tensor.name for tensor in graph.initializer}
    overridable = [value for value in graph.input if value.name in weights]  # old files list weights as inputs too
    inputs = [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["batch", _z_dim(z)])]
    if class_input is not None:
        inputs.append(helper.make_tensor_value_info("class_idx", TensorProto.INT64, ["batch"]))
    element = TensorProto.UINT8 if kind == "image" else TensorProto.FLOAT
    dims = ["batch"] + [None] * (len(output.dims) - 1)
    rewritten = helper.make_graph(
        nodes,
        graph.name or "generator",
        [*inputs, *overridable],
        [helper.make_tensor_value_info(OUTPUT_NAMES[kind], element, dims)],
        initializer=list(graph.initializer),
        sparse_initializer=list(graph.sparse_initializer),
    )
    body.graph.CopyFrom(rewritten)
    return kind, body


def _entry(graph: onnx.GraphProto, z: _Port, class_input: _Port | None) -> list[onnx.NodeProto]:
    """From our inputs to the file's own."""
    nodes = []
    if len(z.dims) == 4:
        graph.initializer.append(numpy_helper.from_array(np.array([-1, _z_dim(z), 1, 1], np.int64), "z_shape"))
        nodes.append(helper.make_node("Reshape", ["z", "z_shape"], [PREFIX + z.name], "z_as_map"))
    else:
        nodes.append(helper.make_node("Identity", ["z"], [PREFIX + z.name], "z_in"))
    if class_input is not None:
        own = PREFIX + class_input.name
        nodes.append(helper.make_node("Cast", ["class_idx"], [own], "class_in", to=class_input.element))
    return nodes


def _exit(graph: onnx.GraphProto, output: _Port) -> list[onnx.NodeProto]:
    """From the file's own output to ours.

    float [N, C, H, W] in [-1, 1] becomes uint8 [N, H, W, C]: clamp((x + 1) * 127.5 + 0.5, 0, 255), then the cast.
    """
    raw = PREFIX + output.name
    if len(output.dims) == 2:
        return [helper.make_node("Identity", [raw], ["samples"], "samples_out")]
    if output.element == TensorProto.UINT8:
        return [helper.make_node("Identity", [raw], ["images"], "images_out")]
    for name, value in (("scale", 127.5), ("offset", 128.0), ("lowest", 0.0), ("highest", 255.0)):
        graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), name))
    return [
        helper.make_node("Mul", [raw, "scale"], ["scaled"], "scale_out"),
        helper.make_node("Add", ["scaled", "offset"], ["shifted"], "shift_out"),
        helper.make_node("Clip", ["shifted", "lowest", "highest"], ["clamped"], "clamp_out"),
        helper.make_node("Cast", ["clamped"], ["bytes"], "cast_out", to=TensorProto.UINT8),
        helper.make_node("Transpose", ["bytes"], ["images"], "images_out", perm=[0, 2, 3, 1]),
    ]


def _probe(data: bytes, z: _Port, class_input: _Port | None, output: _Port, bare: Signature) -> tuple[int, ...]:
    """Run the file as it came, at several batches and with the last class; returns the shape of one of our samples."""
    probes = []
    try:
        session = make_session(data)
        for batch in PROBED_BATCHES:
            feed: dict[str, NDArray[Any]] = {z.name: draw(bare, range(batch)).z.reshape(batch, -1, *z.dims[2:])}
            if class_input is not None:
                last_first = (bare.num_classes - 1 + np.arange(batch)) % bare.num_classes
                feed[class_input.name] = last_first.astype(helper.tensor_dtype_to_np_dtype(class_input.element))
            probes.append(session.run(None, feed)[0])
    except Unavailable:
        raise
    except Exception as error:  # ONNX Runtime raises a dozen classes of its own, with no common base
        raise NotServable(f"ONNX Runtime cannot run it: {error}") from error
    shapes = {samples.shape for samples in probes}
    if shapes != {(batch, *probes[0].shape[1:]) for batch in PROBED_BATCHES}:
        raise NotServable(f"the output's shape does not follow the batch: {sorted(shapes)}")
    if not all(np.isfinite(samples).all() for samples in probes):
        raise NotServable("its output is not finite")
    shape = tuple(int(extent) for extent in probes[0].shape[1:])
    if output.element == TensorProto.UINT8 or len(shape) == 1:
        return shape
    if min(samples.min() for samples in probes) >= 0:
        raise NotServable("its output is never below 0: images must be float32 in [-1, 1], or uint8")
    return (*shape[1:], shape[0])  # C, H, W -> H, W, C


def _port(value: onnx.ValueInfoProto) -> _Port:
    tensor = value.type.tensor_type
    dims = tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim)
    return _Port(value.name, tensor.elem_type, dims)


def _z_dim(z: _Port) -> int:
    return int(z.dims[1] or 0)
