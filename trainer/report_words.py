"""Says in sentences what a run's numbers mean. Knows no HTML: whoever shows them escapes them."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from models.closest import Neighbours
from models.labels import distance
from models.policy import Policy
from trainer.progress import duration
from trainer.report_samples import Certainty
from trainer.report_theory import Relation
from trainer.run_records import RunRecord

CONFIDENT = 1.96  # standard errors to each side of a 95 % interval
WORSE = 1.25  # times the best FD: got worse
TELLING = 0.5  # a rank correlation from which on a loss moves with FD
WHO = {"a person": "picked by a person", "default": "by default", "validation FD": "by validation FD"}
NOT_YET = "Nothing is exported yet; `genserve export` would take"
GATE_LIMIT = Policy().max_fd


class Chosen(NamedTuple):
    """The snapshot that a report is about.

    Args:
        kimg: of it.
        exported: whether it is the one that was exported.
        why: a sentence.
    """

    kimg: float
    exported: bool
    why: str


def chosen(record: RunRecord) -> Chosen | None:
    """What was exported; else what would be; None where there is no snapshot at all."""
    if record.export is not None:
        kimg, reason = record.export.checkpoint_kimg, record.export.reason
        who = WHO[record.export.chosen_by]
        return Chosen(kimg, True, f"Exported is the snapshot at {about(kimg)} kimg, {who}: “{reason}”.")
    best = record.best
    if best is not None:
        return Chosen(best, False, f"{NOT_YET} {about(best)} kimg, the lowest FD of {len(record.scores)} snapshots.")
    if record.snapshots:
        last = record.snapshots[-1]
        return Chosen(last, False, f"{NOT_YET} {about(last)} kimg, the last of {len(record.snapshots)} snapshots.")
    return None


def summary(record: RunRecord, choice: Chosen | None, sure: Certainty | None) -> list[str]:
    """What, on which data, how good, where it stopped, which checkpoint and why: a sentence each."""
    sentences = [_what(record), *_how_good(record, choice, sure)]
    return [*sentences, choice.why] if choice else [*sentences, "There is no snapshot yet."]


def _what(record: RunRecord) -> str:
    total = float(record.setting("kimg") or 0)
    far = {
        "done": f"has seen all {about(record.kimg)} thousand real images that it was to see",
        "training": f"is training: {about(record.kimg)} of {about(total)} thousand real images so far",
        "stopped": f"stopped after {about(record.kimg)} of {about(total)} thousand real images",
    }[record.state]
    took = f", in about {duration(record.seconds)}" if record.seconds else ""
    return (
        f"A {record.setting('preset')} GAN with the {record.setting('loss')} loss on {data_name(record)} {far}{took}."
    )


def _how_good(record: RunRecord, choice: Chosen | None, sure: Certainty | None) -> list[str]:
    best = record.best
    if best is None:
        return ["No snapshot was scored: none was reached, or the validation split is too small to measure."]
    scores = record.scores
    first, last = next(iter(scores)), next(reversed(scores))
    measure = distance("FD/Tr", scores[best].extractor)
    came = "" if first == best else f", down from {scores[first].share:.4f} at {about(first)}"
    below = "below" if scores[best].share <= GATE_LIMIT else "above"
    told = [
        f"Its samples are nearest to unseen real ones at {about(best)} kimg: {measure} {scores[best].share:.4f}{came}, "
        f"and {below} the {GATE_LIMIT:g} that the gate asks for."
    ]
    if sure is not None and choice is not None:
        width = CONFIDENT * sure.error
        alike = sum(abs(score.share - scores[best].share) <= width for score in scores.values())
        told.append(f"That is sure to ± {width:.4f}: {alike} of {len(scores)} snapshots are as good as the best.")
    if len(scores) > 1 and best == last:
        told.append("It was still getting better at the end: more images may help.")
    elif scores[last].share > WORSE * scores[best].share:
        told.append(f"After that it got worse: {scores[last].share:.4f} at the end.")
    return told


def relation_sentences(found: Sequence[Relation]) -> list[str]:
    """What the rank correlations of both losses with FD say."""
    told = []
    for relation in found:
        name = f"{relation.player}'s loss"
        if relation.levels <= -TELLING:
            told.append(f"{name} rose while the samples got better ({relation.levels:+.2f}).")
        elif relation.levels < TELLING:
            told.append(f"{name} moved without regard to FD ({relation.levels:+.2f}).")
        elif relation.changes < TELLING:
            drift = f"but its changes from one snapshot to the next say little of FD's ({relation.changes:+.2f})"
            told.append(f"{name} drifted down together with FD ({relation.levels:+.2f}), {drift}.")
        else:
            told.append(
                f"{name} did fall with FD in this run ({relation.levels:+.2f}); do not count on it in the next."
            )
    return told


def neighbours_sentence(found: Neighbours) -> str:
    """Whether samples are nearer to the training images than unseen real images are."""
    share, upper = found.replay.share, found.replay.upper
    verdict = (
        "it shows no sign of memorising" if share <= Policy().max_replay else "it may be repeating training images"
    )
    return (
        f"{share:.1%} of {found.compared} samples (at most {upper:.1%}, with 95 % confidence) are nearer to a "
        f"training image than all but 0.5 % of {found.held_out} unseen real images are: by pixels {verdict}. The "
        f"median distance is {found.median:.1f} levels of 255 for samples, {found.median_held_out:.1f} for unseen ones."
    )


def data_name(record: RunRecord) -> str:
    """The data set as a person calls it: a name, or the last part of a path."""
    return Path(str(record.setting("data"))).name or "?"


def about(kimg: float) -> str:
    """A position in a run as a person says it: 1050, 62.5, 0.32."""
    return f"{kimg:,.0f}" if kimg >= 100 else f"{kimg:.3g}"
