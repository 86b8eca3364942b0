"""Draws a generator's samples and measures them against a split of real data. Knows no repository and no verdicts."""

import hashlib
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.batches import batches
from models.bins import bins_for, compare_bins
from models.clusters import nearest_centre
from models.errors import DataError
from models.extractors import Extracted, Extractor, Features
from models.frechet import Frechet, frechet
from models.generator import DTYPES, Generator
from models.inception_score import inception_score
from models.kernel import kernel_distance
from models.latents import draw
from models.measures import Floor, Measures
from models.memorising import centres_of, find_copies, some_rows
from models.neighbours import neighbourhood
from models.policy import Policy
from models.recognition import class_accuracy, class_shares, worst_class
from models.reference import RealFeatures, Stage
from models.splits import SplitName
from models.stages import timed

MIN_SAMPLES = 20  # of a split: fewer say nothing at all


class Fakes(NamedTuple):
    """What was drawn.

    Args:
        extracted: features and recognised classes of all fakes.
        asked: [N] the classes asked for; None for an unconditional generator.
        class_names: what they stand for.
        samples: as they are served: of images the first of them, of vectors all.
    """

    extracted: Extracted
    asked: NDArray[np.int64] | None
    class_names: tuple[str, ...] | None
    samples: NDArray[Any]


class Measured(NamedTuple):
    """A generator's numbers, what paired differences need of it, and the features [N, d] behind them."""

    measures: Measures
    frechet: Frechet
    features: Features


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
    count = policy.num_fake if signature.kind == "vector" else min(policy.num_neighbours, policy.num_fake)
    kept: NDArray[Any] = np.empty((count, *signature.shape), DTYPES[signature.kind])
    features, recognised, probabilities, asked = [], [], [], []
    for rows in batches(policy.num_fake, signature.shape):
        drawn = draw(signature, seeds[rows])
        samples = generator.generate(*drawn)
        extracted = extractor.extract(samples, progress)
        features.append(extracted.features)
        recognised += [] if extracted.class_idx is None else [extracted.class_idx]
        probabilities += [] if extracted.probabilities is None else [extracted.probabilities]
        asked += [] if drawn.class_idx is None else [drawn.class_idx]
        room = kept[rows]
        room[:] = samples[: len(room)]
    return Fakes(
        extracted=Extracted(
            np.concatenate(features),
            np.concatenate(recognised) if recognised else None,
            np.concatenate(probabilities) if probabilities else None,
        ),
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
    samples, features = fakes.samples[:count], fakes.extracted.features[:count]
    copies = find_copies(samples, features, reals, split, policy.num_neighbours, stage)
    asked = fakes.asked is not None
    accuracy = class_accuracy(fakes.extracted.class_idx, fakes.asked, fakes.class_names, reals)
    measures = _measures(fakes.extracted, distance, reals, split, policy, stage)
    measures = msgspec.structs.replace(
        measures,
        conditional=asked,
        class_accuracy=accuracy,
        region_counts=_region_counts(fakes.samples, reals),
        **copies._asdict(),
    )
    return Measured(measures, distance, fakes.extracted.features)


def measure_distance(features: Features, reals: RealFeatures, split: SplitName, stage: Stage | None = None) -> Frechet:
    """The Frechet distance alone: all that a comparison needs of the version compared with."""
    check_split(reals, split, stage)
    with timed(stage, f"Frechet distance on the {split} split"):
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
    chosen = some_rows(len(train.features), policy.num_fake)
    stand_in = train.some(chosen)
    distance = measure_distance(stand_in.features, reals, split, stage)
    labels = reals.split(split).labels
    known = reals.knows_classes
    measures = _measures(stand_in, distance, reals, split, policy, stage)
    counts = _region_counts(reals.split("train").samples[chosen], reals)
    return Floor(
        measures=msgspec.structs.replace(measures, region_counts=counts),
        class_names=reals.dataset.class_names if known else None,
        class_shares=class_shares(real, reals),
        class_accuracy=float(np.mean(real.class_idx == labels)) if known else None,
        region_names=None if reals.regions is None else reals.regions.names,
        region_counts=_region_counts(reals.split(split).samples, reals),
    )


def _measures(
    fake: Extracted, distance: Frechet, reals: RealFeatures, split: SplitName, policy: Policy, stage: Stage | None
) -> Measures:
    """Fills in what needs features alone: all but Frechet's and NDB at equal numbers of fakes and reals."""
    real = reals.extracted(split).features
    count = min(policy.num_neighbours, len(fake.features), len(real))
    some_fakes, some_reals = (rows[some_rows(len(rows), count)] for rows in (fake.features, real))
    with timed(stage, "kernel distance"):
        kid, kid_se, kid_spread = kernel_distance(some_fakes, some_reals)
    with timed(stage, "precision, recall, density, coverage"):
        scores, twins = neighbourhood(some_fakes, some_reals)
    with timed(stage, "bins and classes"):
        num_bins = bins_for(len(real))
        centres = centres_of(reals, num_bins, policy.num_neighbours)
        bins = compare_bins(nearest_centre(fake.features, centres), nearest_centre(real, centres), num_bins)
        worst = worst_class(fake, reals, split)
    return Measures(
        extractor=reals.extractor.label,
        num_fake=len(fake.features),
        num_real=len(real),
        num_neighbours=count,
        fd=distance.fd,
        fd_inf=distance.fd_inf,
        se=distance.se,
        fd_spread=distance.spread,
        trace_real=distance.trace_real,
        kid=kid,
        kid_se=kid_se,
        kid_spread=kid_spread,
        scores=scores,
        twins=twins,
        bins=bins,
        inception_score=None if fake.probabilities is None else inception_score(fake.probabilities),
        class_shares=class_shares(fake, reals),
        worst_class=worst,
    )


def _region_counts(samples: NDArray[Any], reals: RealFeatures) -> tuple[int, ...] | None:
    return None if reals.regions is None else tuple(reals.regions.counts(samples).tolist())


def hashed_seeds(text: str, count: int) -> NDArray[np.uint32]:  # [count]
    """Seeds that follow from a text, so that nobody chooses them and everybody can draw them again."""
    words = np.frombuffer(hashlib.sha256(text.encode()).digest(), "<u4")
    return np.random.RandomState(words).randint(0, 2**32, count, np.uint32)
