"""Looks for training samples among fakes: by features and by pixels, also mirrored. Knows no generators or thresholds.

A mirrored copy is a copy: an image's distance to the training set is the smaller one of its own and its mirror image's.
The held-out samples' distances, which set the limit, follow from the reals alone and are kept.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.bins import bins_for
from models.clusters import Indices, Rows, k_means, nearest_centre
from models.extractors import Features
from models.flips import mirrored
from models.neighbours import Distances, Nearest, Replay, exact_duplicates, nearest, nearest_distances, replay
from models.overfitting import Overfitting, authentic, copying_score, farther
from models.reference import Arrays, RealFeatures, Stage
from models.splits import SplitName
from models.stages import timed

MAX_PIXEL_EXTENT = 32  # larger images are averaged down before they are compared pixel by pixel


class Copies(NamedTuple):
    """What was found of the training set among fakes.

    Args:
        replay: by features.
        pixel_replay: on the samples themselves.
        duplicates: share that are, or whose mirror image is, a training sample to the byte.
        overfitting: C_T, its AUC and authenticity, by features.
    """

    replay: Replay
    pixel_replay: Replay
    duplicates: float
    overfitting: Overfitting


def find_copies(
    samples: NDArray[Any], features: Features, reals: RealFeatures, split: SplitName, count: int, stage: Stage | None
) -> Copies:
    """Compares fakes with the training split.

    Args:
        samples: [N, ...] fakes.
        features: [N, D] theirs.
        reals: the real data.
        split: its samples say how far honest ones lie.
        count: of them, at most.
        stage: told what is being done.
    """
    train = reals.extracted("train", stage).features
    with timed(stage, "nearest training samples, by features"):
        found = nearest(features, train)
        ours = _with_mirror(found.distances, samples, reals)
        held_out = held_out_distances(reals, split, count)
        of_nearest = _own_distances(found, train)
    train_samples = reals.split("train").samples
    with timed(stage, "nearest training samples, by pixels"):
        in_pixels = _pixel_distances(samples, train_samples)
    centres = centres_of(reals, bins_for(len(reals.split(split).indices)), count)
    some = some_rows(len(reals.split(split).indices), count)
    cells = nearest_centre(features, centres), nearest_centre(reals.extracted(split).features[some], centres)
    return Copies(
        replay=replay(ours, held_out["nearer"]),
        pixel_replay=replay(in_pixels, held_out["pixels"]),
        duplicates=_duplicates(samples, train_samples),
        overfitting=Overfitting(
            c_t=copying_score(found.distances, held_out["plain"], *cells),
            auc=farther(found.distances, held_out["plain"]),
            authentic=authentic(found.distances, of_nearest),
        ),
    )


def held_out_distances(reals: RealFeatures, split: SplitName, count: int) -> Arrays:
    """Distances to the training split of at most `count` samples of another, kept.

    Returns:
        [N] each: "plain" by features, "nearer" the smaller of it and the mirror image's, "pixels" likewise by pixels.
    """

    def make() -> Arrays:
        some = some_rows(len(reals.split(split).indices), count)
        samples, train = reals.split(split).samples[some], reals.extracted("train").features
        plain = nearest_distances(reals.extracted(split).features[some], train)
        return {
            "plain": plain,
            "nearer": _with_mirror(plain, samples, reals),
            "pixels": _pixel_distances(samples, reals.split("train").samples),
        }

    return reals.kept(f"distances {count}", (split, "train"), ("plain", "nearer", "pixels"), make)


def centres_of(reals: RealFeatures, num_clusters: int, count: int) -> Rows:
    """k-means centres [K, D] of at most `count` training samples' features, kept."""

    def make() -> Arrays:
        train = reals.extracted("train").features
        return {"centres": k_means(train[some_rows(len(train), count)], min(num_clusters, len(train)))}

    return reals.kept(f"clusters {num_clusters} {count}", ("train",), ("centres",), make)["centres"]


def some_rows(total: int, count: int) -> Indices:
    """At most `count` of `total` positions, at random but always the same, in order: real data may come by class."""
    return np.sort(np.random.RandomState(0).permutation(total)[:count]).astype(np.int64)


def pixels(samples: NDArray[Any]) -> NDArray[Any]:  # [N, H, W, C] or [N, d] -> [N, values]
    """Samples as rows; larger images are averaged down by a whole factor, what is left over at the edge cut off."""
    if samples.ndim != 4 or min(samples.shape[1:3]) <= MAX_PIXEL_EXTENT:
        return samples.reshape(len(samples), -1)
    count, height, width, channels = samples.shape
    factor = -(-min(height, width) // MAX_PIXEL_EXTENT)
    rows, columns = height // factor, width // factor
    small = np.empty((count, rows, columns, channels), np.float32)
    for i, image in enumerate(samples[:, : rows * factor, : columns * factor]):
        small[i] = image.reshape(rows, factor, columns, factor, channels).mean((1, 3), np.float32)
    return small.reshape(count, -1)


def _mirror(samples: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(mirrored(samples))


def _with_mirror(distances: Distances, samples: NDArray[Any], reals: RealFeatures) -> Distances:
    """The smaller of samples' distances to the training set by features and their mirror images'."""
    if samples.ndim != 4:
        return distances
    train = reals.extracted("train").features
    return np.minimum(distances, nearest_distances(reals.extractor.features(_mirror(samples)), train))


def _pixel_distances(samples: NDArray[Any], train: NDArray[Any]) -> Distances:
    base = pixels(train)
    plain = nearest_distances(pixels(samples), base)
    return plain if samples.ndim != 4 else np.minimum(plain, nearest_distances(pixels(_mirror(samples)), base))


def _duplicates(samples: NDArray[Any], train: NDArray[Any]) -> float:
    """Share of exact copies; a mirrored one counts once."""
    if samples.ndim != 4:
        return float(exact_duplicates(samples, train).mean())
    return float((exact_duplicates(samples, train) | exact_duplicates(_mirror(samples), train)).mean())


def _own_distances(found: Nearest, train: Features) -> Distances:  # -> [N]
    """Of each training sample found, the distance to the nearest other training sample."""
    rows, back = np.unique(found.rows, return_inverse=True)
    return nearest(train[rows], train, besides=rows).distances[back]
