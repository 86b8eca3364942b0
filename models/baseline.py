"""What a generator that passed the gate is held against while it serves, without the training data. Knows no servers.

A baseline is made by the gate, of the very features that its verdict rests on: the moments of the real samples, and
what the Frechet distance of a block of fresh samples to them is, mean and spread, where nothing is wrong. It lies
beside its verdict, which holds its sha256. Blocks are small and all of one size, so that the distance's bias, which
depends on their size, is in the baseline too and cancels.
"""

import io
import math
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.blas import one_thread
from models.errors import LoadError
from models.extractor_manifest import ExtractorManifest
from models.extractor_store import find
from models.extractors import Extractor, open_extractor
from models.frechet import Frechet, moments
from models.halving import Matrix, Moments, Vector

BLOCK = 1000  # samples
LARGER_BLOCKS = (2000, 4000, 8000)  # where a fault does not stand out of so few, of at most MANY_DIMENSIONS
STANDING_OUT = 2.5  # standard deviations of a block, by which a fault does
MIN_BLOCKS = 10  # in the samples that a baseline is made of
FEWEST_BLOCKS = 6  # of the larger sizes, whose distances vary by what many samples decide together
NUM_BLOCKS = 300  # that mean and spread are taken over, at most
MANY_DIMENSIONS = 512  # above which fewer blocks do: each takes a second
FEWER_BLOCKS = 60
RISE = 0.5  # of the distance: the fault that must be found
RISE_OF_SCALE = 0.0005  # of Tr R: no smaller rise counts as a fault, however good a model is
TOLERATED = 0.2  # of such a rise is no fault
BASELINE_ERRORS = 2.0  # standard errors of the baseline's own mean, tolerated besides
VARIANT_LOSS = 0.002  # of Tr R: what a variant may lose at most, where its own loss was not measured in these features
PIECE = 1000  # samples of a block whose moments are gathered at a time
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """What to expect.

    Args:
        extractor: its name or folder, as the reference says it.
        extractor_manifest: what it is.
        extractor_model: its ONNX file, where it was made for this data set and is found nowhere else; b"" otherwise.
        real: moments of the real samples, the gate split's.
        num_fake: samples that the gate drew.
        fd_inf: their distance without bias, as in the verdict.
        block: samples of a block.
        block_mean: mean distance of a block.
        block_deviation: its standard deviation.
    """

    extractor: str
    extractor_manifest: ExtractorManifest
    extractor_model: bytes
    real: Moments
    num_fake: int
    fd_inf: float
    block: int
    block_mean: float
    block_deviation: float

    @property
    def trace_real(self) -> float:
        """Tr R, the scale of distances."""
        return float(np.trace(self.real.covariance))

    @property
    def bias(self) -> float:
        """By which a block's distance is larger than the distance without bias."""
        return self.block_mean - self.fd_inf

    @property
    def rise(self) -> float:
        """Of the distance, that is a fault: 50 %, or 0.0005 Tr R where that is more."""
        return max(RISE * self.fd_inf, RISE_OF_SCALE * self.trace_real)

    def slack(self, loss: float = 0.0) -> float:
        """A rise that is none, in standard deviations of a block; `loss`, of Tr R, is known and accepted besides."""
        allowed = TOLERATED * self.rise + loss * self.trace_real
        return allowed / self.block_deviation + BASELINE_ERRORS * math.sqrt(self.block / self.num_fake)

    def surprise(self, distance: float) -> float:
        """A block's distance in standard deviations above the expected one."""
        return (distance - self.block_mean) / self.block_deviation


class Meter:
    """Measures blocks against a baseline; what all blocks share is computed once.

    Args:
        baseline: of the version.
    """

    def __init__(self, baseline: Baseline) -> None:
        self.baseline = baseline
        self._distance = _Distance(baseline.real)

    def distance(self, *features: NDArray[Any]) -> float:
        """Frechet distance of a block, in pieces [n, d], to the real samples; NaN where a feature is not finite."""
        return self._distance(*features)


