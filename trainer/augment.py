"""DiffAugment: the same random changes for real and generated images, with gradients through them (Zhao et al. 2020).

For small data: D sees no image unchanged, so it cannot learn the few there are by heart, and G is not taught to make
changed images, since its gradient comes through the change. Knows nothing of networks.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from trainer.streams import Stream

TRANSLATION = 1 / 8  # of a side, at most
CUTOUT = 1 / 2  # of a side: the square that is cut out


def augment(images: Tensor, policy: str, stream: Stream) -> Tensor:  # [N, C, H, W] -> the same
    """Change each image in its own random way, in float32.

    Args:
        images: in [-1, 1].
        policy: names of changes joined by commas, in the order in which they are made; "none" for none.
        stream: of the random numbers.
    """
    if policy == "none":
        return images
    images = images.float()
    with torch.autocast(images.device.type, enabled=False):  # pixels are moved, not rounded
        for name in policy.split(","):
            images = CHANGES[name](images, stream)
    return images


def _colour(x: Tensor, stream: Stream) -> Tensor:
    """Brightness +-0.5, saturation 0 .. 2 and contrast 0.5 .. 1.5 (the code that the paper publishes)."""
    brightness, saturation, contrast = stream.rand(3, len(x), 1, 1, 1, axis=1)
    x = x + (brightness - 0.5)
    grey = x.mean(dim=1, keepdim=True)
    x = (x - grey) * (saturation * 2) + grey
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    contrasted: Tensor = (x - mean) * (contrast + 0.5) + mean
    return contrasted


def _translation(x: Tensor, stream: Stream) -> Tensor:
    """Whole pixels, up to an eighth of a side each way; zeros come in."""
    _, _, height, width = x.shape
    down, right = (_shifts(extent, len(x), stream) for extent in (height, width))
    return torch.einsum("nij,ncjk,nlk->ncil", down, x, right)


def _shifts(extent: int, count: int, stream: Stream) -> Tensor:  # [count, extent, extent]
    """One 0/1 matrix for each image: row i is the pixel that comes to i."""
    reach = int(extent * TRANSLATION + 0.5)
    shift = stream.randint(-reach, reach + 1, count, 1, 1)
    index = torch.arange(extent, device=shift.device)
    return (index[None, :, None] - shift == index[None, None, :]).float()


def _cutout(x: Tensor, stream: Stream) -> Tensor:
    """A square of half a side, centred anywhere, becomes zero."""
    _, _, height, width = x.shape
    rows, columns = (_covered(extent, len(x), stream) for extent in (height, width))
    return x * ~(rows[:, None, :, None] & columns[:, None, None, :])


def _covered(extent: int, count: int, stream: Stream) -> Tensor:  # [count, extent] bool
    side = int(extent * CUTOUT + 0.5)
    centre = stream.randint(0, extent + (1 - side % 2), count, 1)
    distance = torch.arange(extent, device=centre.device) - (centre - side // 2)
    return (distance >= 0) & (distance < side)


CHANGES: dict[str, Callable[[Tensor, Stream], Tensor]] = {
    "colour": _colour,
    "translation": _translation,
    "cutout": _cutout,
}
