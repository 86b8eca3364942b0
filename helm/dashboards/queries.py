"""Selectors and expressions that the rows share. Knows nothing of panels.

Counters are only ever rated; `or on() vector(0)` stands where nothing to count is the healthy state and means zero.
"""

from __future__ import annotations

POD = 'namespace=~"$namespace", job=~"$job", pod=~"$pod"'  # "All" is .*, which also matches series without the label
MODEL = f'{POD}, model=~"$model"'
CALLS = f'{POD}, route!~"/health/.*|/metrics"'  # what clients ask: not the probes, which would flatter every ratio
EACH = "{{pod}} {{instance}}"  # one line for each replica; outside Kubernetes there is no pod label
WINDOW = "$__rate_interval"


def quantile(level: float, metric: str, selector: str, *, by: str = "") -> str:
    """The expression for a quantile, 0 to 1, of the histogram `metric`, over everything or for each value of `by`."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({level}, sum by ({labels}) (rate({metric}_bucket{{{selector}}}[{WINDOW}])))"
