"""Numbers and their intervals as a person reads them. Knows nothing of what they measure."""

from models.records import Number


def interval(number: Number) -> str:
    """Of a number, or its upper bound; empty where it has none."""
    if number.low is not None and number.high is not None:
        return f"{figure(number.low)} .. {figure(number.high)}"
    return "" if number.high is None else f"<= {figure(number.high)}"


def figure(value: float) -> str:
    """Four digits."""
    return f"{value:.4g}" if abs(value) >= 0.001 or value == 0 else f"{value:.2e}"
