"""Every shipped model under the whole battery, real data beside, as its own verdict says: the table in docs/judging.md.

python -m bench.shipped
"""

import re

from models.records import Number, Verdict
from models.repository import ZOO, Repository

FEATURES = re.compile(r"\[[^\]]*@[^\]]*\]")  # the extractor's label; other brackets name where replay was looked for


def verdicts(repository: Repository) -> dict[str, Verdict]:
    """By name, what every champion was promoted with."""
    found = {}
    for name in repository.names():
        verdict = repository.passing(repository.resolve(name))
        if verdict is not None:
            found[name] = verdict
    return found


def rows(of: dict[str, Verdict]) -> list[str]:
    """The table in Markdown: a row for each measure, two columns for each model; single classes are left out."""
    measures: dict[str, None] = {}
    for verdict in of.values():
        for key in verdict.numbers:
            if not key.startswith(("real ", "share of ")):
                measures.setdefault(FEATURES.sub("", key))
    lines = ["| measure |" + "".join(f" {name} | real |" for name in of), "|---|" + "---|---|" * len(of)]
    for measure in measures:
        cells = [_cells(verdict, measure) for verdict in of.values()]
        lines.append(f"| {measure} | " + " | ".join(f"{own} | {real}" for own, real in cells) + " |")
    return lines


def _cells(verdict: Verdict, measure: str) -> tuple[str, str]:
    by_name = {FEATURES.sub("", key): number for key, number in verdict.numbers.items()}
    return _told(by_name.get(measure)), _told(by_name.get(f"real {measure}"))


def _told(number: Number | None) -> str:
    if number is None:
        return ""
    if number.low is not None and number.high is not None:
        return f"{number.value:.4g} ({number.low:.4g} .. {number.high:.4g})"
    return f"{number.value:.4g}" + (f" (<= {number.high:.4g})" if number.high is not None else "")


def main() -> None:
    """Print the table."""
    print("\n".join(rows(verdicts(Repository(ZOO)))))


if __name__ == "__main__":
    main()
