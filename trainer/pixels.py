"""Between stored samples and what networks see. Knows nothing of networks."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.splits import Samples

Images = NDArray[np.uint8]  # [N, H, W, C]


def to_tensor(samples: Samples | Tensor) -> Tensor:  # [N, H, W, C] uint8 -> [N, C, H, W] float32, channels last
    """What D sees of real images, in [-1, 1]; of vectors [N, d] float32, in standard units already, the same."""
    tensor = torch.as_tensor(samples)
    return tensor if tensor.dim() == 2 else tensor.permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)


def post_process(images: Tensor) -> Tensor:  # [N, C, H, W] in [-1, 1] -> [N, H, W, C] uint8
    """What is served: clamp((x + 1) * 127.5 + 0.5), clamped before the cast, which would wrap around."""
    levels = ((images + 1.0) * 127.5 + 0.5).clamp(0.0, 255.0)
    return levels.permute(0, 2, 3, 1).to(torch.uint8)


def to_uint8(images: Tensor) -> Images:
    """`post_process` as an array."""
    return np.ascontiguousarray(post_process(images).numpy())
