"""Whether an extractor ranks known faults by their strength: noise, blur, missing classes, replay. Knows no generators.

One half of the validation split plays the fakes and is made worse step by step; the other half is what it is held
against. FD_inf must rise from each rung to the next beyond its error, and so must the replay share.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2
from scipy.ndimage import gaussian_filter

from models.datasets import Dataset
from models.errors import DataError
from models.extractor_manifest import LadderName, LadderTest, Rung
from models.extractors import Extractor
from models.frechet import Frechet, difference, frechet
from models.neighbours import nearest_distances, replay
from models.splits import Samples, Split

MAX_SAMPLES = 5_000  # of each half
MIN_SAMPLES = 50  # of each half: below, nothing rises beyond its error
Z = 1.645  # standard errors of a one-sided 95 % bound
NOISE = (5, 10, 20, 40)  # sd in levels of 255
VECTOR_NOISE = (0.02, 0.05, 0.1, 0.2)  # sd as a share of each coordinate's
FAINTEST_BLUR = 0.02  # sd as a share of the shorter side: 0.56 of 28 pixels
MIN_BLUR = 0.5  # pixels: less leaves whole levels as they are
BLUR = (1, 2, 4)  # times the faintest
DROPPED = (0.1, 0.2, 0.4)  # share of the samples that is missing, class after class
REPLAYED = (0.05, 0.1, 0.2)  # share of the samples that are copies of training samples
CLUSTERS = 10  # in place of classes where there are none
THUMBNAIL = 8  # pixels a side that clusters are looked for in

Stage = Callable[[str], None]


def check_size(dataset: Dataset) -> None:
    """Raises DataError where the validation split is too small to say anything."""
    count = len(dataset.indices["validation"])
    if count < 2 * MIN_SAMPLES:
        raise DataError(f"the validation split has {count} samples, the ladder needs {2 * MIN_SAMPLES}", field="data")


def climb(extractor: Extractor, dataset: Dataset, *, stage: Stage | None = None) -> LadderTest:
    """Hold every rung of every ladder against real data.

    Args:
        extractor: takes the data set's samples.
        dataset: its validation split is made worse, its training split replayed; the gate split is not opened.
        stage: told each ladder before it is climbed.

    Raises:
        DataError: the validation split is too small to say anything, or its samples are not the extractor's.
    """
    check_size(dataset)
    tell = stage or (lambda name: None)
    real, base = _halves(dataset.split("validation"))
    tell("real data")
    held_against = extractor.features(real.samples)
    honest = extractor.features(base.samples)
    clean = frechet(honest, held_against)
    rungs: list[Rung] = []
    for name, made in _ladders(base, dataset.kind == "image"):
        tell(name)
        before = clean
        for strength, samples in made:
            found = frechet(extractor.features(samples), held_against)
            rungs.append(_rung(name, strength, found, before))
            before = found
    tell("replay")
    clean_replay, replays = _replays(extractor, dataset.split("train").samples, held_against, honest)
    return LadderTest(
        data=dataset.name,
        data_hash=dataset.content_hash,
        num_real=len(real.samples),
        num_fake=len(base.samples),
        clean_fd=clean.fd_inf / clean.trace_real,
        clean_replay=clean_replay,
        rungs=(*rungs, *replays),
    )


def _halves(split: Split) -> tuple[Split, Split]:
    """Two parts of a split that share no sample, the same every time."""
    order = np.random.RandomState(0).permutation(len(split.samples))
    count = min(len(order) // 2, MAX_SAMPLES)
    first, second = np.sort(order[:count]), np.sort(order[count : 2 * count])
    return _part(split, first), _part(split, second)


def _part(split: Split, rows: NDArray[np.int64]) -> Split:
    labels = None if split.labels is None else split.labels[rows]
    return Split(samples=split.samples[rows], labels=labels, indices=split.indices[rows])


def _ladders(base: Split, images: bool) -> Iterator[tuple[LadderName, Iterator[tuple[str, Samples]]]]:
    """The faults that a distance must see, each rung made when it is asked for."""
    yield "noise", _noisy(base.samples)
    if images:
        yield "blur", _blurred(base.samples)
    yield "dropped", _dropped(base)


def _noisy(samples: Samples) -> Iterator[tuple[str, Samples]]:
    noise = np.random.RandomState(0).standard_normal(samples.shape)
    if samples.dtype == np.uint8:
        for levels in NOISE:
            yield f"sd {levels} levels", np.clip(np.rint(samples + levels * noise), 0, 255).astype(np.uint8)
        return
    scale = samples.std(0)
    for share in VECTOR_NOISE:
        yield f"sd {share:g} of the data's", (samples + share * scale * noise).astype(np.float32)


def _blurred(images: Samples) -> Iterator[tuple[str, Samples]]:
    faintest = max(FAINTEST_BLUR * min(images.shape[1:3]), MIN_BLUR)
    for sd in (times * faintest for times in BLUR):
        blurred = gaussian_filter(images.astype(np.float32), (0, sd, sd, 0))
        yield f"sd {sd:.2g} pixels", np.rint(blurred).astype(np.uint8)


def _dropped(base: Split) -> Iterator[tuple[str, Samples]]:
    """Without the first classes, or clusters of pixels, in a random order of classes."""
    kind, groups = ("classes", base.labels) if base.labels is not None else ("clusters", clusters(base.samples))
    order = np.random.RandomState(1).permutation(int(groups.max()) + 1)
    by_group = np.argsort(order[groups], kind="stable")
    for share in DROPPED:
        kept = np.sort(by_group[int(share * len(by_group)) :])
        yield f"{share:.0%} of the {kind}", base.samples[kept]


def clusters(samples: Samples) -> NDArray[np.int64]:  # [N]
    """Groups by k-means on values, of images averaged down to at most 8 x 8: what stands for classes without labels."""
    x = samples.astype(np.float32)
    if x.ndim == 4:
        rows, columns = (max(1, extent // THUMBNAIL) for extent in x.shape[1:3])
        x = x[:, : x.shape[1] // rows * rows, : x.shape[2] // columns * columns]
        x = x.reshape(len(x), x.shape[1] // rows, rows, x.shape[2] // columns, columns, -1).mean((2, 4))
    rows_of_values = x.reshape(len(x), -1).astype(np.float64)
    _, groups = kmeans2(rows_of_values, CLUSTERS, minit="++", rng=np.random.default_rng(0))
    return np.asarray(groups, np.int64)


def _rung(name: LadderName, strength: str, found: Frechet, before: Frechet) -> Rung:
    rise, error = (value / found.trace_real for value in difference(found, before))
    value = found.fd_inf / found.trace_real
    return Rung(ladder=name, strength=strength, value=value, rise=rise, error=Z * error, seen=rise > Z * error)


def _replays(
    extractor: Extractor, train: Samples, held_out: NDArray[Any], honest: NDArray[Any]
) -> tuple[float, list[Rung]]:
    """The replay share of honest samples, and of the same with more and more copies of training samples among them."""
    base = extractor.features(train)
    chosen = np.random.RandomState(2).permutation(len(train))[: int(max(REPLAYED) * len(honest))]
    limit, own = nearest_distances(held_out, base), nearest_distances(honest, base)
    copied = nearest_distances(extractor.features(train[np.sort(chosen)]), base)
    clean = before = replay(own, limit).share
    rungs = []
    for share in REPLAYED:
        count = min(int(share * len(own)), len(copied))
        found = replay(np.concatenate([copied[:count], own[count:]]), limit).share
        error = Z * float(np.sqrt((found * (1 - found) + before * (1 - before)) / len(own)))
        rise = found - before
        rungs.append(
            Rung(
                ladder="replay", strength=f"{share:.0%} copies", value=found, rise=rise, error=error, seen=rise > error
            )
        )
        before = found
    return clean, rungs
