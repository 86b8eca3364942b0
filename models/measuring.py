"""Draws a generator's samples and measures them against a split of real data. Knows no repository and no verdicts."""

import contextlib
import hashlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.batches import batches
from models.errors import DataError
from models.extractors import Extracted, Extractor, Features
from models.frechet import Frechet, frechet
from models.generator import DTYPES, Generator
from models.kernel import kernel_distance
from models.latents import draw
from models.measures import Floor, Measures
from models.neighbours import Replay, exact_duplicates, nearest_distances, neighbour_scores, replay
from models.policy import Policy
from models.reference import RealFeatures, Stage
from models.splits import SplitName

MAX_PIXEL_EXTENT = 32  # larger images are averaged down before they are compared pixel by pixel
MIN_SAMPLES = 20  # of a split: fewer say nothing at all


class Fakes(NamedTuple):
    """What was drawn.

    Args:
        extracted: features and recognised classes of all fakes.
        asked: [N] the classes asked for; None for an unconditional generator.
        class_names: what they stand for.
        samples: the first of them, as they are served.
    """

    extracted: Extracted
    asked: NDArray[np.int64] | None
    class_names: tuple[str, ...] | None
    samples: NDArray[Any]


class Measured(NamedTuple):
    """A generator's numbers, and what paired differences need of it."""

    measures: Measures
    frechet: Frechet


def draw_fakes(
    generator: Generator, extractor: Extractor, policy: Policy, *, salt: str, stage: Stage | None = None
) -> Fakes:
    """Draws the policy's number of samples and extracts their features, batch by batch.

    The seeds follow from sha256(generator, policy, salt), so nobody chooses them and everybody can draw them again.
    Classes of a conditional generator are drawn by their frequencies, as for requests that name none.
    """
    signature = generator.signature
    progress = stage("samples and their features", policy.num_fake) if stage else None
    seeds = hashed_seeds(f"{generator.digest} {policy.hash} {salt}", policy.num_fake)
    kept: NDArray[Any] = np.empty(
        (min(policy.num_neighbours, policy.num_fake), *signature.shape), DTYPES[signature.kind]
    )
    features, recognised, asked = [], [], []
    for rows in batches(policy.num_fake, signature.shape):
        drawn = draw(signature, seeds[rows])
        samples = generator.generate(*drawn)
        extracted = extractor.extract(samples, progress)
        features.append(extracted.features)
        recognised += [] if extracted.class_idx is None else [extracted.class_idx]
        asked += [] if drawn.class_idx is None else [drawn.class_idx]
        room = kept[rows]
        room[:] = samples[: len(room)]
    return Fakes(
        extracted=Extracted(np.concatenate(features), np.concatenate(recognised) if recognised else None),
        asked=np.concatenate(asked) if asked else None,
        class_names=signature.classes.names if signature.classes else None,
        samples=kept,
    )


def measure(
    generator: Generator,
    reals: RealFeatures,
    split: SplitName,
    policy: Policy,
    *,
    salt: str,
    stage: Stage | None = None,
) -> Measured:
    """Measures a generator on a split.

    Args:
        generator: as it is served.
        reals: the real data.
        split: what to hold the fakes against; replay is always looked for in the training split.
        policy: says how many fakes.
        salt: decides, with the policy and the generator, which latents are drawn.
        stage: told what is being done.

    Raises:
        DataError: the split is too small to measure anything, or its samples do not vary.
    """
    check_split(reals, split, stage)
    fakes = draw_fakes(generator, reals.extractor, policy, salt=salt, stage=stage)
    return measure_fakes(fakes, reals, split, policy, stage)


def measure_fakes(
    fakes: Fakes, reals: RealFeatures, split: SplitName, policy: Policy, stage: Stage | None = None
) -> Measured:
    """Measures samples that are drawn already; see `measure`."""
    distance = measure_distance(fakes.extracted.features, reals, split, stage)
    count = min(policy.num_neighbours, len(fakes.samples))
    some = _some(len(reals.split(split).indices), policy.num_neighbours)
    real, train = reals.extracted(split, stage), reals.extracted("train", stage)
    with _timed(stage, "nearest training samples, by features"):
        in_features = _replay(fakes.extracted.features[:count], real.features[some], train.features)
    train_samples = reals.split("train").samples
    with _timed(stage, "nearest training samples, by pixels"):
        in_pixels = _replay(*map(_pixels, (fakes.samples[:count], reals.split(split).samples[some], train_samples)))
    return Measured(
        _measures(
            fakes.extracted, distance, reals, split, policy, stage,
            conditional=fakes.asked is not None,
            class_accuracy=_class_accuracy(fakes, reals),
            replay=in_features,
            pixel_replay=in_pixels,
            duplicates=exact_duplicates(fakes.samples, train_samples),
        ),
        distance,
    )  # fmt: skip


def measure_distance(features: Features, reals: RealFeatures, split: SplitName, stage: Stage | None = None) -> Frechet:
    """The Frechet distance alone: all that a comparison needs of the version compared with."""
    check_split(reals, split, stage)
    with _timed(stage, f"Frechet distance on the {split} split"):
        return frechet(features, reals.extracted(split).features)


