"""From a run's signals to named verdicts. Pure: knows no torch, no files and no clock.

Every rule looks at the lines so far and says what it found, or nothing. A state must last to be called by its name: the
first images of a healthy run look like several faults. Thresholds were set on the tuning runs of
bench/diagnosis_cases.py and tried on others; docs/training.md has the figures.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from statistics import mean, median

import msgspec

from trainer.signals import Checkup, Stats

DIVERGED = "diverged"
TOO_STRONG = "discriminator too strong"
TOO_WEAK = "discriminator too weak"
COLLAPSE = "mode collapse"
OSCILLATION = "oscillation"
MEMORISING = "memorising"
EQUILIBRIUM = "near equilibrium"
TRAINING = "training"
TOO_EARLY = "not enough seen yet"

# Enough seen: ticks, and snapshots that were examined.
MIN_TICKS = 6
MIN_CHECKUPS = 2
RECENT = 3  # ticks whose median counts as now
LASTING = 8  # ticks that a state of D must last

# Diverged: far beyond what healthy runs show, which is 1.2 times a loss's value at chance, and gradients of 30.
EXPLODED_LOSS = 100.0  # times its value at chance
EXPLODED = 1e4  # gradients, and losses that have no such value

# Too strong: accuracies that healthy image runs reach too, so G must be seen to gain nothing by it.
SURE = 0.97
WON = 0.4  # D's loss over its value at chance: through noise D may be less sure than without
VANISHED = 0.05  # of G's pull; 1/2 where D cannot tell
STALLED_FOR = 4  # snapshots
STALLED = 0.9  # FD/Tr stays above this share of what it was
STUCK = 1e-6  # norm of G's gradient; Adam's epsilon is 1e-8 for each weight
FAR = 0.15  # coverage below which samples are not near the data yet

# Too weak: D guesses, and a fresh one does not.
GUESSING = 0.6
TELLS_APART = 0.8

# Collapse: samples alike; or plausible ones that leave kinds of data out, while FD does not fall as it does early on.
COLLAPSED_FOR = 3  # checkups
ALIKE = 0.8
PLAUSIBLE = 0.1  # of samples look real: what is only far from the data has not collapsed,
NARROW = 0.25  # unless its variance is below this share of the data's, and not because D lets nothing be learnt
LEFT_OUT = 0.2  # of the data, on average, and half of that each time
FALLING = 0.6  # the least FD/Tr of those checkups over the least before them; without FD, of what is left out

# Memorising: copies beyond chance, which in two dimensions is 1/4.
COPIED = 0.2

# Oscillation: D's loss turns so often within a window of ticks, by so much of its value at chance (healthy runs: once).
WINDOW = 24
TURNS = 4
SWING = 0.15
WILD_SWING = 0.5  # of its median, for Wasserstein's loss, which has no value at chance
CHANCE = {"non-saturating": 1.386, "minimax": 1.386, "relativistic": 0.693, "least-squares": 0.25, "hinge": 2.0}

# Near equilibrium: held-out accuracy of a fresh D, its best of four tries; and samples that are not plainly elsewhere.
UNTOLD = 0.55
LIKE_DATA = 0.5  # precision and coverage; real samples in the place of generated ones have .8 and .9 at least

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

    def __init__(self, lines: Sequence[Stats], loss: str) -> None:
        self.lines, self.loss = lines, loss

    @cached_property
    def num_ticks(self) -> int:
        """Lines with means over steps."""
        return sum(line.d_loss is not None or line.g_loss is not None for line in self.lines)

    @property
    def chance(self) -> float | None:
        """D's loss where D cannot tell; None for an objective without such a value."""
        return CHANCE.get(self.loss)

    @cached_property
    def checkups(self) -> list[Checkup]:
        """Of the snapshots."""
        return [line.checkup for line in self.lines if line.checkup is not None]

    @cached_property
    def shares(self) -> list[float]:
        """FD/Tr of the snapshots, by the extractor that scored last."""
        scores = [line.score for line in self.lines if line.score is not None]
        return [score.share for score in scores if score.extractor == scores[-1].extractor]

    @cached_property
    def accuracy(self) -> float:
        """D's on held-out samples, the median of late; 1/2 where none was measured."""
        return median(self.of("d_accuracy")[-LASTING:] or [0.5])

    def of(self, column: str) -> list[float]:
        """A column's values, where there are any."""
        return [value for line in self.lines if (value := getattr(line, column)) is not None]


