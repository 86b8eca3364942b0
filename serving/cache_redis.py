"""The cache that servers share: Redis, at most a few milliseconds of anybody's time. Knows nothing of other tiers.

Whatever Redis does (refuses, hangs, answers nonsense, is full), the answer is a miss. After a few failures in a row it
is left alone, and a probe in the background finds out when it is back: a dead Redis costs requests nothing.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Coroutine, Iterator, Mapping, Sequence, Sized
from typing import Any

import redis.asyncio as redis
import structlog
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from models.generator import Samples
from serving.cache import CacheObserver, Form, SampleKey, decode_entry, encode_entry, prefix, value_bytes
from serving.errors import SettingsError
from serving.offload import offload

log = structlog.get_logger("genserve.cache_redis")

FAILURES_TO_OPEN = 3
FIRST_PROBE_SECONDS, LAST_PROBE_SECONDS = 0.5, 10.0
PIECE_BYTES = 1024 * 1024
MAX_CONNECTIONS = 32
MAX_PENDING_WRITES = 64
SCAN_KEYS = 1000  # looked at in one step


class RedisCache:
    """A Cache in Redis.

    Args:
        url: redis://, rediss:// or unix://.
        timeout_seconds: the most that one lookup may take, connecting included.
        ttl_seconds: age at which Redis forgets an entry.
        observer: told of every lookup, and of the circuit.

    Raises:
        SettingsError: the URL is not one.
    """

    def __init__(self, url: str, *, timeout_seconds: float, ttl_seconds: int, observer: CacheObserver) -> None:
        self._timeout_seconds = timeout_seconds
        self._ttl_seconds = ttl_seconds
        self._observer = observer
        self._failures = 0
        self._reported: set[type[Exception]] = set()
        self._probe: asyncio.Task[None] | None = None
        self._writes: set[asyncio.Task[None]] = set()
        try:
            pool = redis.BlockingConnectionPool.from_url(
                url,
                max_connections=MAX_CONNECTIONS,
                timeout=timeout_seconds,
                socket_timeout=timeout_seconds,
                socket_connect_timeout=timeout_seconds,
                retry=Retry(NoBackoff(), 0),
                protocol=2,  # in 3 redis-py asks for notifications first, and then hands out connections that are dead
                driver_info=None,  # nor does a new connection tell its name: a lookup waits for all that
            )
        except ValueError as error:
            raise SettingsError(str(error), field="GENSERVE_REDIS_URL") from error
        self._redis = redis.Redis.from_pool(pool)
        observer.available("redis", True)

    @property
    def available(self) -> bool:
        """False while Redis is left alone after failures in a row."""
        return self._probe is None

    async def get_many(self, keys: Sequence[SampleKey], form: Form) -> dict[SampleKey, Samples]:
        """See serving.cache.Cache. In pieces of at most 1 MB: what came in time is used; a damaged entry is a miss."""
        if not self.available or not keys:
            return {}
        entries: list[Any] = []
        await self._try(self._read(keys, form, entries), entries)
        self._observer.looked_up("redis", "error", len(keys) - len(entries))
        found, damaged = await offload(len(entries) * value_bytes(form), _decoded, keys, entries, form)
        self._observer.looked_up("redis", "hit", len(found))
        self._observer.looked_up("redis", "error", damaged)
        self._observer.looked_up("redis", "miss", len(entries) - len(found) - damaged)
        return found

    async def put_many(self, samples: Mapping[SampleKey, Samples], form: Form) -> None:
        """See serving.cache.Cache. In pieces of at most 1 MB, each in the usual time."""
        if not self.available or not samples:
            return
        written: list[SampleKey] = []
        for piece in _pieces(list(samples), form):
            entries = await offload(len(piece) * value_bytes(form), _encoded, piece, samples, form)
            pipeline = self._redis.pipeline(transaction=False)
            for name, entry in entries:
                pipeline.set(name, entry, ex=self._ttl_seconds)
            if not await self._try(pipeline.execute(), written):
                return
            written += piece

    def put_later(self, samples: Mapping[SampleKey, Samples], form: Form) -> None:
        """`put_many` that nobody waits for; dropped where too many are under way."""
        if self.available and len(self._writes) < MAX_PENDING_WRITES:
            self._later(self.put_many(samples, form))

    def forget_later(self, digest: str, numerics: str) -> None:
        """Have Redis drop all samples of a model; nobody waits for it. Where it cannot, their age ends them."""
        self._later(self._forget(f"{prefix(digest, numerics)}*"))

    async def close(self) -> None:
        """See serving.cache.Cache. What is being written is given the usual time."""
        if self._writes:
            await asyncio.wait(self._writes, timeout=4 * self._timeout_seconds)
        for task in [*self._writes, *([self._probe] if self._probe else [])]:
            task.cancel()
        with contextlib.suppress(RedisError, OSError):
            await self._redis.aclose()

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)

    async def _forget(self, pattern: str) -> None:
        """Drop what matches, some at once, each step in the usual time."""
        cursors = [0]
        while await self._try(self._forget_some(pattern, cursors), ()):
            if not cursors[-1]:
                return
        log.error("redis may still have samples of a model that was loaded anew", pattern=pattern)

    async def _forget_some(self, pattern: str, cursors: list[int]) -> None:
        cursor, names = await self._redis.scan(cursors[-1], match=pattern, count=SCAN_KEYS)
        if names:
            await self._redis.unlink(*names)
        cursors.append(int(cursor))

    async def _read(self, keys: Sequence[SampleKey], form: Form, entries: list[Any]) -> None:
        """Append what Redis has for each key, piece by piece: a lookup that runs out of time keeps what came."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self._timeout_seconds
        for piece in _pieces(keys, form):
            if loop.time() > end:  # redis-py may swallow the cancellation that says so
                raise TimeoutError
            entries += await self._redis.mget([key.text() for key in piece])

    async def _try(self, call: Awaitable[object], progress: Sized) -> bool:
        """Whether the call ended well and in time; it is a failure of Redis only where there was no progress at all."""
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await call
        except ResponseError as error:  # it lives, but would not (read-only, out of memory, loading)
            self._report(error)
            return False
        except (RedisError, OSError, TimeoutError, EOFError, ValueError) as error:
            if not progress:
                self._report(error)
                self._failed()
            return False
        self._failures = 0
        return True

    def _report(self, error: Exception) -> None:
        """Say why a lookup or a write came to nothing: each sort of error once an outage."""
        if type(error) not in self._reported:
            self._reported.add(type(error))
            log.warning("redis failed", error=repr(error), timeout_seconds=self._timeout_seconds)

    def _failed(self) -> None:
        self._failures += 1
        if self._failures >= FAILURES_TO_OPEN and self._probe is None:
            self._observer.available("redis", False)
            self._probe = asyncio.get_running_loop().create_task(self._probe_until_back())

    async def _probe_until_back(self) -> None:
        """Ask every now and then, less and less often, until Redis answers."""
        pause = FIRST_PROBE_SECONDS
        while True:
            await asyncio.sleep(pause)
            pause = min(2 * pause, LAST_PROBE_SECONDS)
            try:
                async with asyncio.timeout(max(self._timeout_seconds, 0.1)):
                    await self._redis.ping()
                break
            except (RedisError, OSError, TimeoutError, EOFError, ValueError):
                continue
        self._failures = 0
        self._reported.clear()
        self._probe = None
        self._observer.available("redis", True)


def _pieces(keys: Sequence[SampleKey], form: Form) -> Iterator[Sequence[SampleKey]]:
    """The keys in pieces whose samples are at most PIECE_BYTES together, or one sample."""
    step = max(1, PIECE_BYTES // value_bytes(form))
    for start in range(0, len(keys), step):
        yield keys[start : start + step]


def _encoded(keys: Sequence[SampleKey], samples: Mapping[SampleKey, Samples], form: Form) -> list[tuple[str, bytes]]:
    return [(key.text(), encode_entry(key, samples[key], form)) for key in keys]


def _decoded(keys: Sequence[SampleKey], entries: Sequence[Any], form: Form) -> tuple[dict[SampleKey, Samples], int]:
    """The samples in the entries of the first keys, and how many entries are damaged."""
    found: dict[SampleKey, Samples] = {}
    damaged = 0
    for key, entry in zip(keys, entries, strict=False):
        sample = decode_entry(key, entry, form) if isinstance(entry, bytes) else None
        if sample is not None:
            found[key] = sample
        elif entry is not None:
            damaged += 1
    return found, damaged
