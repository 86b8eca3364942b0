"""Looks into an ONNX graph before anything runs it. Knows nothing of generators or repositories."""

from collections.abc import Iterator
from typing import Any

import onnx

RANDOM_OPS = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"}
)
KNOWN_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})


def external_tensors(model: onnx.ModelProto) -> list[str]:
    """Names of all tensors whose data lies outside the file, wherever they hide: subgraphs, functions, attributes."""
    return [
        tensor.name or "(unnamed)"
        for tensor in _messages(model, onnx.TensorProto)
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data
    ]


def random_ops(model: onnx.ModelProto) -> list[str]:
    """Random operators in the graph; z is the only randomness that a servable generator may have."""
    found = {node.op_type for node in _messages(model, onnx.NodeProto) if node.op_type in RANDOM_OPS}
    return sorted(found)


def foreign_domains(model: onnx.ModelProto) -> list[str]:
    """Operator domains that neither ONNX nor ONNX Runtime defines and that the file does not define itself."""
    local = {function.domain for function in model.functions}
    return sorted({node.domain for node in _messages(model, onnx.NodeProto)} - KNOWN_DOMAINS - local)


def _messages(message: Any, wanted: type) -> Iterator[Any]:  # noqa: ANN401 protobuf messages have no common type
    """All protobuf messages of one type below a message, depth first."""
    if isinstance(message, wanted):
        yield message
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for child in value if field.is_repeated else (value,):
            yield from _messages(child, wanted)
