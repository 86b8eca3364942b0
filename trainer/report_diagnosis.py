"""The report's section on what is the matter with a run: verdicts, evidence, what to try, and since when."""

from collections.abc import Sequence
from html import escape
from itertools import groupby
from typing import NamedTuple

from models.binomial import Share, share_of
from trainer.report_curves import Plot, Scale
from trainer.report_words import about
from trainer.run_records import RunRecord
from trainer.signals import Checkup, Stats

COLUMNS = (("coverage", "coverage", "fd"), ("recall", "recall", "g"), ("copies", "copies", "d"))  # of checkups
MEANING = (
    "Coverage is the share of real samples with a generated one in their neighbourhood, recall the share that lies "
    "among generated ones; copies are samples far nearer to one training sample than to any other."
)
BARS = " Bars are 95 % intervals of shares (Clopper and Pearson)."
SHARES = (
    ("precision", "precision", "samples that lie among real ones"),
    ("recall", "recall", "real ones that lie among samples"),
    ("coverage", "coverage", "real ones with a sample in their neighbourhood"),
    ("duplicates", "near-duplicates", "samples with a near-duplicate among the others"),
    ("copies", "copies", "samples far nearer to one training sample than to any other"),
)


class Span(NamedTuple):
    """What was said of a run, and from where to where, in kimg."""

    names: tuple[str, ...]
    first: float
    last: float


def spans(lines: Sequence[Stats]) -> list[Span]:
    """The run in stretches of the same verdicts, as they were given while it trained."""
    told = [line for line in lines if line.verdicts]
    stretches = (list(group) for _, group in groupby(told, key=lambda line: line.verdicts))
    return [Span(stretch[0].verdicts, stretch[0].kimg, stretch[-1].kimg) for stretch in stretches]


def diagnosis_section(record: RunRecord) -> str:
    """Every verdict of today with its evidence, those of before, and the signals of the samples."""
    cards = "".join(
        f'<article class="verdict{" alarm" if verdict.alarm else ""}"><h3>{escape(verdict.name)}</h3>'
        f"<p>{escape(verdict.evidence)}</p>{_advice(verdict.advice)}</article>"
        for verdict in record.verdicts
    )
    return f'<section id="diagnosis"><h2>Diagnosis</h2>{cards}{_before(record.lines)}{_samples(record)}</section>'


def _advice(advice: str) -> str:
    return f"<p><b>Try</b> {escape(advice)}</p>" if advice else ""


def _before(lines: Sequence[Stats]) -> str:
    stretches = spans(lines)
    if len(stretches) < 2:
        return ""
    words = [f"{' and '.join(span.names)} from {about(span.first)}" for span in stretches]
    return f'<p class="note">Through the run, in kimg: {escape("; ".join(words))}.</p>'


def _samples(record: RunRecord) -> str:
    """Coverage, recall and copies over kimg; "" before two checkups."""
    found = [(line.kimg, line.checkup) for line in record.lines if line.checkup is not None]
    if len(found) < 2:
        return ""
    plot = Plot(Scale(0.0, max(record.kimg, 1e-3)), Scale(0.0, 1.0), "kimg")
    for column, name, style in COLUMNS:
        for kimg, checkup in found:
            if bar := _interval(checkup, column):
                plot.bar(kimg, bar.low, bar.high, style)
        plot.line([kimg for kimg, _ in found], [getattr(checkup, column) for _, checkup in found], style, name)
    meaning = MEANING + (BARS if any(checkup.compared for _, checkup in found) else "")
    return (
        '<figure class="chart"><figcaption><b>What samples are like</b> <small>of the averaged generator, at snapshots'
        f'</small></figcaption>{plot.html()}<p class="note">{meaning}</p></figure>{_last(*found[-1])}'
    )


def _last(kimg: float, checkup: Checkup) -> str:
    """The last checkup's shares with their intervals; "" where its number of samples was not kept."""
    if not checkup.compared:
        return ""
    rows = [
        f"<tr><th>{name}</th><td>{bar.value:.3f}</td><td>{bar.low:.3f} to {bar.high:.3f}</td><td>{meaning}</td></tr>"
        for column, name, meaning in SHARES
        if (bar := _interval(checkup, column))
    ]
    chance = f"{checkup.copies_by_chance:.3f} of training samples are such copies of each other."
    if checkup.left_out is not None:
        chance += f" {checkup.left_out:.1%} of real samples are of kinds that generated ones leave out."
    if checkup.retrained is not None:
        chance += f" A D trained anew against this G is right in {checkup.retrained:.1%} of unseen cases."
    head = f"<th>at {about(kimg)} kimg</th><th>share</th><th>95 %</th><th>of {checkup.compared}</th>"
    return (
        f'<table id="shares"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
        f'<p class="note">{chance}</p>'
    )


def _interval(checkup: Checkup, column: str) -> Share | None:
    total = checkup.compared
    return share_of(round(getattr(checkup, column) * total), total) if total else None
