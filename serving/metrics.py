"""The one file that publishes numbers as metrics. Knows nothing of how they come about.

No label value can be invented by a client: routes are templates, methods and statuses come from fixed sets, models
from the repository. The registry belongs to the application, so that two can live in one process.
"""

from collections.abc import Callable, Set
from typing import Literal

from prometheus_client import (
    GC_COLLECTOR,
    CollectorRegistry,
    Counter,
    Gauge,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from models.version import code_version
from serving.quality_metrics import QualityMetrics
from serving.tally import Counts, Histograms, Labels

CONTENT_TYPE = CONTENT_TYPE_LATEST
MEDIA_TYPE = CONTENT_TYPE.removesuffix("; charset=utf-8")  # for Litestar, which adds the charset itself
METHODS = frozenset({"GET", "HEAD", "POST", "OPTIONS", "PUT", "PATCH", "DELETE"})
UNMATCHED = "unmatched"
QUEUE, INFERENCE, ENCODE = ("queue",), ("inference",), ("encode",)
CLIENT_LEFT = 499

REQUEST_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
STAGE_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """All metrics of one application."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # series that nobody reads
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.registry.register(GC_COLLECTOR)
        self._shown: dict[str, list[tuple[Gauge, tuple[str, ...]]]] = {}  # series of each model's serving version
        self._recalled: dict[str, tuple[list[float], list[float]]] = {}  # what is counted for each model's hits
        self._ended: dict[tuple[str, str, int], tuple[list[float], Labels]] = {}  # and for each kind of answer
        self._requests(self.registry)
        self._work(self.registry)
        self._cache(self.registry)
        self._models(self.registry)
        self._state(self.registry)
        self.quality = QualityMetrics(self.registry)

    def exposition(self) -> bytes:
        """The text format that Prometheus scrapes."""
        return generate_latest(self.registry)

    # Requests.

    def request_ended(self, route: str, method: str, status: int, seconds: float) -> None:
        """A request was answered, or its client left (status 499)."""
        kind = (route, method, status)
        ended = self._ended.get(kind)
        if ended is None:
            labels = (route, method if method in METHODS else "other", str(status))
            ended = (self._requests_total.series(labels), labels)
            if method in METHODS:
                self._ended[kind] = ended
        ended[0][0] += 1.0
        self._request_seconds.observe(ended[1], seconds)

    def watch_requests(self, in_progress: Callable[[], float]) -> None:
        """Where the number of requests being answered is read at each scrape."""
        self._in_progress.set_function(in_progress)

    # Work: the Observer of serving.batcher, and the other stages.

    def batch_ran(self, model: str, images: int, seconds: float) -> None:
        """A batch of a model ended well."""
        self._stage_seconds.observe(INFERENCE, seconds)
        self._batch_images.observe((), images)
        self._images_generated.inc((model,), images)

    def waited(self, seconds: float) -> None:
        """A caller's first image started after this long in the queue."""
        self._stage_seconds.observe(QUEUE, seconds)

    def encoded(self, seconds: float) -> None:
        """An answer was encoded."""
        self._stage_seconds.observe(ENCODE, seconds)

    def rejected(self, images: int, reason: str) -> None:
        """Images were not taken ("full"; "wait": they would be late), or left unrun ("deadline")."""
        self._rejected_images.inc((reason,), images)

    def served(self, model: str, images: int) -> None:
        """Images left in an answer."""
        self._images_served.inc((model,), images)

    def recalled(self, model: str, images: int) -> None:
        """Images left in an answer that was kept whole."""
        series = self._recalled.get(model)
        if series is None:
            found, served = self._cache_requests.series(("local", "hit")), self._images_served.series((model,))
            series = self._recalled[model] = (found, served)
        series[0][0] += images
        series[1][0] += images

    def watch_queue(self, waiting: Callable[[], float], limit: int, wait_seconds: Callable[[], float]) -> None:
        """Where the queue's depth in images and in time is read at each scrape, and its bound."""
        self._queue_images.set_function(waiting)
        self._queue_limit.set(limit)
        self._queue_wait.set_function(wait_seconds)

    # Workers, where HTTP has processes of its own.

    def watch_workers(self, up: Callable[[], float]) -> None:
        """Where the number of workers that are up is read at each scrape."""
        self._workers.set_function(up)

    def worker_restarted(self) -> None:
        """A worker ended unasked and is started again."""
        self._worker_restarts.inc()

    # Stock: the StockObserver of serving.stock.

    def stocked(self, model: str, images: int) -> None:
        """So many images of a model are ready."""
        self._stock_images.labels(model).set(images)
        self._stock_served.inc((model,), 0)  # so that the first one is an increase

    def stock_served(self, model: str) -> None:
        """An image made ahead was handed out."""
        self._stock_served.inc((model,))

    # Cache: the CacheObserver of serving.cache.

    def looked_up(self, tier: Literal["local", "redis"], result: Literal["hit", "miss", "error"], images: int) -> None:
        """`images` lookups in a tier ended this way."""
        if images:
            self._cache_requests.inc((tier, result), images)

    def expect_tier(self, tier: Literal["local", "redis"]) -> None:
        """A tier will be asked: its series begin at 0, so that the first error is an increase."""
        for result in ("hit", "miss", "error"):
            self._cache_requests.inc((tier, result), 0)

    def available(self, tier: Literal["local", "redis"], yes: bool) -> None:
        """A tier became usable, or stopped being so."""
        self._cache_available.labels(tier).set(yes)

    def watch_cache(self, size: Callable[[], float], entries: Callable[[], float]) -> None:
        """Where the local tier's size is read at each scrape."""
        self._cache_bytes.labels("local").set_function(size)
        self._cache_entries.labels("local").set_function(entries)

    # Models.

    def model_live(
        self,
        model: str,
        *,
        version: int,
        digest: str,
        provider: str,
        numerics: str,
        when: float,
        fd: tuple[str, float] | None,
    ) -> None:
        """A version became the one that answers for its name; `fd` is (extractor, value) of its verdict."""
        for gauge, labels in self._shown.pop(model, []):
            gauge.remove(*labels)
        info = (model, str(version), digest, provider, numerics)
        shown: list[tuple[Gauge, tuple[str, ...]]] = [(self._model_info, info)]
        self._model_info.labels(*info).set(1)
        self._model_loaded.labels(model).set(when)
        self._load_failures.labels(model)  # so that the first failure is an increase
        if fd is not None:
            labels = (model, str(version), fd[0])
            shown.append((self._model_fd, labels))
            self._model_fd.labels(*labels).set(fd[1])
        self._shown[model] = shown

    def unjudged(self, models: Set[str], without_verdict: Set[str]) -> None:
        """Of the models that are loaded, those with a loaded version that has no passing verdict."""
        self._model_unjudged.clear()
        for model in models:
            self._model_unjudged.labels(model).set(model in without_verdict)

    def load_failed(self, model: str) -> None:
        """A version could not be loaded; what served before still does."""
        self._load_failures.labels(model).inc()

    def variants_passed_over(self, models: Set[str], without_variant: Set[str]) -> None:
        """Of the models that are loaded, those that run without the variant that their promotion promised."""
        self._variant_fallback.clear()
        for model in models:
            self._variant_fallback.labels(model).set(model in without_variant)

    def provider_fell_back(self, yes: bool) -> None:
        """Whether a model runs on another provider than the first one asked for."""
        self.provider_fallback.set(yes)

    def _requests(self, registry: CollectorRegistry) -> None:
        labels = ("route", "method", "status")
        self._requests_total = Counts(
            "genserve_requests", "Requests answered; 499 where the client left.", labels, registry=registry
        )
        self._request_seconds = Histograms(
            "genserve_request_duration_seconds",
            "From the first byte of a request to the last of its answer.",
            labels,
            buckets=REQUEST_BUCKETS,
            registry=registry,
        )
        self._in_progress = Gauge("genserve_requests_in_progress", "Requests being answered.", registry=registry)

    def _work(self, registry: CollectorRegistry) -> None:
        self._stage_seconds = Histograms(
            "genserve_stage_duration_seconds",
            "Time by stage: queue (a caller's first image), inference (a batch), encode (an answer).",
            ("stage",),
            buckets=STAGE_BUCKETS,
            registry=registry,
        )
        for stage in (QUEUE, INFERENCE, ENCODE):
            self._stage_seconds.start(stage)
        self._batch_images = Histograms(
            "genserve_batch_size_images",
            "Images in one call of a network.",
            (),
            buckets=BATCH_BUCKETS,
            registry=registry,
        )
        self._batch_images.start(())
        self._queue_images = Gauge("genserve_queue_images", "Images waiting for an engine.", registry=registry)
        self._queue_limit = Gauge("genserve_queue_limit_images", "Bound of the queue.", registry=registry)
        self._queue_wait = Gauge(
            "genserve_queue_wait_seconds",
            "Until all that waits and runs now is done, by the engines' measured speed.",
            registry=registry,
        )
        self._rejected_images = Counts(
            "genserve_queue_rejected_images",
            "Images not taken (full; wait: they would be late) or not run in time (deadline).",
            ("reason",),
            registry=registry,
        )
        for reason in ("full", "wait", "deadline"):
            self._rejected_images.inc((reason,), 0)
        self._stock_images = Gauge("genserve_stock_images", "Images made ahead.", ("model",), registry=registry)
        self._stock_served = Counts(
            "genserve_stock_served", "Images made ahead that answered a request.", ("model",), registry=registry
        )
        self._images_generated = Counts(
            "genserve_images_generated", "Samples that engines computed.", ("model",), registry=registry
        )
        self._images_served = Counts("genserve_images_served", "Samples in answers.", ("model",), registry=registry)

    def _cache(self, registry: CollectorRegistry) -> None:
        self._cache_requests = Counts(
            "genserve_cache_requests", "Samples looked up.", ("tier", "result"), registry=registry
        )
        self.expect_tier("local")
        self._cache_bytes = Gauge("genserve_cache_bytes", "Bytes kept.", ("tier",), registry=registry)
        self._cache_entries = Gauge("genserve_cache_entries", "Entries kept.", ("tier",), registry=registry)
        self._cache_available = Gauge(
            "genserve_cache_available", "0 while the tier is left alone after failures.", ("tier",), registry=registry
        )

    def _models(self, registry: CollectorRegistry) -> None:
        self._model_info = Gauge(
            "genserve_model_info",
            "1 for the version that answers for a name.",
            ("model", "version", "digest", "provider", "numerics"),
            registry=registry,
        )
        self._model_fd = Gauge(
            "genserve_model_fd",
            "Fréchet distance of the serving version, from its verdict.",
            ("model", "version", "extractor"),
            registry=registry,
        )
        self._model_unjudged = Gauge(
            "genserve_model_unjudged",
            "1 where a version without a passing verdict is loaded, on demand ones included.",
            ("model",),
            registry=registry,
        )
        self._load_failures = Counter(
            "genserve_model_load_failures", "Versions that could not be loaded.", ("model",), registry=registry
        )
        self._model_loaded = Gauge(
            "genserve_model_loaded_timestamp_seconds",
            "When the serving version was loaded.",
            ("model",),
            registry=registry,
        )
        self._variant_fallback = Gauge(
            "genserve_variant_fallback",
            "1 where a model runs without the variant that its promotion promised for this provider.",
            ("model",),
            registry=registry,
        )
        self.provider_fallback = Gauge(
            "genserve_provider_fallback",
            "1 where a model runs on another provider than the first one asked for.",
            registry=registry,
        )

    def _state(self, registry: CollectorRegistry) -> None:
        self.ready = Gauge("genserve_ready", "What /health/ready says.", registry=registry)
        self.draining = Gauge("genserve_draining", "1 after SIGTERM.", registry=registry)
        self._workers = Gauge("genserve_workers", "HTTP processes that are up.", registry=registry)
        self._workers.set(1)  # this one
        self._worker_restarts = Counter(
            "genserve_worker_restarts", "HTTP processes that ended unasked and were started again.", registry=registry
        )
        info = Gauge("genserve_build_info", "1, with the version of the program.", ("version",), registry=registry)
        info.labels(code_version()).set(1)
