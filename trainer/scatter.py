"""A picture of vectors of two: how many samples fall where. Knows nothing of files."""

import numpy as np

from models.manifest import Signature
from trainer.networks_vector import MlpGenerator
from trainer.pixels import Images
from trainer.selection import sample

SEEDS = np.arange(4000)
EXTENT = 320  # pixels a side
REACH = 2.2  # standard deviations of the data that are shown, to each side of the mean


def scatter(G: MlpGenerator, signature: Signature) -> Images:  # [EXTENT, EXTENT, 1]
    """Samples of fixed z, dark on white: the first coordinate to the right, the second upwards."""
    points = (sample(G, signature, SEEDS) - G.mean.cpu().numpy()) / G.scale.cpu().numpy()
    counts, _, _ = np.histogram2d(points[:, 0], points[:, 1], bins=EXTENT, range=[[-REACH, REACH]] * 2)
    darkness = np.minimum(1.0, counts / 3.0)
    picture: Images = np.round(255 * (1 - darkness.T[::-1, :, None])).astype(np.uint8)
    return picture
