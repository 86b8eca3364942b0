"""Renders numbers as tables for a terminal. Knows nothing of how they are measured or decided."""

from collections.abc import Mapping, Sequence

from models.extractor_manifest import LadderTest
from models.figures import figure, interval
from models.gate import CLASS_SHARE, REGION
from models.judge import Report
from models.records import Number, Verdict

HEADINGS = ("measure", "value", "95 % interval", "real", "limit", "")


def format_numbers(numbers: Mapping[str, Number]) -> str:
    """A table with a line for each measure, and what real data measures in its place beside it."""
    rows = [HEADINGS]
    for name, number in numbers.items():
        if name.startswith("real "):
            continue
        real = numbers.get(f"real {name}")
        outcome = "" if number.passed is None else _outcome(number.passed)
        rows.append(
            (
                name,
                figure(number.value),
                interval(number),
                "" if real is None else figure(real.value),
                "" if number.threshold is None else figure(number.threshold),
                outcome,
            )
        )
    if any(name.startswith((CLASS_SHARE, REGION)) for name in numbers):
        return _aligned(rows)
    return f"{_aligned(rows)}\nclass shares: not applicable (this extractor does not recognise this data's classes)"


def format_report(report: Report) -> str:
    """An evaluation for a person: what was measured on what, then the table."""
    m = report.measures
    head = (
        f"{report.version} ({report.digest[:12]}) on the {report.split} split of {report.data}\n"
        f"{m.num_fake} samples against {m.num_real} real ones; KID, precision, recall, density and coverage with "
        f"{m.num_neighbours} of each\n"
    )
    parity = "" if report.parity.ok else f"\nparity: {report.parity.detail}"
    return f"{head}\n{format_numbers(report.numbers)}{parity}"


def format_verdict(name: str, verdict: Verdict) -> str:
    """A verdict for a person: the table, then the decision with its reasons."""
    against = "no champion yet" if verdict.champion is None else f"champion {name}@{verdict.champion}"
    lines = [
        f"{name}@{verdict.version} ({verdict.digest[:12]}) on the gate split",
        f"{verdict.policy.get('num_fake')} samples; {against}",
        "",
        format_numbers(verdict.numbers),
        "",
        verdict.decision.upper(),
        *(f"  {reason}" for reason in verdict.reasons),
    ]
    return "\n".join(lines)


def format_ladder(test: LadderTest) -> str:
    """A ladder's rungs for a person, each with its rise over the one before and the error of that rise."""
    rows: list[Sequence[str]] = [("fault", "strength", "FD_inf/Tr or share", "rise", "its error", "")]
    rows += [
        (rung.ladder, rung.strength, *map(figure, (rung.value, rung.rise, rung.error)), _outcome(rung.seen))
        for rung in test.rungs
    ]
    head = (
        f"{test.num_fake} validation samples of {test.data} made worse, against {test.num_real} others; as they are: "
        f"FD_inf/Tr {figure(test.clean_fd)}, replay share {figure(test.clean_replay)}"
    )
    return "\n".join([head, _aligned(rows), "PASSED" if test.passed else "FAILED", *(f"  {r}" for r in test.reasons)])


def _outcome(passed: bool) -> str:
    return "pass" if passed else "FAIL"


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows as columns: the first to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
