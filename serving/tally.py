"""Counters and histograms for what is counted at every request, on one thread. Knows no names of metrics.

prometheus_client takes 4 us for an observation: a lock for each number, so that any thread may count. Here only the
event loop counts, and a scrape reads what is there; exposition stays the library's.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

Labels = tuple[str, ...]


class Counts(Collector):
    """A counter for each combination of labels.

    Args:
        name: without _total.
        documentation: for people.
        labels: their names.
        registry: that exposes it.
    """

    def __init__(self, name: str, documentation: str, labels: Labels, *, registry: CollectorRegistry) -> None:
        self._about = (name, documentation, labels)
        self._series: dict[Labels, list[float]] = {}
        registry.register(self)

    def inc(self, labels: Labels, by: float = 1.0) -> None:
        """Count `by` more; 0 makes the series visible."""
        self.series(labels)[0] += by

    def series(self, labels: Labels) -> list[float]:
        """The one number of a series, for whoever counts in it often; visible from now on."""
        series = self._series.get(labels)
        if series is None:
            series = self._series[labels] = [0.0]
        return series

    def collect(self) -> Iterable[Metric]:
        """See prometheus_client."""
        name, documentation, labels = self._about
        family = CounterMetricFamily(name, documentation, labels=labels)
        for values, (count,) in self._series.items():
            family.add_metric(values, count)
        return [family]


class Histograms(Collector):
    """A histogram for each combination of labels.

    Args:
        name: with its unit.
        documentation: for people.
        labels: their names.
        buckets: upper bounds, ascending; +Inf is added.
        registry: that exposes it.
    """

    def __init__(
        self, name: str, documentation: str, labels: Labels, *, buckets: Sequence[float], registry: CollectorRegistry
    ) -> None:
        self._about = (name, documentation, labels)
        self._bounds = [float(bound) for bound in buckets]
        self._series: dict[Labels, list[float]] = {}  # observations in each bucket and above all, then their sum
        registry.register(self)

    def observe(self, labels: Labels, value: float) -> None:
        """One more observation; a bound belongs to the bucket below it."""
        series = self._series.get(labels)
        if series is None:
            series = self.start(labels)
        series[bisect_left(self._bounds, value)] += 1
        series[-1] += value

    def start(self, labels: Labels) -> list[float]:
        """Make a series visible before its first observation."""
        series = self._series[labels] = [0.0] * (len(self._bounds) + 2)
        return series

    def collect(self) -> Iterable[Metric]:
        """See prometheus_client."""
        name, documentation, labels = self._about
        family = HistogramMetricFamily(name, documentation, labels=labels)
        names = [*map(floatToGoString, self._bounds), "+Inf"]
        for values, series in self._series.items():
            below, buckets = 0.0, []
            for bound, count in zip(names, series[:-1], strict=True):
                below += count
                buckets.append((bound, below))
            family.add_metric(values, buckets, sum_value=series[-1])
        return [family]
