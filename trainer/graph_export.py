"""Turns a torch module into an ONNX graph that holds nothing of this machine. Knows no generators or extractors."""

import logging
import warnings
from collections.abc import Mapping
from typing import Any

import onnx
import torch
from torch import Tensor, nn

OPSET = 18


def export_graph(
    module: nn.Module, inputs: Mapping[str, Tensor], *, output_names: list[str], dynamic: tuple[int, ...]
) -> onnx.ModelProto:
    """A module as an ONNX graph with its weights inside: the same module gives the same bytes.

    Args:
        module: is put in eval mode.
        inputs: an example of each, by the name it shall have, in order; along dynamic axes at least 2, since 1 would be
            taken for a constant.
        output_names: of the outputs, in order.
        dynamic: the inputs' axes that may have any extent.
    """
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns about torchvision, which nothing here uses
    axes = dict.fromkeys(dynamic, torch.export.Dim.DYNAMIC)
    examples = tuple(inputs.values())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside torch's exporter
        program: Any = torch.onnx.export(
            module.eval(), examples, input_names=list(inputs), output_names=output_names, opset_version=OPSET,
            dynamic_shapes=(axes,) * len(examples), external_data=False, dynamo=True, verbose=False,
        )  # fmt: skip
    return _cleaned(program.model_proto)


def _cleaned(model: onnx.ModelProto) -> onnx.ModelProto:
    """Without the exporter's notes: they hold paths of this machine and make equal networks differ in their digest."""
    for message in [*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.initializer, model.graph]:
        if hasattr(message, "metadata_props"):
            del message.metadata_props[:]
        message.doc_string = ""
    for value in model.graph.value_info:
        del value.metadata_props[:]
    del model.metadata_props[:]
    return model
