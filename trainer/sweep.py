"""Which configurations a sweep tries, and how they rank. Knows no files and no training.

An axis is said as FIELD=VALUE,VALUE,...; a value that ends in x is a multiple of what the configuration has, since a
good gamma or learning rate is known up to a factor. `gamma` means r1_gamma and r2_gamma, `lr` both learning rates.
"""

import itertools
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple, get_type_hints

import msgspec

from models.errors import Invalid
from trainer.config import Config

MOST = 64  # trainings in a sweep
PENALTIES = ("r1_gamma", "r2_gamma", "gp_lambda")
SHORT = {"gamma": ("r1_gamma", "r2_gamma"), "lr": ("g_lr", "d_lr")}
FIXED = frozenset(
    {"data", "resolution", "max_skipped", "conditional", "kimg", "snapshot_kimg", "threads", "device", "tensorboard"}
)
KINDS = get_type_hints(Config)

Overrides = Mapping[str, object]


class Axis(NamedTuple):
    """What varies, by the values' labels as they were given."""

    name: str
    values: dict[str, Overrides]


class Combination(NamedTuple):
    """One training of a sweep.

    Args:
        label: "gamma=0.3x lr=2x", the name of its folder.
        config: of it.
        overrides: what it changes in the configuration swept.
    """

    label: str
    config: Config
    overrides: Overrides


class Outcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a training of a sweep ended.

    Args:
        label: its combination's.
        share: lowest FD/Tr on the validation split over its snapshots; None without one.
        kimg: of that snapshot.
        seed: of the run.
        failure: why it ended early, for a person.
    """

    label: str
    share: float | None = None
    kimg: float | None = None
    seed: int = 0
    failure: str | None = None


class Rank(NamedTuple):
    """One setting over its seeds: the median of their FD/Tr, and every one of them; those that failed are inf."""

    setting: str
    share: float
    shares: list[float]
    best: Outcome


def parse_axis(text: str, config: Config) -> Axis:
    """Read FIELD=VALUE,VALUE,...

    Raises:
        Invalid: names the sweep and what is wrong with it.
    """
    name, _, listed = text.partition("=")
    labels = listed.split(",")
    if not name or not listed or "" in labels or len(set(labels)) < len(labels):
        raise Invalid(f"{text!r} is not FIELD=VALUE,VALUE,... with different values", field="sweep")
    fields: tuple[str, ...] = SHORT.get(name, (name,))
    if name == "gamma" and (config.r1_gamma or config.r2_gamma):
        fields = tuple(field for field in fields if getattr(config, field))  # those that are in use
    for field in fields:
        if field not in KINDS or field in FIXED:
            raise Invalid(f"{name!r} cannot be swept; what can: {', '.join(_sweepable())}", field="sweep")
    return Axis(name, {label: {field: _value(field, label, config) for field in fields} for label in labels})


def combinations(axes: Sequence[Axis], config: Config) -> list[Combination]:
    """Every choice of one value from each axis.

    Raises:
        Invalid: there are more than 64, one field is on two axes, or a configuration cannot be.
    """
    changed = [field for axis in axes for field in next(iter(axis.values.values()))]
    if len(set(changed)) < len(changed):
        raise Invalid("two sweeps change the same field", field="sweep")
    found = []
    for labels in itertools.product(*(axis.values for axis in axes)):
        overrides: dict[str, object] = {}
        for axis, label in zip(axes, labels, strict=True):
            overrides |= axis.values[label]
        label = " ".join(f"{axis.name}={label}" for axis, label in zip(axes, labels, strict=True))
        try:
            found.append(Combination(label, msgspec.structs.replace(config, **overrides), overrides))
        except Invalid as error:
            raise Invalid(f"{label}: {error.detail}", field=error.field or "sweep") from error
    if not 2 <= len(found) <= MOST:
        raise Invalid(f"{len(found)} trainings; 2 .. {MOST} make a sweep", field="sweep")
    return found


def rank(outcomes: Sequence[Outcome]) -> list[Rank]:
    """Settings, the best first: by the median over seeds where a sweep has several, failures last."""
    settings: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        setting = " ".join(part for part in outcome.label.split() if not part.startswith("seed=")) or outcome.label
        settings.setdefault(setting, []).append(outcome)
    ranks = []
    for setting, own in settings.items():
        shares = sorted(map(_share, own))
        ranks.append(Rank(setting, statistics.median(shares), shares, min(own, key=_share)))
    return sorted(ranks, key=lambda found: (found.share, found.shares[0]))


def _share(outcome: Outcome) -> float:
    return float("inf") if outcome.share is None or outcome.failure else outcome.share


def _value(field: str, label: str, config: Config) -> object:
    """A value of a field: as given, or so many times the configuration's."""
    now = getattr(config, field)
    try:
        if not label.endswith("x") or isinstance(now, str):
            return msgspec.convert(label, KINDS[field], strict=False)
        factor = float(label[:-1])
    except (msgspec.ValidationError, ValueError) as error:
        raise Invalid(f"{label!r} is no value of {field}", field="sweep") from error
    if isinstance(now, bool) or not isinstance(now, int | float):
        raise Invalid(f"{field} is {now}, which has no multiples: give values", field="sweep")
    if not now:
        unfit = field in PENALTIES and config.d_norm == "batch"
        more = ", with --d-norm none or --preset r3gan: D has BatchNorm, which no penalty fits" if unfit else ""
        raise Invalid(f"{field} is 0, and so is every multiple of it: give values{more}", field="sweep")
    return round(now * factor) if isinstance(now, int) else now * factor


def _sweepable() -> list[str]:
    return [*SHORT, *sorted(set(KINDS) - FIXED)]
