"""Generators with one known fault each, at three strengths, as the samples that they make. Knows no gate.

Most are made of real images that the gate never compares with, so that all but the fault is real; the others are a
sound generator with a fault in it. Beside each stand the gates that are meant for it.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from scipy.ndimage import gaussian_filter

from models.flips import mirrored
from models.generator import Generator
from models.latents import draw

Images = NDArray[np.uint8]  # [N, H, W, C]
Labels = NDArray[np.int64]  # [N]
Latents = NDArray[np.float32]  # [N, z_dim]
Weights = NDArray[np.float32]
Strengths = dict[str, float]

RARE = 3  # the class that is missing or rare
NOISE = 4  # levels, of noisy copies
FIRST_SEED = 2_000_000
SHARES: Strengths = {"20 %": 0.2, "10 %": 0.1, "5 %": 0.05}


class Samples(NamedTuple):
    """What a faulty generator makes: images, and the classes that were asked for where it is conditional."""

    images: Images
    asked: Labels | None = None


class Case(NamedTuple):
    """A fault at one strength.

    Args:
        fault: its name.
        strength: as a person reads it.
        gates: those that are meant for it: one of them must refuse. "G2" compares with the sound generator.
        make: the samples, the same every time.
    """

    fault: str
    strength: str
    gates: frozenset[str]
    make: Callable[[], Samples]


class Faults:
    """Faults made of real images.

    Args:
        images: that training never saw and the gate does not compare with, in random order.
        labels: of them.
        train: the training images.
    """

    def __init__(self, images: Images, labels: Labels, train: Images) -> None:
        self.images, self.labels, self.train = images, labels, train

    def __iter__(self) -> Iterator[Case]:
        """Every fault at three strengths, the strongest first."""
        table: list[tuple[str, str, Strengths, Callable[[float], Samples]]] = [
            ("blurred", "G1", {"sd 1.0 pixel": 1.0, "sd 0.8": 0.8, "sd 0.7": 0.7}, self.blurred),
            ("noisy", "G1", {"sd 40 levels": 40, "sd 20": 20, "sd 12": 12}, self.noisy),
            ("darker", "G1", {"x 0.3": 0.3, "x 0.4": 0.4, "x 0.5": 0.5}, self.darker),
            ("collapsed", "G4", {"20 images": 20, "100": 100, "200": 200}, self.collapsed),
            ("a class rare", "G4", {"missing": 0.0, "0.1 of its share": 0.1, "0.3": 0.3}, self.rare),
            ("replaying", "G5", SHARES, self.replaying),
            ("replaying mirrored", "G5", SHARES, self.replaying_mirrored),
            ("replaying with noise", "G5", SHARES, self.replaying_with_noise),
            ("one class bad", "G4", {"noise, sd 60": 60, "40": 40, "30": 30}, self.one_class_bad),
            ("class ignored", "G4", {"always": 1.0, "half the time": 0.5, "a quarter": 0.25}, self.class_ignored),
        ]
        for fault, gates, strengths, make in table:
            for strength, value in strengths.items():
                yield Case(fault, strength, frozenset(gates.split()), partial(make, value))

    def blurred(self, sd: float) -> Samples:
        """By a Gaussian, pixels."""
        return Samples(np.rint(gaussian_filter(self.images.astype(np.float32), (0, sd, sd, 0))).astype(np.uint8))

    def noisy(self, sd: float) -> Samples:
        """White noise, levels."""
        return Samples(_noisy(self.images, sd))

    def darker(self, scale: float) -> Samples:
        """Every level times so much."""
        return Samples(np.rint(self.images * scale).astype(np.uint8))

    def collapsed(self, count: float) -> Samples:
        """So many different images, again and again."""
        return Samples(self.images[_random().randint(0, int(count), len(self.images))])

    def rare(self, share: float) -> Samples:
        """One class so often as a share of what is right."""
        random = _random()
        kept = np.flatnonzero((self.labels != RARE) | (random.random_sample(len(self.labels)) < share))
        return Samples(self.images[kept])

    def replaying(self, share: float) -> Samples:
        """So many samples are training images."""
        return self._replaying(share, lambda copies: copies)

    def replaying_mirrored(self, share: float) -> Samples:
        """... turned left to right."""
        return self._replaying(share, mirrored)

    def replaying_with_noise(self, share: float) -> Samples:
        """... a little noisy."""
        return self._replaying(share, partial(_noisy, sd=NOISE))

    def one_class_bad(self, sd: float) -> Samples:
        """Noise on one class alone."""
        own = self.labels == RARE
        samples = self.images.copy()
        samples[own] = _noisy(self.images[own], sd)
        return Samples(samples)

    def class_ignored(self, share: float) -> Samples:
        """So often any class is made in place of the one asked for."""
        random = _random()
        other = random.randint(0, int(self.labels.max()) + 1, len(self.labels))
        return Samples(self.images, np.where(random.random_sample(len(other)) < share, other, self.labels))

    def _replaying(self, share: float, change: Callable[[Images], Images]) -> Samples:
        random = _random()
        samples = self.images.copy()
        rows = random.permutation(len(samples))[: round(share * len(samples))]  # anywhere: a part is looked at
        samples[rows] = change(self.train[random.permutation(len(self.train))[: len(rows)]])
        return Samples(samples)


class Broken:
    """Faults in a sound generator of images.

    Args:
        model: its ONNX file; unconditional, prior N(0, I).
        count: samples.
    """

    def __init__(self, model: bytes, count: int) -> None:
        self.model, self.count, self.generator = model, count, Generator.from_bytes(model)

    def __iter__(self) -> Iterator[Case]:
        """Every fault at three strengths, the strongest first."""
        priors: dict[str, Callable[[Latents], Latents]] = {
            "0.5 z": lambda z: 0.5 * z,
            "U(-1, 1)": lambda z: _random().uniform(-1, 1, z.shape).astype(np.float32),
            "1.5 z": lambda z: 1.5 * z,
        }
        for strength, change in priors.items():
            yield Case("wrong prior", strength, frozenset({"G1", "G2"}), partial(self.sound, change))
        for levels in (5, 9, 17):
            make = partial(self.rounded, levels)
            yield Case("weights rounded", f"to {levels} levels", frozenset({"G1", "G2"}), make)

    def sound(self, change: Callable[[Latents], Latents] = lambda z: z) -> Samples:
        """What it makes of z, or of something else."""
        return self._made(self.generator, change)

    def of(self, model: bytes) -> Samples:
        """What another file of the same latents makes."""
        return self._made(Generator.from_bytes(model), lambda z: z)

    def rounded(self, levels: int) -> Samples:
        """An int8 conversion gone wrong."""
        return self.of(changed(self.model, partial(coarse, levels)))

    def _made(self, generator: Generator, change: Callable[[Latents], Latents]) -> Samples:
        z = change(draw(generator.signature, np.arange(self.count) + FIRST_SEED).z)
        parts = np.array_split(z.astype(np.float32), -(-self.count // 250))
        return Samples(np.concatenate([np.asarray(generator.generate(part), np.uint8) for part in parts]))


def changed(model: bytes, change: Callable[[Weights], Weights]) -> bytes:
    """The ONNX file with another value for every weight tensor; biases and the like stay."""
    proto = onnx.load_from_string(model)
    for tensor in proto.graph.initializer:
        weights = numpy_helper.to_array(tensor)
        if weights.dtype == np.float32 and weights.ndim >= 2:
            tensor.CopyFrom(numpy_helper.from_array(change(weights).astype(np.float32), tensor.name))
    return bytes(proto.SerializeToString())


def coarse(levels: int, weights: Weights) -> Weights:
    """Rounded to so few values, evenly spaced."""
    step = 2 * np.abs(weights).max() / (levels - 1)
    return np.asarray(np.rint(weights / step) * step)


def _random() -> np.random.RandomState:
    return np.random.RandomState(0)


def _noisy(images: Images, sd: float) -> Images:
    return np.clip(np.rint(images + _random().normal(0, sd, images.shape)), 0, 255).astype(np.uint8)
