"""What a classifier recognises among fakes: shares of classes, classes asked for, the class that is farthest off.

Only an extractor that knows the data's own classes says so; any classifier gives an Inception Score.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.clusters import Indices
from models.extractors import Extracted, Features
from models.frechet import frechet
from models.measures import WorstClass
from models.reference import RealFeatures
from models.splits import SplitName

MIN_OF_CLASS = 50  # reals, for a class to have a distance of its own
MIN_FAKES_OF_CLASS = 10
MAX_DIM = 128  # of features within a class: more are projected onto the reals' leading directions


def class_shares(extracted: Extracted, reals: RealFeatures) -> tuple[float, ...] | None:
    """How often each class of the data is recognised; None for an extractor that does not know them."""
    if extracted.class_idx is None or not reals.knows_classes or reals.dataset.class_names is None:
        return None
    counts = np.bincount(extracted.class_idx, minlength=len(reals.dataset.class_names))
    return tuple(float(count) / len(extracted.class_idx) for count in counts)


def class_accuracy(
    recognised: Indices | None, asked: Indices | None, class_names: tuple[str, ...] | None, reals: RealFeatures
) -> float | None:
    """How often a fake is recognised as the class asked for; None where classes are not the data set's."""
    if asked is None or recognised is None or class_names != reals.dataset.class_names:
        return None
    return float((recognised == asked).mean()) if reals.knows_classes else None


def worst_class(fake: Extracted, reals: RealFeatures, split: SplitName) -> WorstClass | None:
    """Compares fakes and reals class by class, both as they are recognised; None where that cannot be.

    Reals go by what is recognised too, not by their labels, so that the classifier's mistakes weigh on both sides.
    Classes with fewer than 50 reals are left out.
    """
    real, names = reals.extracted(split), reals.dataset.class_names
    if fake.class_idx is None or real.class_idx is None or not reals.knows_classes or names is None:
        return None
    directions = _directions(real.features)
    ours, theirs = (side.features if directions is None else side.features @ directions for side in (fake, real))
    found = [
        _within(name, ours[fake.class_idx == k], theirs[real.class_idx == k])
        for k, name in enumerate(names)
        if np.count_nonzero(real.class_idx == k) >= MIN_OF_CLASS
    ]
    return max(found, key=lambda one: np.inf if np.isnan(one.fd_inf) else one.fd_inf) if found else None


def _within(name: str, fake: NDArray[Any], real: NDArray[Any]) -> WorstClass:
    if len(fake) < MIN_FAKES_OF_CLASS:
        return WorstClass(name, float("nan"), float("nan"))
    found = frechet(fake, real)
    return WorstClass(name, found.fd_inf, found.se)


def _directions(features: Features) -> NDArray[np.float64] | None:  # [N, D] -> [D, 128]
    """The reals' leading principal directions; None where there are no more than 128."""
    if features.shape[1] <= MAX_DIM:
        return None
    vectors = np.linalg.eigh(np.cov(features, rowvar=False))[1]
    return np.ascontiguousarray(vectors[:, -MAX_DIM:])
