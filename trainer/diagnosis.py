"""From a run's signals to named verdicts. Pure: knows no torch, no files and no clock.

Every rule looks at the lines so far and says what it found, or nothing. Thresholds are named, with what they rest on;
all were set on the tuning runs of bench/diagnosis.py and tried on others. A state must last to be called by its name:
the first thousand images of a healthy run look like several diseases.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from statistics import mean, median

import msgspec

from trainer.signals import Checkup, Line

DIVERGED = "diverged"
TOO_STRONG = "discriminator too strong"
TOO_WEAK = "discriminator too weak"
COLLAPSE = "mode collapse"
OSCILLATION = "oscillation"
MEMORISING = "memorising"
EQUILIBRIUM = "near equilibrium"
TRAINING = "training"
TOO_EARLY = "not enough seen yet"

MIN_TICKS = 6
RECENT = 3
LASTING = 8
EXPLODED = 1e4
SURE = 0.98
VANISHED = 0.02
STALLED_FOR = 4
STALLED = 0.9
FAR = 0.1
GUESSING = 0.6
TELLS_APART = 0.75
ALIKE = 0.8
GOOD = 0.4
NARROW = 0.2
COPIED = 0.3
UNTOLD = 0.55
WEAKER = "lower --d-lr, --r1-gamma or --d-norm spectral, fewer steps of D (--d-period), --augment for small data."


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What is the matter with a run, or that nothing is.

    Args:
        name: one of those above.
        evidence: a sentence with the numbers that it rests on.
        advice: what to try; "" where nothing needs mending.
    """

    name: str
    evidence: str
    advice: str = ""

    @property
    def alarm(self) -> bool:
        """Whether something is the matter."""
        return bool(self.advice)


class History:
    """A run's lines, sorted by what they hold.

    Args:
        lines: of stats.jsonl, in order.
        loss: the objective's name.
    """

    def __init__(self, lines: Sequence[Line], loss: str) -> None:
        self.lines, self.loss = lines, loss

    @cached_property
    def ticks(self) -> list[Line]:
        """Means over steps."""
        return [line for line in self.lines if line.d_loss is not None or line.g_loss is not None]

    @cached_property
    def checkups(self) -> list[Checkup]:
        """Of the snapshots."""
        return [line.checkup for line in self.lines if line.checkup is not None]

    @cached_property
    def shares(self) -> list[float]:
        """FD/Tr of the snapshots."""
        return [line.score.share for line in self.lines if line.score is not None]

    def of(self, column: str) -> list[float]:
        """A column's values, where there are any."""
        return [value for line in self.lines if (value := getattr(line, column)) is not None]


def diagnose(lines: Sequence[Line], loss: str) -> tuple[Verdict, ...]:
    """All that holds of a run as its lines tell it so far, the worst first; never empty."""
    history = History(lines, loss)
    found = [verdict for rule in ALARMS if (verdict := rule(history)) is not None]
    if found:
        return tuple(found)
    return (_near_equilibrium(history) or _training(history),)


def _diverged(h: History) -> Verdict | None:
    """Not finite, or on the way there: a gradient or a loss that has left its scale by orders of magnitude."""
    advice = "lower both learning rates (a tenth), bound D's slope (--r1-gamma, --d-norm spectral), go back to fp32."
    if h.lines and (fault := h.lines[-1].fault):
        return Verdict(name=DIVERGED, evidence=f"{fault[:1].upper()}{fault[1:]}.", advice=advice)
    for column, name in (("d_norm", "D's gradient"), ("g_norm", "G's gradient"), ("d_loss", "D's loss")):
        sizes = [abs(value) for value in h.of(column)]
        if len(sizes) >= MIN_TICKS and (now := median(sizes[-RECENT:])) > EXPLODED:
            return Verdict(name=DIVERGED, evidence=f"{name} has grown to {now:.3g}.", advice=advice)
    return None