def make_baseline(
    fake: NDArray[Any],
    real: NDArray[Any],
    distance: Frechet,
    *,
    extractor: Extractor,
    extractor_name: str,
) -> Baseline | None:
    """The baseline of a generator.

    Args:
        fake: [N_g, d] features of its samples, as the gate measured them.
        real: [N_r, d] features of the gate split.
        distance: between the two, as the gate measured it.
        extractor: that made the features.
        extractor_name: what the reference calls it.

    Returns:
        Its block is the smallest that a fault stands out of, or the largest that the samples are enough for. None
        where they are too few to say what to expect, or where all blocks look the same.
    """
    most = len(fake) // MIN_BLOCKS
    if most < 2:
        return None
    reals = moments(real)
    measure = _Distance(reals)
    made = None
    larger = LARGER_BLOCKS if real.shape[1] <= MANY_DIMENSIONS else ()
    for block in (min(BLOCK, most), *(size for size in larger if size <= len(fake) // FEWEST_BLOCKS)):
        distances = _block_distances(np.asarray(fake), block, measure)
        deviation = float(np.std(distances, ddof=1)) / (1 - block / len(fake))
        if not deviation > 0:
            return None
        made = Baseline(
            extractor=extractor_name,
            extractor_manifest=extractor.manifest,
            extractor_model=extractor.made_of,
            real=reals,
            num_fake=len(fake),
            fd_inf=distance.fd_inf,
            block=block,
            block_mean=float(np.mean(distances)),
            block_deviation=deviation,
        )
        if made.rise >= STANDING_OUT * deviation:
            break
    return made


def extractor_of(baseline: Baseline, root: Path, *, threads: int = 1) -> Extractor:
    """What the baseline's features were made with: its own, or the one in the repository at `root` or in the house.

    Raises:
        NotFound: it is nowhere.
        LoadError: it is damaged, or another one.
    """
    manifest = baseline.extractor_manifest
    if baseline.extractor_model:
        return Extractor(baseline.extractor_model, manifest, threads=threads)
    extractor = open_extractor(find(baseline.extractor, repository=root, digest=manifest.digest), threads=threads)
    if extractor.digest != manifest.digest:
        raise LoadError(f"extractor {extractor.label} is not the baseline's, {manifest.name}@{manifest.digest[:4]}")
    return extractor


def encode(baseline: Baseline) -> bytes:
    """An .npz archive; the same baseline gives the same bytes."""
    upper = np.triu_indices(len(baseline.real.mean))
    arrays: dict[str, Any] = {
        "format": np.array(FORMAT),
        "extractor": np.array(baseline.extractor),
        "extractor_manifest": np.array(msgspec.json.encode(baseline.extractor_manifest).decode()),
        "extractor_model": np.frombuffer(baseline.extractor_model, np.uint8),
        "real_n": np.array(baseline.real.n),
        "real_mean": baseline.real.mean,
        "real_covariance": baseline.real.covariance[upper],  # it is symmetric
        "num_fake": np.array(baseline.num_fake),
        "fd_inf": np.array(baseline.fd_inf),
        "block": np.array(baseline.block),
        "block_mean": np.array(baseline.block_mean),
        "block_deviation": np.array(baseline.block_deviation),
    }
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def decode(data: bytes) -> Baseline:
    """A baseline from its file, whose sha256 its verdict holds.

    Raises:
        LoadError: it is none.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
        mean: Vector = arrays["real_mean"].astype(np.float64)
        covariance: Matrix = np.zeros((len(mean), len(mean)))
        covariance[np.triu_indices(len(mean))] = arrays["real_covariance"]
        return Baseline(
            extractor=str(arrays["extractor"]),
            extractor_manifest=msgspec.json.decode(str(arrays["extractor_manifest"]), type=ExtractorManifest),
            extractor_model=arrays["extractor_model"].astype(np.uint8).tobytes(),
            real=Moments(int(arrays["real_n"]), mean, covariance + np.triu(covariance, 1).T),
            num_fake=int(arrays["num_fake"]),
            fd_inf=float(arrays["fd_inf"]),
            block=int(arrays["block"]),
            block_mean=float(arrays["block_mean"]),
            block_deviation=float(arrays["block_deviation"]),
        )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, msgspec.DecodeError) as error:
        raise LoadError(f"the baseline is damaged: {error}") from error


class _Distance:
    """The Frechet distance of blocks to fixed real moments: by whichever Gram matrix is smaller.

    X R X^T or F^T X^T X F, of a centred block X, has the eigenvalues of the product of the two covariances.
    """

    def __init__(self, real: Moments) -> None:
        self._real = real

    def __call__(self, *features: NDArray[Any]) -> float:
        if not all(np.isfinite(piece).all() for piece in features):
            return math.nan
        with one_thread(features[0].shape[1]):
            return self._measured(features)

    def _measured(self, features: Sequence[NDArray[Any]]) -> float:
        real, count = self._real, sum(map(len, features))
        mean = np.asarray(sum(piece.sum(0, dtype=np.float64) for piece in features) / count)
        scale = math.sqrt(count - 1)
        pieces = ((rows - mean) / scale for rows in _gathered(features))
        if count < len(mean):
            x = np.concatenate(list(pieces))
            gram, trace = x @ real.covariance @ x.T, float((x * x).sum())
        else:
            covariance = np.zeros_like(real.covariance)
            for x in pieces:
                covariance += x.T @ x
            gram, trace = self._root.T @ covariance @ self._root, float(np.trace(covariance))
        product = 2 * float(np.sqrt(np.maximum(np.linalg.eigvalsh(gram), 0)).sum())
        shift = mean - real.mean
        return max(0.0, float(shift @ shift) + trace + float(np.trace(real.covariance)) - product)

    @cached_property
    def _root(self) -> Matrix:
        """F with F F^T = R."""
        values, vectors = np.linalg.eigh(self._real.covariance)
        return np.asarray(vectors * np.sqrt(np.maximum(values, 0)))


def _gathered(features: Sequence[NDArray[Any]]) -> Iterator[Matrix]:
    """The same rows, about PIECE at a time: small pieces are joined, large ones cut."""
    held: list[NDArray[Any]] = []
    for piece in features:
        for i in range(0, len(piece), PIECE):
            held.append(piece[i : i + PIECE])
            if sum(map(len, held)) >= PIECE:
                yield np.concatenate(held, dtype=np.float64)
                held = []
    if held:
        yield np.concatenate(held, dtype=np.float64)


def _block_distances(fake: NDArray[Any], block: int, distance: _Distance) -> list[float]:
    """Of blocks that are drawn anew from all fakes again and again; within one round no fake is in two.

    Drawn without replacement they vary less than fresh ones. With f = block / N_g, on average over the fakes, the
    variance is 1 - f of theirs where the distance is linear in a block's moments, 1 - f^2 where it is quadratic (near
    0), and (1 - f)^2 for fakes whose own moments happen to be exact: the deviation is divided by 1 - f, the worst case.
    """
    random = np.random.RandomState(0)
    wanted = NUM_BLOCKS if fake.shape[1] <= MANY_DIMENSIONS else FEWER_BLOCKS
    distances: list[float] = []
    while len(distances) < wanted:
        order = random.permutation(len(fake))
        rounds = [order[i : i + block] for i in range(0, len(fake) - block + 1, block)]
        distances += [distance(fake[rows]) for rows in rounds[: wanted - len(distances)]]
    return distances
