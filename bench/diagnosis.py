"""Whether the diagnosis finds what a run was built to have, and keeps quiet on healthy runs.

    python -m bench.diagnosis [--set study] [--only NAME ...] [--runs FOLDER] [--seconds S] [--json FILE]

Every run is `genserve train` as a person gives it, tiny. Thresholds were set on the runs of `--set tuning` alone; those
of `--set study` differ from them in data, networks or settings. A fault is found if its verdict stands at the run's
end; a false alarm is any alarm at any time of a healthy run. Runs that are in the folder already are judged and not
trained again, so `--seconds` cuts the work into pieces. That a collapsed run has lost anything is counted without the
diagnosis: by the labels of the real samples that its own are nearest to.
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

import numpy as np

from bench.diagnosis_cases import HEALTHY, SETS, Case, data_path
from bench.machine import describe
from genserve.cli import main as genserve
from models.bins import SCARCE
from models.mixtures import GRID, RING
from trainer.diagnosis import COLLAPSE, diagnose
from trainer.exporting import load_generator
from trainer.run_data import load_run_data
from trainer.run_dir import RunDir
from trainer.run_records import RunRecord
from trainer.selection import sample
from trainer.signatures import signature_of

MODES = {"ring": RING, "grid": GRID}
NUM_KNOWN, NUM_CLASSIFIED = 6000, 2000  # real samples with labels, generated ones without


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


def kinds_lost(record: RunRecord) -> str | None:
    """How many of the data's classes or modes a run's last snapshot has less than a fifth of, as "3 of 10"; None where
    the data have neither. A sample's class is that of the nearest of 6,000 training samples, as they are served.
    """
    from sklearn.neighbors import KNeighborsClassifier  # type: ignore[import-untyped]  # it publishes no types

    run_dir = RunDir(record.path)
    run = run_dir.read()
    real = load_run_data(run).split("train")
    labels = real.labels
    if labels is None and run.config.data in MODES:
        labels = (
            np.square(np.asarray(real.samples)[:, None] - np.array(MODES[run.config.data].centres)).sum(2).argmin(1)
        )
    if labels is None:
        return None
    G = load_generator(run_dir, run, run_dir.snapshots()[-1])
    samples = sample(G, signature_of(run.config, run.shape, run.classes), np.arange(NUM_CLASSIFIED))
    rows = [np.asarray(part, np.float32).reshape(len(part), -1) for part in (real.samples[:NUM_KNOWN], samples)]
    found = KNeighborsClassifier(1).fit(rows[0], labels[:NUM_KNOWN]).predict(rows[1])
    counts = [np.bincount(side, minlength=int(labels.max()) + 1) for side in (labels, found)]
    shares = [count / count.sum() for count in counts]
    return f"{int((shares[1] < SCARCE * shares[0]).sum())} of {len(shares[0])}"


def judge(case: Case, record: RunRecord) -> dict[str, object]:
    """What a run was built for, what was said of it, and whether that is right."""
    said, ever = [verdict.name for verdict in record.verdicts], alarms(record)
    right = not ever if case.expected == HEALTHY else case.expected in said
    shares = [score.share for score in record.scores.values()]
    return {
        "name": case.name, "expected": case.expected, "data": case.data, "right": right, "said": said, "ever": ever,
        "evidence": [verdict.evidence for verdict in record.verdicts], "kimg": record.kimg,
        "lost": kinds_lost(record) if case.expected == COLLAPSE else None,
        "first FD/Tr": shares[0] if shares else None, "last FD/Tr": shares[-1] if shares else None,
    }  # fmt: skip


def line(row: dict[str, object]) -> str:
    """A run for a person."""
    said, ever = (", ".join(map(str, row[key])) for key in ("said", "ever"))  # type: ignore[call-overload]
    lost, before = f" (kinds lost: {row['lost']})" if row["lost"] else "", f" (ever: {ever})" if ever else ""
    mark = "right" if row["right"] else "WRONG"
    return f"{mark}  {row['name']}: built for {row['expected']}{lost}; said {said}{before}"


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
