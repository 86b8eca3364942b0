"""Metrics of several processes as one: sums are exact, what is counted never goes down."""

from serving.merging import Merged, own_families
from serving.metrics import Metrics


def lines(merged):
    return merged.exposition().decode().splitlines()


def value(merged, series):
    return next(float(line.rsplit(" ", 1)[1]) for line in lines(merged) if line.startswith(series + " "))


SERIES = 'genserve_requests_total{method="POST",route="/sample",status="200"}'
DURATION = 'genserve_request_duration_seconds%s{%smethod="POST",route="/sample",status="200"}'


def worker(requests, seconds=0.002):
    metrics = Metrics()
    for _ in range(requests):
        metrics.request_ended("/sample", "POST", 200, seconds)
        metrics.looked_up("local", "hit", 2)
    metrics.watch_requests(lambda: 3)
    return own_families(metrics.registry)


def test_counters_and_histograms_of_all_processes_add_up():
    """Bucket by bucket, with the engine's own; labels that only workers have are there too."""
    engine = Metrics()
    engine.looked_up("local", "hit", 5)
    merged = Merged(engine.registry)
    merged.receive("a", worker(10))
    merged.receive("b", worker(5, seconds=0.2))
    assert value(merged, SERIES) == 15
    assert value(merged, 'genserve_cache_requests_total{result="hit",tier="local"}') == 35
    assert value(merged, DURATION % ("_count", "")) == 15
    assert value(merged, DURATION % ("_bucket", 'le="0.0025",')) == 10
    assert value(merged, DURATION % ("_bucket", 'le="+Inf",')) == 15
    buckets = [line for line in lines(merged) if line.startswith("genserve_request_duration_seconds_bucket")]
    assert 'le="0.001"' in buckets[0]
    assert 'le="+Inf"' in buckets[-1]


def test_a_report_replaces_the_one_before():
    """It holds totals, not differences: one that is lost changes nothing."""
    merged = Merged(Metrics().registry)
    merged.receive("a", worker(10))
    merged.receive("a", worker(12))
    assert value(merged, SERIES) == 12


def test_what_an_ended_worker_counted_stays_and_its_gauges_go():
    """A counter that goes down would be read as a restart."""
    merged = Merged(Metrics().registry)
    merged.receive("a", worker(10))
    merged.receive("b", worker(1))
    assert value(merged, "genserve_requests_in_progress") == 6
    merged.ended("a")
    merged.ended("unknown")
    assert value(merged, SERIES) == 11
    assert value(merged, "genserve_requests_in_progress") == 3
    merged.receive("c", worker(4))
    merged.ended("b")
    merged.ended("c")
    assert value(merged, SERIES) == 15
    assert value(merged, "genserve_requests_in_progress") == 0


def test_what_only_one_process_can_say_is_the_engines():
    """Processes' own metrics and states are not added up."""
    engine = Metrics()
    engine.ready.set(1)
    merged = Merged(engine.registry)
    other = Metrics()
    other.ready.set(1)
    merged.receive("a", own_families(other.registry))
    assert value(merged, "genserve_ready") == 1
    assert value(merged, "genserve_workers") == 1
    assert sum(line.startswith("process_start_time_seconds ") for line in lines(merged)) == 1


def test_every_family_is_there_once_and_as_the_engine_describes_it():
    """Merging changes values, nothing else."""
    engine = Metrics()
    merged = Merged(engine.registry)
    merged.receive("a", own_families(Metrics().registry))

    def comments(text):
        return [line for line in text.decode().splitlines() if line.startswith("#")]

    assert comments(merged.exposition()) == comments(engine.exposition())
