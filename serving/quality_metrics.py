"""Publishes what the monitor and the shadow see: see serving.metrics, of which this is a part."""

from prometheus_client import CollectorRegistry, Counter, Gauge

from serving.shadow_pair import Levels
from serving.tally import Histograms
from serving.watch import Shown, State

IMAGE_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
ROLES = ("champion", "candidate")


class QualityMetrics:
    """The MonitorObserver of serving.monitor and the ShadowObserver of serving.shadow.

    Args:
        registry: the application's.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._monitor(registry)
        self._shadow(registry)

    # The monitor.

    def monitored(self, model: str, images: int) -> None:
        """So many images were drawn to be looked at."""
        self._images.labels(model).inc(images)

    def looked(self, model: str, *, expected: float, shown: Shown | None, evidence: float) -> None:
        """What the last blocks say."""
        self._expected.labels(model).set(expected)
        self._evidence.labels(model).set(evidence)
        _show(self._fd, model, shown)

    def judged(self, model: str, state: State) -> None:
        """What is thought of a model."""
        self._alarm.labels(model).set(state is not State.WELL)
        self._unfit.labels(model).set(state is State.FAILED)
        self._alarms.labels(model)  # so that the first one is an increase
        self._images.labels(model)

    def alarmed(self, model: str) -> None:
        """There was an alarm."""
        self._alarms.labels(model).inc()

    def unwatched(self, model: str) -> None:
        """A model is watched no more."""
        for gauge in (self._fd, self._expected, self._evidence, self._alarm, self._unfit):
            gauge.remove_by_labels({"model": model})

    # The shadow.

    def shadowing(self, model: str, version: int, memory_bytes: float) -> None:
        """A candidate was loaded to shadow a model."""
        self._info.labels(model, str(version)).set(1)
        self._memory.labels(model).set(memory_bytes)
        for counter in (self._shadowed, self._dropped, self._errors):
            counter.labels(model)

    def shadow_ended(self, model: str) -> None:
        """A model has no candidate beside it any more."""
        for gauge in (self._info, self._memory, self._level, self._deviation, self._shadow_fd):
            gauge.remove_by_labels({"model": model})

    def shadowed(self, model: str, images: int, *, seconds: tuple[float, float], levels: tuple[Levels, Levels]) -> None:
        """A candidate ran."""
        self._shadowed.labels(model).inc(images)
        for role, spent, level in zip(ROLES, seconds, levels, strict=True):
            self._seconds.observe((model, role), spent)
            self._level.labels(model, role).set(level.mean)
            self._deviation.labels(model, role).set(level.deviation)

    def shadow_fd(self, model: str, shown: Shown) -> None:
        """The candidate's distance to the champion's real samples."""
        _show(self._shadow_fd, model, shown)

    def shadow_dropped(self, model: str, images: int) -> None:
        """Images were not run on a candidate."""
        self._dropped.labels(model).inc(images)

    def shadow_failed(self, model: str) -> None:
        """A candidate could not be loaded, or failed."""
        self._errors.labels(model).inc()

    def _monitor(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, documentation: str, *labels: str) -> Gauge:
            return Gauge(f"genserve_monitor_{name}", documentation, ("model", *labels), registry=registry)

        self._fd = gauge("fd", "Distance of fresh samples to the promotion's real ones, without bias.", "bound")
        self._expected = gauge("fd_expected", "The same distance when the version was judged.")
        self._evidence = gauge("evidence", "That a model became worse: 0 for none, 1 for an alarm; logarithmic.")
        self._alarm = gauge("alarm", "1 from an alarm until fresh samples of the reloaded model are well.")
        self._unfit = gauge("unfit", "1 where loading the model again did not help: not ready.")
        self._images = Counter(
            "genserve_monitor_images", "Fresh samples looked at in idle time.", ("model",), registry=registry
        )
        self._alarms = Counter("genserve_monitor_alarms", "Alarms raised.", ("model",), registry=registry)

    def _shadow(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, documentation: str, *labels: str) -> Gauge:
            return Gauge(f"genserve_shadow_{name}", documentation, ("model", *labels), registry=registry)

        def counter(name: str, documentation: str) -> Counter:
            return Counter(f"genserve_shadow_{name}", documentation, ("model",), registry=registry)

        self._info = gauge("info", "1 for the candidate that runs beside a champion.", "version")
        self._memory = gauge("memory_bytes", "By which loading the candidate made this process larger.")
        self._shadowed = counter("images", "Images that candidates ran; none of them answered anybody.")
        self._dropped = counter(
            "dropped_images", "Images of the share that were not run, for want of idle time or a champion loaded anew."
        )
        self._errors = counter("errors", "Candidates that could not be loaded, and runs that failed.")
        self._seconds = Histograms(
            "genserve_shadow_image_seconds",
            "Engine time of an image, of champion and candidate, of the same requests.",
            ("model", "role"),
            buckets=IMAGE_BUCKETS,
            registry=registry,
        )
        self._level = gauge("level_mean", "Mean of all values of the same images, by champion and candidate.", "role")
        self._deviation = gauge("level_deviation", "Standard deviation of the same values.", "role")
        self._shadow_fd = gauge("fd", "Distance of the candidate's samples to the champion's real ones.", "bound")


def _show(gauge: Gauge, model: str, shown: Shown | None) -> None:
    """A value and its interval; what is not known is not there."""
    if shown is None:
        gauge.remove_by_labels({"model": model})
        return
    for bound, value in shown._asdict().items():
        gauge.labels(model, bound).set(value)
