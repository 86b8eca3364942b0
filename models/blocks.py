"""How many rows of a distance matrix to hold at once. Knows nothing of what the rows mean."""

BLOCK_BYTES = 64 << 20


def rows_per_block(columns: int, itemsize: int = 8) -> int:
    """Rows of `columns` values that fit in 64 MiB; at least 1."""
    return max(1, BLOCK_BYTES // (itemsize * max(1, columns)))
