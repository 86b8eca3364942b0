"""What stands behind HTTP, put together: models, caches, engines and their numbers. Knows no requests."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import partial

import structlog

from models.probing import used_provider
from models.repository import Repository, Version
from models.runtime import available_cores, default_providers, on_processor
from serving.answers import encode_samples
from serving.asgi import Reply
from serving.batcher import Batcher
from serving.cache_memory import ByteLRU, MemoryCache
from serving.cache_redis import RedisCache
from serving.catalogue import verdict_fd
from serving.inspection import Inspector
from serving.live import LiveModels
from serving.loading import LiveModel, load
from serving.metrics import Metrics
from serving.monitor import Monitor
from serving.replies import reply_of
from serving.sampler import Drawn, Sampler
from serving.schedule import Schedule
from serving.settings import PROVEN_BATCH, Settings
from serving.shadow import Shadow
from serving.stock import Stock

# Images in a batch on a processor: 16 are no faster (64 connections, three alternating runs: small 0.90 of the limit
# against 0.92, medium 1.46 against 1.52).
PROCESSOR_BATCH = 8

# Engines before a GPU. The copy to it, the run and the copy back are one step under one lock (models.binding; TensorRT
# has a lock of its own), so a second engine would only split what waits into smaller batches that run one after the
# other. All that it could do meanwhile is draw latents. Not measured, for want of a GPU.
GPU_ENGINES = 1


log = structlog.get_logger("genserve.backend")


@dataclass(frozen=True, kw_only=True)
class Backend:
    """What one process of a server has once, however many processes speak HTTP.

    Args:
        live: the models that answer.
        sampler: draws.
        metrics: where numbers go.
        publisher: tells of what is served.
        stock: what is made ahead; None for nothing.
        monitor: watches what is made in idle time; None for nobody.
        shadow: tries candidates; None for none.
        inspector: looks at samples for both.
    """

    live: LiveModels
    sampler: Sampler
    metrics: Metrics
    publisher: "Publisher"
    stock: Stock[Reply] | None
    monitor: Monitor | None
    shadow: Shadow | None
    inspector: Inspector

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Follow the repository from start to end; loading goes on while others are answered already."""
        works = {"models": self.live.follow()}
        parts = {"stock": self.stock, "monitor": self.monitor, "shadow": self.shadow}
        works |= {name: part.run() for name, part in parts.items() if part is not None}
        tasks = [asyncio.get_running_loop().create_task(work, name=name) for name, work in works.items()]
        for task in tasks:
            task.add_done_callback(_told)
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.inspector.close()
            await self.sampler.close()


