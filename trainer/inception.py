"""The InceptionV3 of 2015 that FID is defined by, as a torch module with the published weights' keys. Knows no files.

It is TensorFlow's network, not torchvision's: images are resized as TensorFlow 1 did, padding does not count in mean
pools, the last block pools by maxima, and there are 1008 classes (Szegedy et al. 2015; Heusel et al. 2017).
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (the name that torch's own documentation gives it)
from torch.nn.utils.fusion import fuse_conv_bn_eval

from models.errors import DataError

FEATURES, CLASSES = 2048, 1008
EXTENT = 299  # pixels that every image is resized to
EPSILON = 0.001  # of the BatchNorms


class Layer(NamedTuple):
    """One convolution: its key, output channels, kernel; a strided one has no padding, another keeps its extent."""

    name: str
    outputs: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1


class Branch(NamedTuple):
    """Of a block: a pooling, layers one after another, then layers side by side whose outputs are joined."""

    layers: tuple[Layer, ...] = ()
    pool: Literal["none", "mean", "maximum", "halve"] = "none"
    fork: tuple[Layer, ...] = ()


class Convolution(nn.Module):
    """Convolution, BatchNorm, ReLU: [N, C_in, H, W] -> [N, C_out, H', W']."""

    def __init__(self, inputs: int, layer: Layer, padding: tuple[int, int]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, layer.outputs, layer.kernel, layer.stride, padding, bias=False)
        self.bn: nn.Module = nn.BatchNorm2d(layer.outputs, eps=EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        """Applies the layer."""
        return F.relu(self.bn(self.conv(x)))

    def fold(self) -> None:
        """Puts the BatchNorm into the convolution's weights."""
        assert isinstance(self.bn, nn.BatchNorm2d)  # noqa: S101 (narrows the type)
        self.conv, self.bn = fuse_conv_bn_eval(self.conv, self.bn), nn.Identity()


