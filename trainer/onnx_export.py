"""Turns an averaged generator into the ONNX file that is served, and proves that it is the same. Knows no run.

Everything that serving would have to know is in the graph: BatchNorm folded into the weights, the post-processing to
uint8 NHWC or to the units of the vectors, a dynamic batch, and the signature in the metadata.
"""

import copy
from typing import Any

import msgspec
import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from models.errors import Refused
from models.generator import Generator as OnnxGenerator
from models.latents import draw
from models.manifest import Signature, stamp
from trainer.convnets import ConvGenerator
from trainer.graph_export import export_graph
from trainer.network_parts import Generator
from trainer.networks_vector import MlpGenerator

PARITY_BATCHES = (1, 2, 7, 32)
PARITY_SHARE = 0.999  # of the values, within one unit
PARITY_DEVIATIONS = 1e-4  # the unit of vectors, in standard deviations of each coordinate; that of images is a level


class Parity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """parity.json: how the ONNX file agrees with torch, at one batch size.

    Args:
        batch: samples in one call.
        identical: share of the values that are equal.
        within_one: share of the values that differ by at most one unit: a level of 255 of images, 1e-4 standard
            deviations of vectors.
        largest: the largest difference, in units.
    """

    batch: int
    identical: float
    within_one: float
    largest: float


class Servable(nn.Module):
    """z [N, z_dim] float32 (and class_idx [N] int64) -> images [N, H, W, C] uint8, or vectors [N, d] float32.

    BatchNorm is folded away.

    Args:
        G: in eval mode, with the statistics to fold.
    """

    def __init__(self, G: Generator) -> None:
        super().__init__()
        self.G = fold_norms(G)

    def forward(self, z: Tensor, class_idx: Tensor | None = None) -> Tensor:  # [N, z_dim], [N] -> [N, ...]
        """What serving runs."""
        return self.G.finish(self.G(z, class_idx))


@torch.no_grad()
def fold_norms(G: Generator) -> Generator:
    """A copy of G in eval mode that computes the same without any BatchNorm."""
    folded: Generator = copy.deepcopy(G).eval()
    if isinstance(folded, ConvGenerator):  # no other has any
        _fold(folded)
    return folded


def _fold(folded: ConvGenerator) -> None:
    """In place."""
    if isinstance(folded.norm, nn.BatchNorm2d):
        folded.linear = _fold_linear(folded.linear, folded.norm)
        folded.norm = nn.Identity()
    folded.hidden = _fold_block(list(folded.hidden.children()))
    for i, block in enumerate(folded.blocks):
        folded.blocks[i] = _fold_block(list(block.children()))


def _fold_block(layers: list[nn.Module]) -> nn.Sequential:
    """A block's layers with each BatchNorm folded into the layer before it."""
    kept: list[nn.Module] = []
    for layer in layers:
        before = kept[-1] if kept else None
        if isinstance(layer, nn.BatchNorm2d) and isinstance(before, nn.Conv2d | nn.ConvTranspose2d):
            kept[-1] = fuse_conv_bn_eval(before, layer, transpose=isinstance(before, nn.ConvTranspose2d))
        elif isinstance(layer, nn.BatchNorm1d) and isinstance(before, nn.Linear):
            kept[-1] = fuse_linear_bn_eval(before, layer)
        else:
            kept.append(layer)
    return nn.Sequential(*kept)


def _fold_linear(linear: nn.Linear, norm: nn.BatchNorm2d) -> nn.Linear:
    """The Linear before a [N, C, H, W] view whose channels the BatchNorm scales."""
    assert norm.running_mean is not None  # noqa: S101 - tells the type checker what BatchNorm2d promises
    assert norm.running_var is not None  # noqa: S101
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    shift = norm.bias - norm.running_mean * scale
    positions = linear.out_features // len(scale)
    folded = nn.Linear(linear.in_features, linear.out_features)
    folded.weight.copy_(linear.weight * scale.repeat_interleave(positions)[:, None])
    folded.bias.copy_(shift.repeat_interleave(positions))
    return folded


def to_onnx(servable: Servable, signature: Signature) -> bytes:
    """The servable network as a serialised, stamped ONNX model: the same network gives the same bytes."""
    inputs = {"z": torch.zeros(2, signature.z_dim)}  # a batch of 1 would be taken for a constant
    if signature.classes is not None:
        inputs["class_idx"] = torch.zeros(2, dtype=torch.int64)
    model = export_graph(servable, inputs, output_names=[signature.output_name], dynamic=(0,))
    stamp(model, signature)
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def parity(servable: Servable, data: bytes, signature: Signature) -> list[Parity]:
    """Compare torch with ONNX Runtime at several batch sizes.

    Raises:
        Refused: at some batch size fewer than 99.9 % of the values are within one unit.
    """
    generator = OnnxGenerator.from_bytes(data)
    proofs = [_parity_at(batch, servable, generator, signature) for batch in PARITY_BATCHES]
    for proof in proofs:
        if proof.within_one < PARITY_SHARE:
            raise Refused(
                f"ONNX Runtime differs from torch: {proof.within_one:.2%} of the values within one "
                f"{'level' if signature.kind == 'image' else '1e-4 standard deviations'} at batch "
                f"{proof.batch}, at least {PARITY_SHARE:.1%} needed"
            )
    return proofs


@torch.no_grad()
def _parity_at(batch: int, servable: Servable, generator: OnnxGenerator, signature: Signature) -> Parity:
    drawn = draw(signature, np.arange(batch) + 1000 * batch)
    inputs = [torch.from_numpy(array) for array in drawn if array is not None]
    wanted: Any = servable(*inputs).numpy().astype(np.float64)
    unit = PARITY_DEVIATIONS * servable.G.scale.numpy() if isinstance(servable.G, MlpGenerator) else 1.0
    difference = np.abs(generator.generate(*drawn).astype(np.float64) - wanted) / unit
    return Parity(
        batch=batch,
        identical=float(np.mean(difference == 0)),
        within_one=float(np.mean(difference <= 1)),
        largest=float(difference.max()),
    )