def _told(task: "asyncio.Task[None]") -> None:
    """A part of the server that should run to the end has ended."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("a part of the server has ended", part=task.get_name(), exc_info=error)


def create_backend(
    settings: Settings,
    repository: Repository,
    *,
    loader: Callable[[Version], LiveModel] | None = None,
    busy: Callable[[], bool] = lambda: False,
) -> Backend:
    """A backend over a repository.

    Args:
        settings: what a person set.
        repository: the models; only read.
        loader: makes a LiveModel of a version; serving.loading.load with these settings by default.
        busy: whether somebody waits for anything that is not done here.
    """
    metrics = Metrics()
    providers = settings.providers or default_providers()
    loader = loader or partial(load, repository, providers=providers, allow_unjudged=settings.allow_unjudged)
    publisher = Publisher(metrics)
    live = LiveModels(
        repository,
        loader=loader,
        observer=publisher,
        default=settings.default_model,
        max_loaded=settings.max_loaded_versions,
        allow_unjudged=settings.allow_unjudged,
        poll_seconds=settings.poll_seconds,
    )
    schedule = make_schedule(settings, used_provider(providers))
    batcher = Batcher(schedule, observer=publisher)
    metrics.watch_queue(lambda: schedule.waiting, settings.max_queue_images, lambda: batcher.wait_seconds)
    local, shared = _caches(settings, metrics)
    stock = _stock(settings, batcher, live, metrics, busy)
    if stock is not None:
        publisher.subscribe(stock.champions_changed)
    sampler = Sampler(batcher, local, shared, None if stock is None else stock.take)
    publisher.forget = sampler.forget
    inspector = Inspector(repository)
    # Candidates may be unjudged; but where keys are trusted, what none of them vouches for is not run here at all.
    unjudged = partial(load, repository, providers=providers, allow_unjudged=not settings.trusted_keys)
    shadow = _shadow(settings, batcher, repository, unjudged, live, metrics, inspector)
    if shadow is not None:
        batcher.tap = shadow.tap
        publisher.subscribe(shadow.champions_changed)
    monitor = None
    if settings.monitor:
        monitor = Monitor(batcher, inspector, live, share=settings.monitor, observer=metrics.quality)
    return Backend(
        live=live,
        sampler=sampler,
        metrics=metrics,
        publisher=publisher,
        stock=stock,
        monitor=monitor,
        shadow=shadow,
        inspector=inspector,
    )


def make_schedule(settings: Settings, provider: str) -> Schedule:
    """Engines and batches as the provider that is really used wants them, where nobody says otherwise.

    On processors one one-thread session serves all engines: 103 % [100, 115] (small) and 100 % [89, 112] (medium) of
    the speed of a session for each, in half the memory.

    Args:
        settings: what a person set.
        provider: its full name.
    """
    engines, images = (available_cores(), PROCESSOR_BATCH) if on_processor(provider) else (GPU_ENGINES, PROVEN_BATCH)
    return Schedule(
        max_queue_images=settings.max_queue_images,
        max_batch_images=settings.max_batch_size or images,
        engines=settings.threads or engines,
    )


class Publisher:
    """Turns what the batcher and the live models report into metrics."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._subscribers: list[Callable[[], None]] = []
        self.forget: Callable[[LiveModel], None] | None = None  # called when a model was loaded once more

    def subscribe(self, changed: Callable[[], None]) -> None:
        """Call this whenever what is served, or what is known of it, may have changed."""
        self._subscribers.append(changed)

    def went_live(self, model: LiveModel) -> None:
        """A model now answers for its name."""
        self._metrics.model_live(
            model.version.name,
            version=model.version.number,
            digest=model.manifest.digest,
            provider=model.provider,
            numerics=model.numerics,
            when=model.loaded,
            fd=verdict_fd(model.verdict),
        )
        self._tell()

    def reloaded(self, model: LiveModel) -> None:
        """A model that answers was loaded once more, as what it made was wrong."""
        if self.forget is not None:
            self.forget(model)

    def load_failed(self, name: str) -> None:
        """A version of a name could not be loaded."""
        self._metrics.load_failed(name)

    def changed(self, loaded: Sequence[LiveModel]) -> None:
        """What is loaded, or what is known of it, changed."""
        names = {model.version.name for model in loaded}
        self._metrics.unjudged(names, {model.version.name for model in loaded if model.verdict is None})
        self._metrics.provider_fell_back(any(model.provider != model.asked for model in loaded))
        passed_over = {model.version.name for model in loaded if model.passed_over is not None}
        self._metrics.variants_passed_over(names, passed_over)
        self._tell()

    def batch_ran(self, network: LiveModel, images: int, seconds: float) -> None:
        """A batch ended well."""
        self._metrics.batch_ran(network.version.name, images, seconds)

    def waited(self, seconds: float) -> None:
        """A caller's first image started after this long in the queue."""
        self._metrics.waited(seconds)

    def rejected(self, images: int, reason: str) -> None:
        """Images were not taken, or left unrun."""
        self._metrics.rejected(images, reason)

    def _tell(self) -> None:
        for changed in self._subscribers:
            changed()


def _stock(
    settings: Settings, batcher: Batcher, live: LiveModels, metrics: Metrics, busy: Callable[[], bool]
) -> Stock[Reply] | None:
    if settings.stock_images == 0:
        return None
    return Stock(
        batcher,
        limit=settings.stock_images,
        champions=lambda: live.champions,
        finish=_finish,
        observer=metrics,
        busy=busy,
    )


def _shadow(
    settings: Settings,
    batcher: Batcher,
    repository: Repository,
    loader: Callable[[Version], LiveModel],
    live: LiveModels,
    metrics: Metrics,
    inspector: Inspector,
) -> Shadow | None:
    if settings.shadow_share == 0:
        return None
    return Shadow(
        batcher,
        repository,
        loader=loader,
        champions=lambda: {model.version.name: model for model in live.champions},
        share=settings.shadow_share,
        names=settings.shadow_models,
        max_loaded=settings.max_loaded_versions,
        observer=metrics.quality,
        inspector=inspector if settings.monitor else None,
    )


def _finish(model: LiveModel, drawn: Drawn) -> tuple[Drawn, Reply | None]:
    """An image with its PNG and the whole answer that it is; vectors are encoded as they are asked for."""
    if model.manifest.kind != "image":
        return drawn, None
    answer = encode_samples(model, drawn, "png", truncation=None)
    reply = reply_of(model, drawn, answer)
    reply.head()  # made now: later somebody waits for it
    return drawn._replace(png=answer.body), reply


def _caches(settings: Settings, metrics: Metrics) -> tuple[MemoryCache | None, RedisCache | None]:
    if settings.cache_bytes == 0:
        return None, None
    lru = ByteLRU(max_bytes=settings.cache_bytes, ttl_seconds=settings.cache_ttl_seconds)
    metrics.watch_cache(lambda: lru.bytes, lambda: len(lru))
    if settings.redis_url is None:
        return MemoryCache(lru, metrics), None
    metrics.expect_tier("redis")
    shared = RedisCache(
        settings.redis_url,
        timeout_seconds=settings.redis_timeout_seconds,
        ttl_seconds=settings.cache_ttl_seconds,
        observer=metrics,
    )
    return MemoryCache(lru, metrics), shared
