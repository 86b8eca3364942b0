"""A champion beside its candidate: what has still to be run again, and how the two compare. Pure."""

from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from models.extractors import Features
from models.generator import Samples
from models.latents import Drawn
from models.sequential import interval
from serving.inspection import Lens
from serving.loading import LiveModel
from serving.watch import SHOWN_BLOCKS, Shown

WAITING_IMAGES = 64  # that may wait for their candidate; more are dropped


class Levels(NamedTuple):
    """Mean and standard deviation over all values of all samples so far."""

    mean: float
    deviation: float


class Copied(NamedTuple):
    """What was answered, to be run again.

    Args:
        drawn: its latents.
        samples: what the champion made of them.
        seconds: that the champion took for each.
        since: when.
    """

    drawn: Drawn
    samples: Samples
    seconds: float
    since: float


@dataclass
class Spread:
    """Running mean and variance of values."""

    count: float = 0.0
    total: float = 0.0
    squares: float = 0.0

    def add(self, samples: Samples) -> None:
        """More of them."""
        values = samples.astype(np.float64)
        self.count += values.size
        self.total += float(values.sum())
        self.squares += float((values * values).sum())

    @property
    def levels(self) -> Levels:
        """Of all so far."""
        mean = self.total / max(1.0, self.count)
        return Levels(mean, max(0.0, self.squares / max(1.0, self.count) - mean * mean) ** 0.5)


@dataclass
class Pair:
    """A champion and its candidate.

    Args:
        champion: answers.
        candidate: is tried.
        lens: that the candidate is looked at through: the champion's; None where there is none.
        spreads: of the champion's samples, and of the candidate's, of the same images.
        queue: what the candidate has still to run.
        waiting: images in it.
        credit: images that are due to be copied.
        features: of the block that is being gathered.
        distances: of the last blocks.
    """

    champion: LiveModel
    candidate: LiveModel
    lens: Lens | None
    spreads: tuple[Spread, Spread] = field(default_factory=lambda: (Spread(), Spread()))
    queue: deque[Copied] = field(default_factory=deque)
    waiting: int = 0
    credit: float = 0.0
    features: list[Features] = field(default_factory=list)
    distances: deque[float] = field(default_factory=lambda: deque(maxlen=SHOWN_BLOCKS))

    @property
    def levels(self) -> tuple[Levels, Levels]:
        """Of the champion's samples, and of the candidate's."""
        first, second = self.spreads
        return first.levels, second.levels

    @property
    def takes_same_latents(self) -> bool:
        """Whether a latent of the champion means something to the candidate."""
        ours, theirs = self.champion.manifest, self.candidate.manifest
        return (ours.z_dim, ours.prior, ours.num_classes) == (theirs.z_dim, theirs.prior, theirs.num_classes)

    @property
    def shown(self) -> Shown | None:
        """The candidate's distance; None before there are blocks enough to say."""
        if self.lens is None:
            return None
        bias = self.lens.baseline.bias
        found = interval([distance - bias for distance in self.distances])
        return None if found is None else Shown(*found)

    def due(self, images: int, share: float) -> int:
        """How many of so many answered images are to be run again."""
        self.credit += share * images
        due = min(int(self.credit), images)
        self.credit -= int(self.credit)
        return due

    @property
    def room(self) -> int:
        """Images that may still come to wait."""
        return WAITING_IMAGES - self.waiting

    def copy(self, copied: Copied) -> None:
        """Let images wait for the candidate."""
        self.queue.append(copied)
        self.waiting += len(copied.samples)

    def next(self) -> Copied:
        """What has waited longest."""
        copied = self.queue.popleft()
        self.waiting -= len(copied.samples)
        return copied

    def block(self, features: Features) -> Features | None:
        """More of the candidate's features; a whole block as soon as there is one."""
        self.features.append(features)
        size = 0 if self.lens is None else self.lens.baseline.block
        if not size or sum(map(len, self.features)) < size:
            return None
        gathered = np.concatenate(self.features)
        self.features = [gathered[size:]]
        return gathered[:size]
