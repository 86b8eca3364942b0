"""Divides a data set by content, near-duplicates together. Knows no files."""

import hashlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from models.splits import Indices, Samples, SplitName

THUMBNAIL = 8  # near-duplicates are looked for in thumbnails of at most 8 x 8
NEAR_LEVELS = 2.0  # root mean square difference of thumbnails, in levels of 255
NEIGHBOURS = 8
PROJECTED = 16  # dimensions of the neighbour search; a projection never lengthens a distance


def by_content(samples: Samples) -> Mapping[SplitName, Indices]:
    """Splits of 80/10/10 % decided by each sample's content, near-duplicates always in one split.

    A sample's split does not depend on its position, its name or (near-duplicates aside) on what else is in the set.
    """
    digests = np.array([hashlib.sha256(sample.tobytes()).digest()[:8] for sample in samples], dtype="S8")
    position = digests.view(">u8").astype(np.float64) / 2.0**64
    groups = near_duplicates(samples)
    lowest = np.full(groups.max(initial=-1) + 1, np.inf)
    np.minimum.at(lowest, groups, position)
    share = lowest[groups]
    return {
        "train": np.flatnonzero(share < 0.8),
        "validation": np.flatnonzero((share >= 0.8) & (share < 0.9)),
        "gate": np.flatnonzero(share >= 0.9),
    }


def near_duplicates(samples: Samples) -> NDArray[np.int32]:
    """A group number for each sample; equal samples, and images with near-equal thumbnails, share one.

    Images: thumbnails within NEAR_LEVELS (root mean square), linked through each one's nearest neighbours.
    Vectors: equal ones only.
    """
    flat = np.ascontiguousarray(samples).reshape(len(samples), -1)
    rows = flat.view(np.dtype((np.void, flat.dtype.itemsize * flat.shape[1]))).ravel()
    _, first, inverse = np.unique(rows, return_index=True, return_inverse=True)
    if samples.ndim != 4 or len(first) < 2:
        return inverse.astype(np.int32)
    return _linked(_thumbnails(samples[first]))[inverse]


def _thumbnails(images: Samples) -> NDArray[np.float32]:  # [N, H, W, C] -> [N, <= 8 * 8 * C]
    def averaged(values: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
        extent = values.shape[axis]
        edges = np.linspace(0, extent, min(THUMBNAIL, extent) + 1).astype(int)
        shape = [1] * values.ndim
        shape[axis] = -1
        sums = np.add.reduceat(values, edges[:-1], axis=axis, dtype=np.float32)
        return (sums / np.diff(edges).reshape(shape)).astype(np.float32)

    chunks = [images[i : i + 4096].astype(np.float32) for i in range(0, len(images), 4096)]
    return np.concatenate([averaged(averaged(chunk, 1), 2).reshape(len(chunk), -1) for chunk in chunks])


def _linked(thumbnails: NDArray[np.float32]) -> NDArray[np.int32]:
    radius = NEAR_LEVELS * np.sqrt(thumbnails.shape[1])
    centred = thumbnails - thumbnails.mean(axis=0)
    _, axes = np.linalg.eigh((centred.T @ centred).astype(np.float64))
    projected = centred @ axes[:, -PROJECTED:]
    count = min(NEIGHBOURS, len(thumbnails))
    _, near = cKDTree(projected).query(projected, k=count, distance_upper_bound=radius, workers=-1)
    source = np.repeat(np.arange(len(near)), count)
    target = near.ravel()
    found = target < len(near)  # a missing neighbour is numbered len(near)
    source, target = source[found], target[found]
    close = np.linalg.norm(thumbnails[source] - thumbnails[target], axis=1) <= radius
    links = coo_array((close[close], (source[close], target[close])), shape=(len(near), len(near)))
    groups: NDArray[np.int32] = connected_components(links, directed=False)[1]
    return groups