def diagnose(lines: Sequence[Stats], loss: str) -> tuple[Verdict, ...]:
    """All that holds of a run as its lines tell it so far; never empty, and alarms stand alone.

    Args:
        lines: of stats.jsonl, in order.
        loss: the objective's name.
    """
    history = History(lines, loss)
    if (verdict := _diverged(history)) is not None:
        return (verdict,)  # whatever else may be said follows from it
    found = tuple(verdict for rule in ALARMS if (verdict := rule(history)) is not None)
    return found or (_too_early(history) or _near_equilibrium(history) or _training(history),)


def _diverged(h: History) -> Verdict | None:
    """A number that is not finite, or a size that has left all bounds."""
    advice = (
        "a new run (--resume goes the same way again) with both learning rates lowered tenfold, D's slope bounded "
        "(--r1-gamma, --d-norm spectral), or --precision fp32."
    )
    if h.lines and (fault := h.lines[-1].fault):
        return Verdict(name=DIVERGED, evidence=f"{fault[:1].upper()}{fault[1:]}.", advice=advice)
    names = {"d_loss": "D's loss", "g_loss": "G's loss", "d_norm": "D's gradient", "g_norm": "G's gradient"}
    for column, name in names.items():
        sizes = [abs(value) for value in h.of(column)]
        limit = EXPLODED_LOSS * h.chance if h.chance and column == "d_loss" else EXPLODED
        if len(sizes) >= MIN_TICKS and (now := median(sizes[-RECENT:])) > limit:
            return Verdict(name=DIVERGED, evidence=f"{name} has grown to {now:.2g}.", advice=advice)
    return None


def _collapse(h: History) -> Verdict | None:
    """Samples are of few kinds: all alike, or real-looking ones that leave whole kinds of data out."""
    recent = h.checkups[-COLLAPSED_FOR:]
    if len(recent) < COLLAPSED_FOR:
        return None
    advice = "fewer steps of G for one of D, --r1-gamma, --loss relativistic, a longer z, --augment for small data."
    if all(checkup.duplicates >= ALIKE for checkup in recent):
        evidence = f"{recent[-1].duplicates:.0%} of samples have a near-duplicate among the others."
        return Verdict(name=COLLAPSE, evidence=evidence, advice=advice)
    left_out = [checkup.left_out for checkup in h.checkups if checkup.left_out is not None]
    now = left_out[-COLLAPSED_FOR:]
    if recent[-1].left_out is None or len(now) < COLLAPSED_FOR or _still_fall(h.shares or left_out):
        return None
    precision, spread = (mean(getattr(checkup, name) for checkup in recent) for name in ("precision", "spread"))
    narrow = spread <= NARROW and h.accuracy < SURE
    if mean(now) >= LEFT_OUT and min(now) >= LEFT_OUT / 2 and (precision >= PLAUSIBLE or narrow):
        evidence = (
            f"{mean(now):.0%} of the data are of kinds that samples leave out, over {COLLAPSED_FOR} snapshots; "
            f"{precision:.0%} of samples look real, and their variance is {spread:.0%} of the data's."
        )
        return Verdict(name=COLLAPSE, evidence=evidence, advice=advice)
    return None


def _still_fall(values: Sequence[float]) -> bool:
    """Whether they have become much less of late. A collapsed G's go up and down: the least ones are compared."""
    before, recent = values[:-COLLAPSED_FOR] or values[:1], values[-COLLAPSED_FOR:]
    return bool(recent) and min(recent) < FALLING * min(before)


def _too_strong(h: History) -> Verdict | None:
    """D tells everything apart, and G learns nothing of it: no gradient comes back, or its samples stay where they are.

    Where samples are all alike, that is why they stay.
    """
    pulls = h.of("pull")[-LASTING:]
    if len(h.of("d_accuracy")) < LASTING or h.accuracy < SURE:
        return None
    if h.chance and median(h.of("d_loss")[-LASTING:]) > WON * h.chance:
        return None
    told = f"D tells {h.accuracy:.0%} of unseen samples rightly"
    norms = h.of("g_norm")[-LASTING:]
    if norms and median(norms) < STUCK:
        evidence = f"{told}, and the norm of G's gradient is {median(norms):.1g}: no weight moves any more."
        return Verdict(name=TOO_STRONG, evidence=evidence, advice=f"begin anew with another --seed; {WEAKER}")
    if median(pulls) < VANISHED:
        evidence = f"{told}, and G's loss passes on {median(pulls):.2g} of what it says: the gradient has vanished."
        return Verdict(name=TOO_STRONG, evidence=evidence, advice=f"--loss non-saturating, {WEAKER}")
    shares = h.shares[-STALLED_FOR:]
    if len(shares) < STALLED_FOR or min(shares[1:]) < STALLED * shares[0] or _collapse(h) is not None:
        return None
    if h.checkups and h.checkups[-1].coverage < FAR:
        evidence = f"{told}, and FD/Tr has not fallen for {STALLED_FOR} snapshots ({shares[-1]:.3g})."
        return Verdict(name=TOO_STRONG, evidence=evidence, advice=WEAKER)
    return None