def check_split(reals: RealFeatures, split: SplitName, stage: Stage | None = None) -> None:
    """Refuse real data that nothing can be held against, before any fake is drawn.

    Raises:
        DataError: the split has fewer than 20 samples, or all look the same to the extractor.
    """
    count = len(reals.dataset.indices[split])
    if count < MIN_SAMPLES:
        raise DataError(f"the {split} split has {count} samples, at least {MIN_SAMPLES} are needed", field="data")
    if not np.var(reals.extracted(split, stage).features, axis=0).sum() > 0:
        raise DataError(f"all samples of the {split} split look the same to {reals.extractor.label}", field="data")


def measure_floor(reals: RealFeatures, split: SplitName, policy: Policy, stage: Stage | None = None) -> Floor:
    """Real against real: as many training samples as there would be fakes, held against a split."""
    train, real = reals.extracted("train", stage), reals.extracted(split, stage)
    chosen = _some(len(train.features), policy.num_fake)
    stand_in = Extracted(train.features[chosen], None if train.class_idx is None else train.class_idx[chosen])
    distance = measure_distance(stand_in.features, reals, split, stage)
    labels = reals.split(split).labels
    known = reals.knows_classes
    return Floor(
        measures=_measures(stand_in, distance, reals, split, policy, stage),
        class_names=reals.dataset.class_names if known else None,
        class_shares=_class_shares(real, reals),
        class_accuracy=float(np.mean(real.class_idx == labels)) if known else None,
    )


def _measures(
    fake: Extracted,
    distance: Frechet,
    reals: RealFeatures,
    split: SplitName,
    policy: Policy,
    stage: Stage | None,
    *,
    conditional: bool = False,
    class_accuracy: float | None = None,
    replay: Replay | None = None,
    pixel_replay: Replay | None = None,
    duplicates: float | None = None,
) -> Measures:
    """Fills in what needs features alone: kernel distance and neighbour scores, at equal numbers of fakes and reals."""
    real = reals.extracted(split).features
    count = min(policy.num_neighbours, len(fake.features), len(real))
    some_fakes, some_reals = (rows[_some(len(rows), count)] for rows in (fake.features, real))
    with _timed(stage, "kernel distance"):
        kid, kid_se = kernel_distance(some_fakes, some_reals)
    with _timed(stage, "precision, recall, density, coverage"):
        scores = neighbour_scores(some_fakes, some_reals)
    return Measures(
        extractor=reals.extractor.label,
        num_fake=len(fake.features),
        num_real=len(real),
        num_neighbours=count,
        fd=distance.fd,
        fd_inf=distance.fd_inf,
        se=distance.se,
        trace_real=distance.trace_real,
        kid=kid,
        kid_se=kid_se,
        scores=scores,
        class_shares=_class_shares(fake, reals),
        conditional=conditional,
        class_accuracy=class_accuracy,
        replay=replay,
        pixel_replay=pixel_replay,
        duplicates=duplicates,
    )


@contextlib.contextmanager
def _timed(stage: Stage | None, name: str) -> Iterator[None]:
    """Tells of a stage that cannot say how far it is: begun, then done."""
    done = stage(name, 1) if stage else None
    if done:
        done(0)
    yield
    if done:
        done(1)


def _replay(fake: NDArray[Any], held_out: NDArray[Any], train: NDArray[Any]) -> Replay:
    return replay(nearest_distances(fake, train), nearest_distances(held_out, train))


def _class_shares(extracted: Extracted, reals: RealFeatures) -> tuple[float, ...] | None:
    if extracted.class_idx is None or not reals.knows_classes or reals.dataset.class_names is None:
        return None
    counts = np.bincount(extracted.class_idx, minlength=len(reals.dataset.class_names))
    return tuple(float(count) / len(extracted.class_idx) for count in counts)


def _class_accuracy(fakes: Fakes, reals: RealFeatures) -> float | None:
    """How often a fake is recognised as the class asked for; None where classes are not the data set's."""
    recognised = fakes.extracted.class_idx
    if fakes.asked is None or recognised is None or fakes.class_names != reals.dataset.class_names:
        return None
    return float((recognised == fakes.asked).mean()) if reals.knows_classes else None


def _pixels(samples: NDArray[Any]) -> NDArray[Any]:  # [N, H, W, C] or [N, d] -> [N, values]
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


def _some(total: int, count: int) -> NDArray[np.int64]:
    """At most `count` of `total` positions, at random but always the same, in order: real data may come by class."""
    return np.sort(np.random.RandomState(0).permutation(total)[:count]).astype(np.int64)


def hashed_seeds(text: str, count: int) -> NDArray[np.uint32]:  # [count]
    """Seeds that follow from a text, so that nobody chooses them and everybody can draw them again."""
    words = np.frombuffer(hashlib.sha256(text.encode()).digest(), "<u4")
    return np.random.RandomState(words).randint(0, 2**32, count, np.uint32)
