"""Whether the diagnosis finds what a run was built to have, and keeps quiet on healthy runs.

    python -m bench.diagnosis [--set study] [--only NAME ...] [--runs FOLDER] [--seconds S] [--json FILE]

Every run is `genserve train` as a person gives it, tiny. Thresholds were set on the runs of `--set tuning` alone; those
of `--set study` differ from them in data, networks or settings. A fault is found if its verdict stands at the run's
end; a false alarm is any alarm at any time of a healthy run. Runs that are in the folder already are judged and not
trained again, so `--seconds` cuts the work into pieces.
"""

import argparse
import contextlib
import io
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from bench.diagnosis_cases import HEALTHY, SETS, Case, data_path
from bench.machine import describe
from genserve.cli import main as genserve
from trainer.diagnosis import diagnose
from trainer.run_records import RunRecord


def train(case: Case, folder: Path) -> RunRecord:
    """Train a case where that is not done; its output goes to a file beside it."""
    run_dir = folder / case.name
    finished = folder / f"{case.name}.txt"
    if not finished.exists():
        config = folder / f"{case.name}.json"
        config.write_text(json.dumps({"data": data_path(case.data, folder / "data"), **case.settings}))
        told = io.StringIO()
        with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
            resumed = ["--resume", str(run_dir)] if run_dir.exists() else ["--config", str(config)]
            genserve(["train", *resumed, *([] if run_dir.exists() else ["--run-dir", str(run_dir)])])
        finished.write_text(told.getvalue())
    return RunRecord(run_dir)


def alarms(record: RunRecord) -> list[str]:
    """Every alarm that was ever given, by the rules of today: the run is lived through again, line by line."""
    loss = str(record.setting("loss"))
    given: dict[str, None] = {}
    for end in range(1, len(record.lines) + 1):
        given.update(dict.fromkeys(v.name for v in diagnose(record.lines[:end], loss) if v.alarm))
    return list(given)


def judge(case: Case, record: RunRecord) -> dict[str, object]:
    """What a run was built for, what was said of it, and whether that is right."""
    said, ever = [verdict.name for verdict in record.verdicts], alarms(record)
    right = not ever if case.expected == HEALTHY else case.expected in said
    shares = [score.share for score in record.scores.values()]
    return {
        "name": case.name, "expected": case.expected, "data": case.data, "right": right, "said": said, "ever": ever,
        "evidence": [verdict.evidence for verdict in record.verdicts], "kimg": record.kimg,
        "first FD/Tr": shares[0] if shares else None, "last FD/Tr": shares[-1] if shares else None,
    }  # fmt: skip


def line(row: dict[str, object]) -> str:
    """A run for a person."""
    said, ever = (", ".join(map(str, row[key])) for key in ("said", "ever"))  # type: ignore[call-overload]
    mark = "right" if row["right"] else "WRONG"
    return f"{mark}  {row['name']}: built for {row['expected']}; said {said}" + (f" (ever: {ever})" if ever else "")


def summary(rows: Sequence[dict[str, object]]) -> list[str]:
    """How many of each kind were judged rightly."""
    total, right = Counter(str(r["expected"]) for r in rows), Counter(str(r["expected"]) for r in rows if r["right"])
    return [f"{expected}: {right[expected]} of {count} right" for expected, count in total.items()]


def main() -> int:
    """Print a line for each run and how many are right; 1 if runs are left to be trained."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", choices=SETS, default="study")
    parser.add_argument("--only", nargs="+", default=[], help="cases whose names begin so")
    parser.add_argument("--runs", type=Path, help="folder of the runs, kept (default: a temporary one)")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no run after this time")
    parser.add_argument("--json", type=Path, help="keep the figures here")
    args = parser.parse_args()
    began, rows = time.monotonic(), []
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.runs or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        cases = [case for case in SETS[args.set] if not args.only or case.name.startswith(tuple(args.only))]
        for case in cases:
            late = time.monotonic() - began > args.seconds
            if late and not (folder / f"{case.name}.txt").exists():
                continue
            rows.append(judge(case, train(case, folder)))
            print(line(rows[-1]), flush=True)
    print("\n".join(summary(rows)))
    if args.json:
        args.json.write_text(json.dumps({"machine": describe(), "runs": rows}, indent=2) + "\n")
    return int(len(rows) < len(cases))


if __name__ == "__main__":
    sys.exit(main())
