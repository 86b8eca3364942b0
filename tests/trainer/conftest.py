"""A data set and a configuration small enough to train in a second."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from trainer.arguments import add_export_arguments, add_train_arguments
from trainer.config import Config

SHAPE = (8, 8, 1)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def blobs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An .npz of 160 bright squares at random places in 8 x 8 images."""
    random = np.random.RandomState(0)
    images = random.randint(0, 30, (160, *SHAPE), dtype=np.uint8)
    for image, (y, x) in zip(images, random.randint(0, 5, (160, 2)), strict=True):
        image[y : y + 4, x : x + 4] += 200
    path = tmp_path_factory.mktemp("data") / "blobs.npz"
    np.savez(path, images=images)
    return path


@pytest.fixture
def tiny(blobs: Path) -> Config:
    """The default bf16 configuration, on the blobs, in miniature."""
    return Config(
        data=str(blobs), z_dim=4, g_channels=4, d_channels=4, d_hidden=8, batch_size=16, kimg=0.64, seed=3, threads=1,
        snapshot_kimg=0.32,
    )  # fmt: skip


@pytest.fixture
def parse() -> Any:
    """Command lines of `train` and `export` as the console script parses them."""

    def parsed(command: str, *words: object) -> argparse.Namespace:
        parser = argparse.ArgumentParser()
        {"train": add_train_arguments, "export": add_export_arguments}[command](parser)
        return parser.parse_args([str(word) for word in words])

    return parsed
