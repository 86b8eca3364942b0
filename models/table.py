"""Reads a table of numbers from a CSV file. Knows nothing of splits or of what the columns mean."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.errors import DataError
from models.inventory import NAMED_AT_MOST, Inventory, Read, named

SUFFIXES = (".csv", ".tsv")
DELIMITERS = ",;\t"
MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "?"})

Rows = list[tuple[int, list[str]]]  # (line number from 1, cells)


def read_csv(path: Path) -> Read:
    """Every row a sample [d] float32. A first row that holds no number at all names the columns.

    Cells are divided by commas, semicolons or tabs, whichever the first row has most of; numbers are as Python reads
    them, with a decimal point. Empty lines are passed over.

    Raises:
        DataError: it cannot be read, a column holds no numbers (named), values are missing (rows named), rows have
            different lengths, or there is no row at all.
    """
    rows = _rows(path)
    header = None if any(_number(cell) is not None for cell in rows[0][1]) else [c.strip() for c in rows.pop(0)[1]]
    width = len(header) if header is not None else len(rows[0][1]) if rows else 0
    names = header if header is not None else [f"column {i + 1}" for i in range(width)]
    if not rows:
        raise DataError(f"{path}: holds a header and no rows", field="data")
    if ragged := [f"line {line} has {len(cells)}" for line, cells in rows if len(cells) != width]:
        raise DataError(f"{path}: the first row has {width} cells, but {named(ragged)}", field="data")
    values = _values(path, rows, names)
    told = ", ".join(names[:NAMED_AT_MOST]) + (f" and {width - NAMED_AT_MOST} more" if width > NAMED_AT_MOST else "")
    facts = (f"columns: {told}" if header is not None else f"columns: {width}, without names",)
    return Read(values, None, None, Inventory(form="a CSV file", facts=facts))


def _rows(path: Path) -> Rows:
    """All rows that are not empty; never none."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        first = next((line for line in text.splitlines() if line.strip()), "")
        delimiter = max(DELIMITERS, key=first.count)
        reader = csv.reader(text.splitlines(), delimiter=delimiter, strict=True)
        rows = [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a readable CSV file in UTF-8 ({error})", field="data") from error
    if not rows:
        raise DataError(f"{path}: holds no rows", field="data")
    return rows


def _values(path: Path, rows: Rows, names: Sequence[str]) -> NDArray[np.float32]:  # -> [N, d]
    """All cells as numbers; what is wrong is told by column and by row, the columns first."""
    values = np.empty((len(rows), len(names)))
    wrong: dict[str, str] = {}
    missing: list[str] = []
    for i, (line, cells) in enumerate(rows):
        for j, cell in enumerate(cells):
            number = _number(cell)
            if number is not None:
                values[i, j] = number
            elif cell.strip().lower() in MISSING:
                missing.append(f"line {line}, {names[j]}")
            else:
                wrong.setdefault(names[j], f"{names[j]} (line {line}: {cell.strip()[:30]!r})")
    if wrong:
        raise DataError(f"{path}: columns that are not numbers: {named(list(wrong.values()))}", field="data")
    if missing:
        raise DataError(
            f"{path}: {len(missing)} values are missing: {named(missing)}; fill them or leave those rows out",
            field="data",
        )
    with np.errstate(over="ignore"):  # what float32 cannot hold is infinite there, and refused for that
        return values.astype(np.float32)


def _number(cell: str) -> float | None:
    """A cell as a number; None for text, for what is missing, and for what is not finite."""
    try:
        number = float(cell)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
