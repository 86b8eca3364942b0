"""Which configurations a sweep tries, and how they rank. Knows no files and no training.

An axis is said as FIELD=VALUE,VALUE,...; a value that ends in x is a multiple of what the configuration has, since a
good gamma or learning rate is known up to a factor. `gamma` means r1_gamma and r2_gamma, `lr` both learning rates.
An objective or networks come with what belongs to them, as on the command line of a training; multiples are of that.
"""

import itertools
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
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
GAME = frozenset({"preset", "loss"})  # others come with them
KINDS = get_type_hints(Config)

Overrides = Mapping[str, object]
Configure = Callable[[Overrides], Config]  # what a training's command line asks for, with some settings changed


class Axis(NamedTuple):
    """What varies, by the values' labels as they were given."""

    name: str
    labels: list[str]


class Combination(NamedTuple):
    """One training of a sweep.

    Args:
        label: "gamma=0.3x lr=2x", the name of its folder.
        config: of it.
        full: its configuration at full length, with the seed that was asked for.
    """

    label: str
    config: Config
    full: Config


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


def parse_axis(text: str) -> Axis:
    """Read FIELD=VALUE,VALUE,...

    Raises:
        Invalid: names the sweep and what is wrong with it.
    """
    name, _, listed = text.partition("=")
    labels = listed.split(",")
    if not name or not listed or "" in labels or len(set(labels)) < len(labels):
        raise Invalid(f"{text!r} is not FIELD=VALUE,VALUE,... with different values", field="sweep")
    if name not in SHORT and (name not in KINDS or name in FIXED):
        raise Invalid(f"{name!r} cannot be swept; what can: {', '.join(_sweepable())}", field="sweep")
    return Axis(name, labels)


def swept(axes: Sequence[Axis], configure: Configure) -> Config:
    """The configuration that is swept: with the first networks and objective, where these are.

    Raises:
        Invalid: it cannot be.
    """
    return configure({axis.name: axis.labels[0] for axis in axes if axis.name in GAME})


def combinations(axes: Sequence[Axis], configure: Configure, short: Config) -> list[Combination]:
    """Every choice of one value from each axis.

    Args:
        axes: at least one.
        configure: makes a configuration with its networks and objective changed, and all that comes with them.
        short: what is swept, at the length of each training; gives their snapshots, too.

    Raises:
        Invalid: there are more than 64, one field is on two axes, or a configuration cannot be.
    """
    if not 2 <= (count := math.prod(len(axis.labels) for axis in axes)) <= MOST:
        raise Invalid(f"{count} trainings; 2 .. {MOST} make a sweep", field="sweep")
    length = {"kimg": short.kimg, "snapshot_kimg": short.snapshot_kimg}
    found = []
    for labels in itertools.product(*(axis.labels for axis in axes)):
        chosen = [(axis.name, label) for axis, label in zip(axes, labels, strict=True)]
        name = " ".join(f"{field}={label}" for field, label in chosen)
        try:
            full = _combined(chosen, configure)
            config = msgspec.structs.replace(full, **length)
        except Invalid as error:
            raise Invalid(f"{name}: {error.detail}", field=error.field or "sweep") from error
        found.append(Combination(name, config, msgspec.structs.replace(full, seed=short.seed)))
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


def _combined(chosen: Sequence[tuple[str, str]], configure: Configure) -> Config:
    """A configuration with its networks and objective first, and then all else, which may be multiples of theirs."""
    config = configure({name: label for name, label in chosen if name in GAME})
    changes = [(field, label) for name, label in chosen for field in _fields(name, config)]
    if len(dict(changes)) < len(changes):
        raise Invalid("two sweeps change the same field", field="sweep")
    return msgspec.structs.replace(config, **{field: _value(field, label, config) for field, label in changes})


def _fields(name: str, config: Config) -> tuple[str, ...]:
    """What an axis means; of gammas those that are in use, where some are."""
    fields = SHORT.get(name, (name,))
    used = tuple(field for field in fields if getattr(config, field))
    return used if name == "gamma" and used else fields


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
