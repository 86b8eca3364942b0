"""The cache in this process: least recently used out, bounded in bytes and in age. Knows nothing of other tiers."""

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from models.generator import Samples
from serving.asgi import Reply
from serving.cache import CacheObserver, Form, SampleKey
from serving.offload import offload

ANSWER_OVERHEAD_BYTES = 2048  # headers, and what was asked
ENTRY_OVERHEAD_BYTES = 512  # key, bookkeeping and array header, measured at 380-480


class Address(NamedTuple):
    """What, with seeds, decides a model's samples and all that an answer says of it.

    Args:
        name: of the model.
        number: of its version.
        digest: of the file that runs, which is a variant's where one does.
        numerics: see models.golden.
        loaded: when, as Unix time: a session that was loaded anew does not answer for what the one before it made.
    """

    name: str
    number: int
    digest: str
    numerics: str
    loaded: float


class Kept(NamedTuple):
    """A whole answer.

    Args:
        reply: without what belongs to one request.
        images: how many are in it.
        reference: the model that was asked for.
        model: what answered for it then.
    """

    reply: Reply
    images: int
    reference: str | None
    model: Address


class Entry(NamedTuple):
    """A value with its size in bytes and the time at which it is too old."""

    value: Any
    size: int
    expires: float


class ByteLRU:
    """A mapping bounded in bytes and age.

    Args:
        max_bytes: bound of all values' sizes and their bookkeeping.
        ttl_seconds: age at which a value is gone.
        clock: seconds, monotonic.
    """

    def __init__(self, *, max_bytes: int, ttl_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self._ttl_seconds = ttl_seconds
        self._clock = clock
        self._entries: OrderedDict[Hashable, Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Hashable) -> Any | None:  # noqa: ANN401 values of any type
        """The value, now the most recently used; None where there is none, or it is too old."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.expires <= self._clock():
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return entry.value

    def put(self, key: Hashable, value: Any, size: int) -> None:  # noqa: ANN401 values of any type
        """Keep a value of `size` bytes; one that is larger than the whole bound is not kept."""
        size += ENTRY_OVERHEAD_BYTES
        if key in self._entries:
            self._drop(key)
        if size > self.max_bytes:
            return
        self._entries[key] = Entry(value, size, self._clock() + self._ttl_seconds)
        self.bytes += size
        while self.bytes > self.max_bytes:
            self._drop(next(iter(self._entries)))

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self.bytes = 0

    def _drop(self, key: Hashable) -> None:
        self.bytes -= self._entries.pop(key).size


class MemoryCache:
    """Samples, and encoded answers beside them, within one bound; a Cache whose lookups never wait.

    Args:
        lru: where both are kept; shared with nobody.
        observer: told of every lookup of samples.
    """

    def __init__(self, lru: ByteLRU, observer: CacheObserver) -> None:
        self._lru = lru
        self._observer = observer

    def find(self, keys: Iterable[SampleKey], form: Form) -> dict[SampleKey, Samples]:
        """Like `get_many`, at once."""
        found: dict[SampleKey, Samples] = {}
        misses = 0
        for key in keys:
            sample = self._lru.get(key)
            if sample is None or sample.shape != form.shape:
                misses += 1
            else:
                found[key] = sample
        self._observer.looked_up("local", "hit", len(found))
        self._observer.looked_up("local", "miss", misses)
        return found

    def find_answer(self, key: Hashable) -> Kept | None:
        """A whole answer; None where there is none."""
        kept: Kept | None = self._lru.get(key)
        return kept

    def keep_answer(self, key: Hashable, kept: Kept) -> None:
        """Keep a whole answer, unless it would push out more than an eighth of everything."""
        size = len(kept.reply.body) + ANSWER_OVERHEAD_BYTES
        if size <= self._lru.max_bytes // 8:
            self._lru.put(key, kept, size)

    async def get_many(self, keys: Sequence[SampleKey], form: Form) -> dict[SampleKey, Samples]:
        """See serving.cache.Cache."""
        return self.find(keys, form)

    def put(self, samples: Mapping[SampleKey, Samples]) -> None:
        """Like `put_many`, at once: for what is small."""
        self._keep(samples, _copied(list(samples.values())))

    async def put_many(self, samples: Mapping[SampleKey, Samples], form: Form) -> None:
        """See serving.cache.Cache. Each sample is copied: a view would keep its whole batch alive."""
        size = sum(sample.nbytes for sample in samples.values())
        self._keep(samples, await offload(size, _copied, list(samples.values())))

    def clear(self) -> None:
        """Forget everything."""
        self._lru.clear()

    def _keep(self, keys: Iterable[SampleKey], copies: Sequence[Samples]) -> None:
        for key, copy in zip(keys, copies, strict=True):
            self._lru.put(key, copy, copy.nbytes)

    async def close(self) -> None:
        """See serving.cache.Cache."""
        self._lru.clear()


def _copied(samples: Sequence[Samples]) -> list[Samples]:
    """Read-only copies that own their memory."""
    copies = [np.array(sample) for sample in samples]
    for copy in copies:
        copy.flags.writeable = False
    return copies
