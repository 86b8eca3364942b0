"""Trains a small classifier whose features judge generators, and turns it into an ONNX extractor.

It tells the classes of labelled images, or by how much an image is turned (Gidaris et al. 2018), which needs no labels.
Knows nothing of generators, and never opens the gate split: the classifier learns from the training split and its
accuracy is measured on the validation split.
"""

import itertools
import math
import sys
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (the name that torch's own documentation gives it)
from torch.nn.utils.fusion import fuse_conv_bn_eval

from models.datasets import Dataset, Split
from models.errors import DataError, Invalid
from models.extractor_manifest import ExtractorManifest, Task
from trainer.graph_export import export_graph
from trainer.precision import suited
from trainer.turning import TURNS, all_turns, turned

FEATURES = 128
BATCH_SIZE = 256
LEARNING_RATE = 3e-3
WEIGHT_DECAY = 0.05
LABEL_SMOOTHING = 0.05
MAX_SHIFT = 2  # pixels
MIN_EXTENT = 8  # pixels, to tell turned images


class Block(nn.Module):
    """3x3 convolution, BatchNorm, ReLU: [N, C_in, H, W] -> [N, C_out, H / stride, W / stride]."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Applies the block."""
        return F.relu(self.norm(self.conv(x)))

    def folded(self) -> "Block":
        """Puts the BatchNorm into the convolution's weights, for evaluation only; changes this block."""
        assert isinstance(self.norm, nn.BatchNorm2d)  # noqa: S101 (narrows the type)
        self.conv, self.norm = fuse_conv_bn_eval(self.conv, self.norm), nn.Identity()
        return self


class FeatureNet(nn.Module):
    """The classifier: uint8 images [N, H, W, C] -> features [N, 128] float32 and logits [N, K] float32.

    Normalisation lies inside; a global mean over positions accepts any height and width.
    """

    def __init__(self, shape: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        height, width, channels = shape
        stages = max(2, round(math.log2(min(height, width) / 7)))  # 28 and 32 pixels: 2; 64: 3
        widths = [32, *(min(FEATURES, 64 << i) for i in range(stages - 1)), FEATURES]
        blocks = [Block(channels, widths[0])]
        for inputs, outputs in itertools.pairwise(widths):
            blocks += [Block(inputs, outputs, stride=2), Block(outputs, outputs)]
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(FEATURES, num_classes)
        self.architecture = "conv3x3-bn-relu " + "-".join(map(str, widths)) + ", global mean, linear"

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Computes features and logits."""
        x = images.permute(0, 3, 1, 2).float() / 127.5 - 1
        features = self.blocks(x).float().mean((2, 3))
        return features, self.head(features)

    def fold(self) -> "FeatureNet":
        """Goes to evaluation and puts every BatchNorm into its convolution."""
        self.eval()
        for block in self.blocks:
            assert isinstance(block, Block)  # noqa: S101 (narrows the type)
            block.folded()
        return self


class Trained(NamedTuple):
    """A trained classifier and the share of the validation split that it names rightly."""

    network: FeatureNet
    accuracy: float


def shift(images: NDArray[np.uint8], random: np.random.RandomState) -> NDArray[np.uint8]:
    """Moves each image [N, H, W, C] by up to MAX_SHIFT pixels each way; what enters repeats the border."""
    n, height, width, _ = images.shape
    padded = np.pad(images, ((0, 0), (MAX_SHIFT, MAX_SHIFT), (MAX_SHIFT, MAX_SHIFT), (0, 0)), mode="edge")
    top, left = random.randint(0, 2 * MAX_SHIFT + 1, (2, n, 1))
    rows, columns = top + np.arange(height), left + np.arange(width)
    shifted: NDArray[np.uint8] = padded[np.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return shifted


def batches(split: Split, task: Task, random: np.random.RandomState) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields one epoch of shifted images uint8 [B, H, W, C] and answers int64 [B], without a ragged tail."""
    order = random.permutation(len(split.samples))
    for start in range(0, max(len(order) - BATCH_SIZE, 0) + 1, BATCH_SIZE):
        chosen = order[start : start + BATCH_SIZE]
        images = shift(split.samples[chosen].astype(np.uint8, copy=False), random)
        if task == "rotation":
            images, answers = turned(images, random)
        else:
            answers = _labels(split)[chosen]
        yield torch.from_numpy(images), torch.from_numpy(answers)


def fit(train: Split, validation: Split, num_classes: int, *, task: Task, epochs: int, seed: int) -> Trained:
    """Trains a classifier on `train` and measures it on `validation`; prints a line for each epoch to stderr.

    In bf16 where the processor multiplies in it, so that another processor may give other weights of the same quality.
    """
    torch.manual_seed(seed)
    random = np.random.RandomState(seed)
    network = FeatureNet(train.samples.shape[1:], num_classes).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    rounded = suited("cpu") == "bf16"
    steps = epochs * max(1, len(train.samples) // BATCH_SIZE)
    optimiser = torch.optim.AdamW(network.parameters(), weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=steps, pct_start=0.2)
    for epoch in range(epochs):
        network.train()
        loss = torch.zeros(())
        for images, answers in batches(train, task, random):
            with torch.autocast("cpu", torch.bfloat16, enabled=rounded):
                _, logits = network(images)
            loss = F.cross_entropy(logits.float(), answers, label_smoothing=LABEL_SMOOTHING)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
        print(f"epoch {epoch + 1}/{epochs}: loss {loss.item():.3f}", file=sys.stderr, flush=True)
    network.fold()
    return Trained(network, accuracy(network, validation, task))


@torch.inference_mode()
def accuracy(network: FeatureNet, split: Split, task: Task) -> float:
    """Returns the share of `split` (of its images in all four turns) that the network tells rightly, in 0..1."""
    network.eval()
    right = total = 0
    for start in range(0, len(split.samples), 1000):
        images = split.samples[start : start + 1000].astype(np.uint8, copy=False)
        answers = _labels(split)[start : start + 1000] if task == "classes" else None
        if answers is None:
            images, answers = all_turns(images)
        _, logits = network(torch.from_numpy(images))
        right += int((logits.argmax(1).numpy() == answers).sum())
        total += len(answers)
    return right / total


class FeaturesAlone(nn.Module):
    """A network without its logits: what they stand for is no class of the data."""

    def __init__(self, network: FeatureNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """uint8 images [N, H, W, C] -> features [N, 128] float32."""
        features: Tensor = self.network(images)[0]
        return features


def export(network: FeatureNet, shape: tuple[int, ...], task: Task = "classes") -> onnx.ModelProto:
    """Turns a folded network into an ONNX graph; N, H, W vary.

    Returns:
        `images` uint8 [N, H, W, C] -> `features` and, of a classifier of the data's classes, `logits`.
    """
    example = {"images": torch.zeros((2, *shape), dtype=torch.uint8)}
    if task == "rotation":
        return export_graph(FeaturesAlone(network), example, output_names=["features"], dynamic=(0, 1, 2))
    return export_graph(network, example, output_names=["features", "logits"], dynamic=(0, 1, 2))


def train_extractor(
    dataset: Dataset, name: str, *, task: Task | None = None, epochs: int = 8, seed: int = 0
) -> tuple[onnx.ModelProto, ExtractorManifest]:
    """Trains an extractor on a data set.

    Args:
        dataset: of images.
        name: of the extractor.
        task: None tells classes where there are labels, and turns where there are none.
        epochs: passes over the training split.
        seed: of weights, order, shifts and turns.

    Returns:
        The graph, and what it says of itself, its accuracy on the validation split included.

    Raises:
        DataError: the data are vectors, have no labels for classes, or are too small to be told turned.
        Invalid: no epochs.
    """
    task = task or default_task(dataset)
    num_classes = _check(dataset, task, epochs)
    train, validation = dataset.split("train"), dataset.split("validation")
    trained = fit(train, validation, num_classes, task=task, epochs=epochs, seed=seed)
    manifest = ExtractorManifest(
        name=name,
        dim=FEATURES,
        shape=(None, None, dataset.shape[2]),
        classes=dataset.class_names if task == "classes" else None,
        data=dataset.name,
        data_hash=dataset.content_hash,
        task=task,
        accuracy=round(trained.accuracy, 4),
        architecture=trained.network.architecture,
        seed=seed,
    )
    return export(trained.network, dataset.shape, task), manifest


def default_task(dataset: Dataset) -> Task:
    """Classes where there are labels, turns where there are none."""
    return "rotation" if dataset.labels is None else "classes"


def _check(dataset: Dataset, task: Task, epochs: int) -> int:
    """The number of answers; refuses what cannot be learnt."""
    if epochs < 1:
        raise Invalid(f"must be at least 1, got {epochs}", field="epochs")
    if dataset.kind != "image":
        raise DataError(f"{dataset.name} holds vectors; an extractor is trained on images", field="data")
    if task == "rotation":
        if min(dataset.shape[:2]) < MIN_EXTENT:
            raise DataError(f"{dataset.name}: to tell turns, images need {MIN_EXTENT} pixels a side", field="data")
        return TURNS
    if dataset.class_names is None:
        raise DataError(f"{dataset.name} has no labels: --task rotation needs none", field="data")
    return len(dataset.class_names)


def _labels(split: Split) -> NDArray[np.int64]:
    """Returns the split's labels [N]; the data set is known to have them."""
    assert split.labels is not None  # noqa: S101 (checked by _check)
    return split.labels