def _too_strong(h: History) -> Verdict | None:
    """D tells everything apart, and G learns nothing of it: no gradient comes back, or samples do not move."""
    accuracies, pulls = h.of("d_accuracy")[-LASTING:], h.of("pull")[-LASTING:]
    if len(accuracies) < LASTING or median(accuracies) < SURE:
        return None
    told = f"D tells {median(accuracies):.0%} of unseen samples rightly"
    if median(pulls) < VANISHED:
        evidence = f"{told}, and G's loss passes on {median(pulls):.2g} of what it says: the gradient has vanished."
        return Verdict(name=TOO_STRONG, evidence=evidence, advice=f"--loss non-saturating, {WEAKER}")
    recent = h.shares[-STALLED_FOR:]
    if len(recent) == STALLED_FOR and min(recent[1:]) > STALLED * recent[0] and h.checkups[-1].coverage < FAR:
        evidence = f"{told}, and FD/Tr has not fallen for {STALLED_FOR} snapshots ({recent[-1]:.3g})."
        return Verdict(name=TOO_STRONG, evidence=evidence, advice=WEAKER)
    return None


def _too_weak(h: History) -> Verdict | None:
    """D cannot tell what a fresh one learns in some hundred steps."""
    accuracies = h.of("d_accuracy")[-LASTING:]
    retrained = h.checkups[-1].retrained if h.checkups else None
    if retrained is None or len(accuracies) < LASTING:
        return None
    if mean(accuracies) > GUESSING or retrained < TELLS_APART:
        return None
    return Verdict(
        name=TOO_WEAK,
        evidence=f"D tells {mean(accuracies):.0%} of unseen samples rightly, a fresh one {retrained:.0%}.",
        advice="raise --d-lr or --d-channels, lower --r1-gamma, more steps of D (--d-period).",
    )


def _collapse(h: History) -> Verdict | None:
    """Samples are of few kinds: all alike, or good ones that leave out much of the data."""
    recent = h.checkups[-2:]
    if len(recent) < 2:
        return None
    last = recent[-1]
    advice = "fewer steps of G for one of D, --r1-gamma, --loss relativistic, --augment for small data, a longer z."
    if all(c.duplicates >= ALIKE for c in recent):
        told = f"{last.duplicates:.0%} of samples have a near-duplicate among the others."
        return Verdict(name=COLLAPSE, evidence=told, advice=advice)
    if all(c.precision >= GOOD and c.coverage < NARROW for c in recent):
        told = f"{last.precision:.0%} of samples look real, but they cover {last.coverage:.0%} of real ones."
        return Verdict(name=COLLAPSE, evidence=told, advice=advice)
    return None


def _oscillation(h: History) -> Verdict | None:
    return None


def _memorising(h: History) -> Verdict | None:
    """Many samples are next to one training sample."""
    recent = h.checkups[-2:]
    if len(recent) < 2 or min(c.copies - c.copies_by_chance for c in recent) < COPIED:
        return None
    last = recent[-1]
    return Verdict(
        name=MEMORISING,
        evidence=f"{last.copies:.0%} of samples are far nearer to one training sample than to any other; by chance "
        f"{last.copies_by_chance:.0%} would be.",
        advice="more data, --augment colour,translation,cutout, a smaller G, fewer images (--kimg).",
    )


def _near_equilibrium(h: History) -> Verdict | None:
    retrained = h.checkups[-1].retrained if h.checkups else None
    if retrained is None or retrained > UNTOLD:
        return None
    return Verdict(
        name=EQUILIBRIUM,
        evidence=f"A fresh D, trained against the frozen G, tells {retrained:.1%} of unseen samples rightly.",
    )


def _training(h: History) -> Verdict:
    if len(h.ticks) < MIN_TICKS or len(h.checkups) < 2:
        return Verdict(name=TOO_EARLY, evidence="")
    return Verdict(name=TRAINING, evidence="")


ALARMS: tuple[Callable[[History], Verdict | None], ...] = (
    _diverged, _too_strong, _too_weak, _collapse, _memorising, _oscillation
)  # fmt: skip
