"""Convolutions whose slope is cheap to differentiate again, for penalties on D's slope. Knows nothing of networks.

torch differentiates a convolution's backward by convolving with kernels as large as the feature map, one channel an
image, which processors are slow at. Here each half of the backward is a function of its own, whose gradients are
ordinary convolutions again (as conv2d_gradfix of Karras et al. 2021 does for GPUs). The values are the same up to
rounding.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn.functional import conv2d

Context = Any  # torch.autograd.function.FunctionCtx, whose fields torch does not type


class Geometry(NamedTuple):
    """How a kernel moves: stride, zero padding, groups."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    groups: int


class Conv2d(nn.Conv2d):
    """nn.Conv2d with zero padding and no dilation, the same in every way but the cost of a second backward."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Leaves to torch what nobody differentiates twice: rounded to bf16, or without a slope by the input."""
        if not (torch.is_grad_enabled() and x.requires_grad) or torch.is_autocast_enabled(x.device.type):
            plain: Tensor = super()._conv_forward(x, weight, bias)
            return plain
        assert isinstance(self.padding, tuple)  # noqa: S101 - never "same" here
        geometry = Geometry(self.stride, self.padding, self.groups)
        made: Tensor = _Convolution.apply(x, weight, geometry)  # type: ignore[no-untyped-call]
        return made if bias is None else made + bias[:, None, None]


class _Convolution(Function):
    """x [N, C, H, W], w [D, C / groups, k, k] -> [N, D, H', W']."""

    @staticmethod
    def forward(ctx: Context, x: Tensor, w: Tensor, geometry: Geometry) -> Tensor:
        ctx.save_for_backward(x, w)
        ctx.geometry = geometry
        return _convolve(x, w, geometry)

    @staticmethod
    def backward(ctx: Context, *slopes: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, w = ctx.saved_tensors
        by_x, by_w, _ = ctx.needs_input_grad
        return (
            _ByInput.apply(slopes[0], w, x.detach(), ctx.geometry) if by_x else None,  # type: ignore[no-untyped-call]
            _by_weight(slopes[0], x, w, ctx.geometry) if by_w else None,
            None,
        )


class _ByInput(Function):
    """The slope by x, from the slope [N, D, H', W'] by the result, linear in it and in w; x gives its shape alone."""

    @staticmethod
    def forward(ctx: Context, slope: Tensor, w: Tensor, x: Tensor, geometry: Geometry) -> Tensor:
        ctx.save_for_backward(slope, w)
        ctx.geometry = geometry
        return _backward(slope, x, w, geometry, (True, False))[0]

    @staticmethod
    def backward(ctx: Context, *slopes: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        slope, w = ctx.saved_tensors
        by_slope, by_w, *_ = ctx.needs_input_grad
        return (
            _convolve(slopes[0], w, ctx.geometry) if by_slope else None,
            _by_weight(slope, slopes[0], w, ctx.geometry) if by_w else None,
            None,
            None,
        )


def _convolve(x: Tensor, w: Tensor, geometry: Geometry) -> Tensor:
    return conv2d(x, w, None, geometry.stride, geometry.padding, 1, geometry.groups)


def _by_weight(slope: Tensor, x: Tensor, w: Tensor, geometry: Geometry) -> Tensor:
    """The slope by w, which gives no more than a shape."""
    return _backward(slope, x, w, geometry, (False, True))[1]


def _backward(
    slope: Tensor, x: Tensor, w: Tensor, geometry: Geometry, wanted: tuple[bool, bool]
) -> tuple[Tensor, Tensor]:
    stride, padding, groups = geometry
    by_x, by_w, _ = torch.ops.aten.convolution_backward(
        slope, x, w, None, stride, padding, [1, 1], False, [0, 0], groups, [*wanted, False]
    )
    return by_x, by_w
