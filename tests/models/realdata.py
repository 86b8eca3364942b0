"""A small data set for tests of judging: grey 8 x 8 images of two classes, and a generator that makes the same."""

from pathlib import Path

import numpy as np

from models.generator import Generator
from models.latents import draw
from models.testkit import tiny_model

NUM_SAMPLES = 3000


def write_blobs(path: Path, *, seed: int = 0, count: int = NUM_SAMPLES) -> Path:
    """An .npz of images drawn as the test kit's tiny generator draws them, with two labels."""
    generator = Generator.from_bytes(tiny_model())
    images = generator.generate(*draw(generator.signature, range(seed, seed + count)))
    labels = (images.reshape(count, -1).mean(1) > 128).astype(np.int64)
    np.savez(path, images=images, labels=labels, class_names=np.array(["dark", "light"]))
    return path
