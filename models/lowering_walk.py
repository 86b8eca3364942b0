"""One pass over an ONNX graph that keeps maps as rows of channels for as long as it can. Knows no layer's rule."""

from collections import defaultdict
from typing import Literal

import onnx

from models import lowering_layers as layers
from models.lowering_rows import Rows, Sheet

Form = Literal["fastest", "windows"]


class Walk:
    """What is known at a point of the graph: a value is a map as rows where a rule made it one, else a plain tensor.

    Attributes:
        form: which forms of a layer are wanted.
        constants: by name.
        sheet: the new nodes.
        absorbed: outputs of nodes that went into the layer before them.
        gained: whether any layer was rewritten.
    """

    def __init__(self, model: onnx.ModelProto, form: Form) -> None:
        graph = model.graph
        self.form = form
        self.constants = layers.constants(graph)
        self.absorbed: set[str] = set()
        self.gained = False
        self._extents = layers.extents(model)
        self._outputs = [port.name for port in graph.output]
        self._consumers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in graph.node:
            for name in node.input:
                self._consumers[name].append(node)
        self._maps: dict[str, Rows] = {}
        self._settled: set[str] = set()
        taken = {name for node in graph.node for name in (*node.input, *node.output, node.name)}
        self.sheet = Sheet(taken | {tensor.name for tensor in graph.initializer})

    def take(self, node: onnx.NodeProto, rows: Rows | None) -> None:
        """Go past a node: it became a map, or it is kept as it is."""
        if rows is not None:
            self._maps[node.output[0]] = rows
            return
        for name in node.input:
            self.settle(name)
        self.sheet.nodes.append(node)

    def known(self, name: str) -> Rows | None:
        """The map of this name, where it is one already."""
        return self._maps.get(name)

    def rows(self, name: str) -> Rows | None:
        """The map of this name; a plain tensor [B, C, H, W] of fixed extents becomes one."""
        if name not in self._maps:
            _, *shape = self.extents(name) or (None,)
            if name in self.constants or len(shape) != 3 or not all(shape):
                return None
            self._maps[name] = self.sheet.rows_of(name, [extent or 0 for extent in shape])
            self._settled.add(name)
        return self._maps[name]

    def extents(self, name: str) -> tuple[int | None, ...]:
        """Shape of a value, None where an extent is free; () where nothing is known."""
        if name in self._maps:
            return (None, *self._maps[name].shape)
        return self._extents.get(name, ())

    def sole_consumer(self, name: str) -> onnx.NodeProto | None:
        """The one node that reads a value (its shape aside), if it is the only one and the value is no output."""
        readers = [node for node in self._consumers[name] if node.op_type != "Shape"]
        return readers[0] if len(readers) == 1 and name not in self._outputs else None

    def absorb(self, node: onnx.NodeProto, rows: Rows) -> None:
        """Take a later node as part of the layer that made `rows`."""
        self.absorbed.add(node.output[0])
        self._maps[node.output[0]] = rows

    def settle(self, name: str) -> None:
        """See that the new graph holds a value under its own name."""
        if name in self._maps and name not in self._settled:
            self._settled.add(name)
            self.sheet.settle(self._maps[name], name)

    def finish(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """The new model; nodes and constants that nothing reads any more are left out."""
        for name in self._outputs:
            self.settle(name)
        result = onnx.ModelProto(
            ir_version=model.ir_version, opset_import=model.opset_import, metadata_props=model.metadata_props,
            producer_name=model.producer_name, producer_version=model.producer_version, doc_string=model.doc_string,
        )  # fmt: skip
        graph, ports = result.graph, model.graph
        graph.name = ports.name
        graph.input.extend(ports.input)
        graph.output.extend(ports.output)
        graph.node.extend(_read(self.sheet.nodes, self._outputs))
        used = {name for node in graph.node for name in node.input} | {
            port.name for port in (*ports.input, *ports.output)
        }
        graph.initializer.extend(tensor for tensor in model.graph.initializer if tensor.name in used)
        while self.sheet.tensors:  # one by one, so that few weights are held twice
            graph.initializer.append(self.sheet.tensors.pop())
        return result


def _read(nodes: list[onnx.NodeProto], outputs: list[str]) -> list[onnx.NodeProto]:
    """The nodes that an output needs; shapes computed for what is now known are not."""
    wanted, kept = set(outputs), []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            kept.append(node)
    return kept[::-1]
