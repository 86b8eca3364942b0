"""`genserve runs`: a table that makes trainings comparable. Changes nothing, and imports no torch."""

import argparse
import json
import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from genserve.table import print_table
from models.errors import GenserveError
from trainer.run_records import DEFAULTS, RunRecord, find_runs

NOT_COMPARED = {"preset", "loss", "kimg", "threads", "snapshot_kimg"}  # a column of its own, or no matter
COLUMNS = (
    "run", "state", "kimg", "of", "data", "preset", "loss", "FD/Tr", "at kimg", "extractor", "images/s", "verdict",
    "differs",
)  # fmt: skip
DAMAGED = "damaged"


def runs(args: argparse.Namespace) -> int:
    """Print every run below a folder, those on the same data together and the best first; 1 if one is damaged."""
    paths = find_runs(args.folder)
    records: dict[Path, RunRecord] = {}
    damaged: dict[Path, str] = {}
    for path in paths:
        try:
            records[path] = RunRecord(path)
        except GenserveError as error:
            damaged[path] = error.detail
    rows = sorted((_row(record, _varied(record, records.values())) for record in records.values()), key=_rank)
    empty: dict[str, object] = dict.fromkeys(COLUMNS, "")
    rows += [{**empty, "run": str(path), "state": DAMAGED, "differs": fault} for path, fault in damaged.items()]
    if args.json:
        json.dump(rows, sys.stdout, indent=2)
        print()
    elif rows:
        print_table([{key: _shown(key, value) for key, value in row.items()} for row in rows])
    else:
        print(f"no runs in {args.folder}")
    return int(bool(damaged))


def _varied(record: RunRecord, records: Iterable[RunRecord]) -> list[str]:
    """The settings that are not the same in all runs on this one's data, and not the default in this one."""
    others = [other for other in records if other.setting("data") == record.setting("data")]
    return [
        name
        for name, default in DEFAULTS.items()
        if name not in NOT_COMPARED and record.setting(name) != default
        if len({str(other.setting(name)) for other in others}) > 1
    ]


def _row(record: RunRecord, varied: Sequence[str]) -> dict[str, object]:
    best = record.best
    score = None if best is None else record.scores[best]
    return {
        "run": str(record.path),
        "state": record.state,
        "kimg": record.kimg,
        "of": record.setting("kimg"),
        "data": record.setting("data"),
        "preset": record.setting("preset"),
        "loss": record.setting("loss"),
        "FD/Tr": score.share if score else None,
        "at kimg": best,
        "extractor": score.extractor if score else None,
        "images/s": record.images_per_second,
        "verdict": ", ".join(verdict.name for verdict in record.verdicts),
        "differs": " ".join(f"{name}={record.setting(name)}" for name in varied),
    }


def _rank(row: dict[str, object]) -> tuple[str, str, float, str]:
    """Numbers compare only on the same data and by the same extractor; there the lowest comes first."""
    share = row["FD/Tr"]
    return str(row["data"]), str(row["extractor"]), share if isinstance(share, float) else math.inf, str(row["run"])


def _shown(key: str, value: object) -> object:
    """A cell for a person."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return {"FD/Tr": f"{value:.4f}", "images/s": f"{value:.0f}"}.get(key, f"{value:g}")
    return Path(str(value)).name if key == "data" else value
