"""Metrics of several processes as one exposition: the engine's own, and what each HTTP worker counted. Knows no HTTP.

Sums are exact: counters and histograms add up, a dead worker's are kept for ever, its gauges go with it.
prometheus_client's own multiprocess mode knows no custom collectors and leaves dead workers' files behind.
"""

from collections.abc import Hashable, Iterable

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

SUMMED = ("counter", "histogram")
# Of the gauges, those of which every process has its own share.
SHARED_GAUGES = ("genserve_requests_in_progress", "genserve_cache_bytes", "genserve_cache_entries")

Series = tuple[str, tuple[tuple[str, str], ...]]  # name of a sample, its labels
Families = dict[str, list[tuple[str, tuple[tuple[str, str], ...], float]]]


def own_families(registry: CollectorRegistry) -> Families:
    """What a worker reports of its registry."""
    return {
        metric.name: [(sample.name, tuple(sample.labels.items()), sample.value) for sample in metric.samples]
        for metric in registry.collect()
        if metric.name.startswith("genserve_") and (metric.type in SUMMED or metric.name in SHARED_GAUGES)
    }


class Merged(Collector):
    """The engine's registry with the workers' numbers added to it.

    Args:
        own: the engine's; every family that a worker reports is in it too.
    """

    def __init__(self, own: CollectorRegistry) -> None:
        self._own = own
        self._workers: dict[Hashable, Families] = {}
        self._ended: dict[str, dict[Series, float]] = {}  # sums of those that ended

    def receive(self, worker: Hashable, families: Families) -> None:
        """A worker's numbers as they are now."""
        self._workers[worker] = families

    def ended(self, worker: Hashable) -> None:
        """A worker is gone: what it counted stays."""
        for name, samples in self._workers.pop(worker, {}).items():
            if name not in SHARED_GAUGES:
                _add(self._ended.setdefault(name, {}), samples)

    def collect(self) -> Iterable[Metric]:
        """Every family once."""
        for metric in self._own.collect():
            sums: dict[Series, float] = {}
            _add(sums, ((s.name, tuple(s.labels.items()), s.value) for s in metric.samples))
            for (name, labels), value in self._ended.get(metric.name, {}).items():
                _add(sums, [(name, labels, value)])
            for families in self._workers.values():
                _add(sums, families.get(metric.name, ()))
            merged = Metric(metric.name, metric.documentation, metric.type, metric.unit)
            for (name, labels), value in sums.items():
                merged.add_sample(name, dict(labels), value)
            yield merged

    def exposition(self) -> bytes:
        """The text format that Prometheus scrapes."""
        return generate_latest(self)


def _add(sums: dict[Series, float], samples: Iterable[tuple[str, tuple[tuple[str, str], ...], float]]) -> None:
    for name, labels, value in samples:
        sums[name, labels] = sums.get((name, labels), 0.0) + value