def _too_weak(h: History) -> Verdict | None:
    """D cannot tell what a fresh one learns in some hundred steps."""
    accuracies = h.of("d_accuracy")[-LASTING:]
    retrained = h.checkups[-1].retrained if h.checkups else None
    if len(accuracies) < LASTING or mean(accuracies) > GUESSING or retrained is None or retrained < TELLS_APART:
        return None
    return Verdict(
        name=TOO_WEAK,
        evidence=f"D tells {mean(accuracies):.0%} of unseen samples rightly, a fresh one {retrained:.0%}.",
        advice="raise --d-lr or --d-channels, lower --r1-gamma, more steps of D (--d-period).",
    )


def _memorising(h: History) -> Verdict | None:
    """Many samples are next to one training sample."""
    recent = h.checkups[-MIN_CHECKUPS:]
    if len(recent) < MIN_CHECKUPS or min(c.copies - c.copies_by_chance for c in recent) < COPIED:
        return None
    now = recent[-1]
    return Verdict(
        name=MEMORISING,
        evidence=f"{now.copies:.0%} of samples are far nearer to one training sample than to any other; by chance "
        f"{now.copies_by_chance:.0%} would be.",
        advice="more data, --augment colour,translation,cutout, a smaller G, an earlier checkpoint.",
    )


def _oscillation(h: History) -> Verdict | None:
    """D's loss, which is the game's value, swings to and fro: each player undoes what the other has done."""
    losses = h.of("d_loss")[-WINDOW:]
    if len(losses) < WINDOW // 2:
        return None
    swing = SWING * h.chance if h.chance else WILD_SWING * median(abs(loss) for loss in losses)
    turns = _turns(losses, swing)
    if turns < TURNS:
        return None
    return Verdict(
        name=OSCILLATION,
        evidence=f"D's loss turned {turns} times in {len(losses)} ticks, between {min(losses):.2g} and "
        f"{max(losses):.2g}.",
        advice="shorter periods (--d-period, --g-period), lower learning rates, --r1-gamma.",
    )


def _turns(values: Sequence[float], least: float) -> int:
    """How often a series turned back by at least so much."""
    turns, direction = 0, 0
    low = high = values[0]
    for value in values[1:]:
        low, high = min(low, value), max(high, value)
        if direction >= 0 and value < high - least:
            turns, direction, low = turns + abs(direction), -1, value
        elif direction <= 0 and value > low + least:
            turns, direction, high = turns + abs(direction), 1, value
    return turns


def _near_equilibrium(h: History) -> Verdict | None:
    """No fresh D tells the frozen G's samples from unseen ones. That D itself says 1/2 would not be enough.

    Nor is a fresh one that is blind to what features show: those of older runs were as small as the runs' own.
    """
    now = h.checkups[-1] if h.checkups else None
    if now is None or now.retrained is None or now.retrained > UNTOLD or min(now.precision, now.coverage) < LIKE_DATA:
        return None
    evidence = f"A fresh D, trained against the frozen G, tells {now.retrained:.1%} of unseen samples rightly."
    return Verdict(name=EQUILIBRIUM, evidence=evidence)


def _too_early(h: History) -> Verdict | None:
    if h.num_ticks >= MIN_TICKS and len(h.checkups) >= MIN_CHECKUPS:
        return None
    seen = f"{h.num_ticks} ticks and {len(h.checkups)} examined snapshots so far"
    return Verdict(name=TOO_EARLY, evidence=f"{seen}; {MIN_TICKS} and {MIN_CHECKUPS} are needed.")


def _training(h: History) -> Verdict:
    """Nothing is the matter, as far as can be said."""
    accuracies = h.of("d_accuracy")[-LASTING:]
    told = f"D tells {mean(accuracies):.0%} of unseen samples rightly; " if accuracies else ""
    return Verdict(name=TRAINING, evidence=f"{told}samples cover {h.checkups[-1].coverage:.0%} of real ones.")


ALARMS: tuple[Callable[[History], Verdict | None], ...] = (
    _collapse, _too_strong, _too_weak, _memorising, _oscillation
)  # fmt: skip
