"""Rewrites an ONNX generator into one that computes the same samples faster on a CPU. Knows nothing of sessions.

ONNX Runtime's CPU provider runs a ConvTranspose image by image, and a Resize makes the convolution after it do four
times the work that its input holds. Here both, and the layers around them, become matrix products over the whole
batch on maps laid out as rows of channels. Layers that are not understood stay as they are, between changes of layout.
What is computed is the same function; what changes is the order of rounding in float32.
"""

import onnx

from models.lowering_rules import rewritten
from models.lowering_walk import Form, Walk

REVISION = 1  # raised whenever the arithmetic of a lowered graph changes: it is part of a sample's address
MIN_OPSET = 13


def lower(model: onnx.ModelProto, *, form: Form = "fastest") -> onnx.ModelProto:
    """The same generator as matrix products.

    Args:
        model: a generator; only layers whose extents (besides the batch) are fixed are rewritten. It is not changed.
        form: "fastest" is what measures best on ONNX Runtime's CPU provider in float32; "windows" uses one Gather and
            one Gemm for each layer, which quantises well and which other runtimes run fast too.

    Returns:
        A new model with the same inputs, outputs and metadata, or `model` itself where there is nothing to gain.
    """
    if not _understood(model):
        return model
    walk = Walk(model, form)
    for node in model.graph.node:
        if node.output[0] not in walk.absorbed:
            walk.take(node, rewritten(walk, node))
    return walk.finish(model) if walk.gained else model


def _understood(model: onnx.ModelProto) -> bool:
    """Whether the graph's nodes are all there is to it, and of an age whose operators we know."""
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    nested = any(entry.HasField("g") or entry.graphs for node in model.graph.node for entry in node.attribute)
    return opset >= MIN_OPSET and not nested and not model.functions and not model.graph.sparse_initializer