class Block(nn.Module):
    """Branches over one input, joined along the channels."""

    def __init__(self, inputs: int, branches: tuple[Branch, ...]) -> None:
        super().__init__()
        self.branches = branches
        self.outputs = 0
        for branch in branches:
            width = inputs
            for layer in branch.layers:
                width = self._add(width, layer)
            self.outputs += sum(self._add(width, layer) for layer in branch.fork) or width

    def _add(self, inputs: int, layer: Layer) -> int:
        rows, columns = layer.kernel
        padding = (rows // 2, columns // 2) if layer.stride == 1 else (0, 0)
        self.add_module(layer.name, Convolution(inputs, layer, padding))
        return layer.outputs

    def forward(self, x: Tensor) -> Tensor:
        """[N, C_in, H, W] -> [N, outputs, H', W']."""
        joined = []
        for branch in self.branches:
            y = _pooled(x, branch.pool)
            for layer in branch.layers:
                y = self.get_submodule(layer.name)(y)
            joined += [self.get_submodule(layer.name)(y) for layer in branch.fork] or [y]
        return torch.cat(joined, 1)


class Inception(nn.Module):
    """uint8 images [N, H, W, 1 or 3] of any size -> features [N, 2048] and logits [N, 1008], float32.

    The logits have no bias, as the Inception score was defined with (Salimans et al. 2016).
    """

    def __init__(self) -> None:
        super().__init__()
        width = 3
        for layer in (*STEM_BEFORE, *STEM_AFTER):
            self.add_module(layer.name, Convolution(width, layer, (1, 1) if layer.name == PADDED else (0, 0)))
            width = layer.outputs
        for name, branches in BLOCKS.items():
            block = Block(width, branches)
            self.add_module(name, block)
            width = block.outputs
        self.fc = nn.Linear(FEATURES, CLASSES)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Computes features and logits."""
        x = resized(images.permute(0, 3, 1, 2).float())
        x = x.index_select(1, torch.clamp(torch.arange(3), max=images.shape[3] - 1))  # grey thrice, colours as they are
        x = (x - 128) / 128
        for stem in (STEM_BEFORE, STEM_AFTER):
            for layer in stem:
                x = self.get_submodule(layer.name)(x)
            x = F.max_pool2d(x, 3, 2)
        for name in BLOCKS:
            x = self.get_submodule(name)(x)
        features = x.mean((2, 3))
        return features, features @ self.fc.weight.T

    def fold(self) -> "Inception":
        """Goes to evaluation and puts every BatchNorm into its convolution."""
        self.eval()
        for module in list(self.modules()):
            if isinstance(module, Convolution):
                module.fold()
        return self


def load_inception(weights: Mapping[str, Tensor]) -> Inception:
    """The network with published weights, in evaluation.

    Raises:
        DataError: keys or shapes are not those of the published file.
    """
    network = Inception()
    try:
        network.load_state_dict(dict(weights))  # counts of batches, which the file lacks, may be missing
    except (RuntimeError, AttributeError, TypeError) as error:
        raise DataError(f"these are not the weights of the 2015 Inception network: {error}", field="weights") from error
    return network.eval()


def resized(x: Tensor) -> Tensor:
    """[N, C, H, W] -> [N, C, 299, 299] as TensorFlow 1 does without align_corners: position i looks at i * H / 299.

    Its ResizeBilinear neither centres pixels nor smooths before it makes images smaller.
    """
    top, bottom, down = _positions(x.shape[2])
    left, right, across = _positions(x.shape[3])
    before, after = x.index_select(2, top), x.index_select(2, bottom)
    upper, lower = (_between(row.index_select(3, left), row.index_select(3, right), across) for row in (before, after))
    return _between(upper, lower, down[:, None])


def _between(a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    return a + (b - a) * share


def _positions(extent: int) -> tuple[Tensor, Tensor, Tensor]:  # [299] each
    """The pixel before each output position, the one after it, and how far between them it lies."""
    position = torch.arange(EXTENT, dtype=torch.float32) * (extent / EXTENT)
    before = position.long()
    return before, torch.clamp(before + 1, max=extent - 1), position - before.float()


def _pooled(x: Tensor, pool: str) -> Tensor:
    if pool == "mean":
        return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
    if pool == "maximum":
        return F.max_pool2d(x, 3, 1, 1)
    return F.max_pool2d(x, 3, 2) if pool == "halve" else x


# The layers, by their names in TensorFlow's graph and their keys in the published file.

STEM_BEFORE = (  # the first pool
    Layer("Conv2d_1a_3x3", 32, (3, 3), 2),
    Layer("Conv2d_2a_3x3", 32, (3, 3)),
    Layer("Conv2d_2b_3x3", 64, (3, 3)),
)
STEM_AFTER = (Layer("Conv2d_3b_1x1", 80), Layer("Conv2d_4a_3x3", 192, (3, 3)))
PADDED = "Conv2d_2b_3x3"  # alone of the stem keeps its extent


def _five(pooled: int) -> tuple[Branch, ...]:
    return (
        Branch((Layer("branch1x1", 64),)),
        Branch((Layer("branch5x5_1", 48), Layer("branch5x5_2", 64, (5, 5)))),
        Branch(
            (
                Layer("branch3x3dbl_1", 64),
                Layer("branch3x3dbl_2", 96, (3, 3)),
                Layer("branch3x3dbl_3", 96, (3, 3)),
            )
        ),
        Branch((Layer("branch_pool", pooled),), pool="mean"),
    )


def _seven(width: int) -> tuple[Branch, ...]:
    wide, tall = (1, 7), (7, 1)
    return (
        Branch((Layer("branch1x1", 192),)),
        Branch(
            (
                Layer("branch7x7_1", width),
                Layer("branch7x7_2", width, wide),
                Layer("branch7x7_3", 192, tall),
            )
        ),
        Branch(
            (
                Layer("branch7x7dbl_1", width),
                Layer("branch7x7dbl_2", width, tall),
                Layer("branch7x7dbl_3", width, wide),
                Layer("branch7x7dbl_4", width, tall),
                Layer("branch7x7dbl_5", 192, wide),
            )
        ),
        Branch((Layer("branch_pool", 192),), pool="mean"),
    )


def _last(pool: Literal["mean", "maximum"]) -> tuple[Branch, ...]:
    return (
        Branch((Layer("branch1x1", 320),)),
        Branch(
            (Layer("branch3x3_1", 384),),
            fork=(Layer("branch3x3_2a", 384, (1, 3)), Layer("branch3x3_2b", 384, (3, 1))),
        ),
        Branch(
            (Layer("branch3x3dbl_1", 448), Layer("branch3x3dbl_2", 384, (3, 3))),
            fork=(Layer("branch3x3dbl_3a", 384, (1, 3)), Layer("branch3x3dbl_3b", 384, (3, 1))),
        ),
        Branch((Layer("branch_pool", 192),), pool=pool),
    )


BLOCKS: Mapping[str, tuple[Branch, ...]] = {
    "Mixed_5b": _five(32),
    "Mixed_5c": _five(64),
    "Mixed_5d": _five(64),
    "Mixed_6a": (
        Branch((Layer("branch3x3", 384, (3, 3), 2),)),
        Branch(
            (
                Layer("branch3x3dbl_1", 64),
                Layer("branch3x3dbl_2", 96, (3, 3)),
                Layer("branch3x3dbl_3", 96, (3, 3), 2),
            )
        ),
        Branch(pool="halve"),
    ),
    "Mixed_6b": _seven(128),
    "Mixed_6c": _seven(160),
    "Mixed_6d": _seven(160),
    "Mixed_6e": _seven(192),
    "Mixed_7a": (
        Branch((Layer("branch3x3_1", 192), Layer("branch3x3_2", 320, (3, 3), 2))),
        Branch(
            (
                Layer("branch7x7x3_1", 192),
                Layer("branch7x7x3_2", 192, (1, 7)),
                Layer("branch7x7x3_3", 192, (7, 1)),
                Layer("branch7x7x3_4", 192, (3, 3), 2),
            )
        ),
        Branch(pool="halve"),
    ),
    "Mixed_7b": _last("mean"),
    "Mixed_7c": _last("maximum"),
}
