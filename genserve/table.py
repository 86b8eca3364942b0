"""Prints rows as columns for a terminal. Knows nothing of what they say."""

from collections.abc import Sequence


def print_table(rows: Sequence[dict[str, object]]) -> None:
    """Rows of the same keys, under their keys; nothing without rows."""
    if not rows:
        return
    widths = {key: max(len(key), *(len(str(row[key])) for row in rows)) for key in rows[0]}
    header: dict[str, object] = {key: key for key in rows[0]}
    for row in (header, *rows):
        print("  ".join(f"{row[key]!s:<{widths[key]}}" for key in widths).rstrip())
