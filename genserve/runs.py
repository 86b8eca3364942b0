"""`genserve runs`: a table that makes trainings comparable. Changes nothing, and imports no torch."""

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from genserve.table import print_table
from models.errors import GenserveError, told
from trainer.run_records import DEFAULTS, RunRecord, find_runs

NOT_COMPARED = {"preset", "loss", "kimg", "threads", "snapshot_kimg"}  # a column of its own, or no matter
HASH = "data_hash"  # in --json alone: the table says as much of it as is needed
COLUMNS = (
    "run", "state", "kimg", "of", "data", HASH, "preset", "loss", "FD/Tr", "at kimg", "extractor", "images/s",
    "verdict", "differs",
)  # fmt: skip
DAMAGED = "damaged"

Row = dict[str, object]


def runs(args: argparse.Namespace) -> int:
    """Print every run below a folder, those on the same data together and the best first; 1 if one is damaged."""
    good: list[tuple[RunRecord, Row]] = []
    damaged: list[Row] = []
    for path in find_runs(args.folder):
        try:
            record = RunRecord(path)
            good.append((record, _row(record)))
        except GenserveError as error:
            damaged.append(_fault(path, error.detail))
        except OSError as error:
            damaged.append(_fault(path, told(error)))
    for record, row in good:
        varied = _varied(record, [other for other, its in good if _content(its) == _content(row)])
        row["differs"] = " ".join(f"{name}={record.setting(name)}" for name in varied)
    rows = [row for _, row in good]
    names = _names(rows)
    rows = [*sorted(rows, key=lambda row: _rank(row, names)), *damaged]
    if args.json:
        json.dump(rows, sys.stdout, indent=2)
        print()
    elif rows:
        print_table([{key: _shown(key, row, names) for key in COLUMNS if key != HASH} for row in rows])
    else:
        print(f"no runs in {args.folder}")
    return int(bool(damaged))


def _varied(record: RunRecord, others: Sequence[RunRecord]) -> list[str]:
    """The settings that are not the same in all runs on this one's data, and not the default in this one."""
    return [
        name
        for name, default in DEFAULTS.items()
        if name not in NOT_COMPARED and record.setting(name) != default
        if len({str(other.setting(name)) for other in others}) > 1
    ]


def _row(record: RunRecord) -> Row:
    best = record.best
    score = None if best is None else record.scores[best]
    return {
        "run": str(record.path),
        "state": record.state,
        "kimg": record.kimg,
        "of": record.setting("kimg"),
        "data": record.setting("data"),
        HASH: record.file.data_hash,
        "preset": record.setting("preset"),
        "loss": record.setting("loss"),
        "FD/Tr": score.share if score else None,
        "at kimg": best,
        "extractor": score.extractor if score else None,
        "images/s": record.images_per_second,
        "verdict": ", ".join(verdict.name for verdict in record.verdicts),
    }


def _fault(path: Path, what: str) -> Row:
    """The row of a run that cannot be read."""
    return {**dict.fromkeys(COLUMNS, ""), "run": str(path), "state": DAMAGED, "differs": what}


def _content(row: Row) -> str:
    """What tells a run's data from all other: the hash of its content, or where it lay, if no hash was kept."""
    return str(row[HASH] or row["data"])


def _names(rows: Sequence[Row]) -> Mapping[str, set[str]]:
    """The contents that each name of data stands for."""
    names: dict[str, set[str]] = {}
    for row in rows:
        names.setdefault(_name(row), set()).add(_content(row))
    return names


def _name(row: Row) -> str:
    return Path(str(row["data"])).name


def _rank(row: Row, names: Mapping[str, set[str]]) -> tuple[str, str, str, float, str]:
    """Numbers compare only on the same data and by the same extractor; there the lowest comes first."""
    content, share = _content(row), row["FD/Tr"]
    first = min(name for name, contents in names.items() if content in contents)
    lowest = share if isinstance(share, float) else math.inf
    return first, content, str(row["extractor"]), lowest, str(row["run"])


def _shown(key: str, row: Row, names: Mapping[str, set[str]]) -> object:
    """A cell for a person."""
    value = row[key]
    if value is None:
        return "-"
    if isinstance(value, float):
        return {"FD/Tr": f"{value:.4f}", "images/s": f"{value:.0f}"}.get(key, f"{value:g}")
    if key == "data" and value:  # other data of the same name is not the same data
        return f"{_name(row)}@{_content(row)[:4]}" if len(names[_name(row)]) > 1 else _name(row)
    return value
