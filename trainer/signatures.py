"""What a run's generator declares: its signature, and the classes of a conditional one. Knows no networks."""

import numpy as np

from models.datasets import Dataset
from models.errors import Invalid
from models.manifest import Classes, Kind, Signature
from trainer.config import Config


def signature_of(config: Config, shape: tuple[int, ...], classes: Classes | None = None) -> Signature:
    """What a generator of a run declares."""
    kind: Kind = "vector" if config.preset == "mlp" else "image"
    return Signature(kind=kind, prior=config.prior, z_dim=config.z_dim, shape=shape, classes=classes)


def classes_of(config: Config, data: Dataset) -> Classes | None:
    """Names and frequencies of the training split's classes for a conditional run; None for an unconditional one.

    Raises:
        Invalid: the data has no labels, or only one class.
    """
    if not config.conditional:
        return None
    labels = data.split("train").labels
    if labels is None or data.class_names is None:
        raise Invalid(f"{config.data} has no labels to condition on", field="conditional")
    if len(data.class_names) < 2:
        raise Invalid(f"{config.data} has one class: there is nothing to condition on", field="conditional")
    counts = np.bincount(labels, minlength=len(data.class_names))
    return Classes(names=data.class_names, frequencies=tuple((counts / counts.sum()).tolist()))
