"""One contract over both backends, then what each has alone."""

import asyncio
import contextlib
import threading

import numpy as np
import pytest
import redis as redis_client
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from serving import cache_memory, cache_redis
from serving.cache import Form, SampleKey, decode_entry, encode_entry
from serving.cache_memory import ENTRY_OVERHEAD_BYTES, ByteLRU, MemoryCache
from serving.cache_redis import FAILURES_TO_OPEN, RedisCache
from serving.errors import SettingsError
from tests.ports import free_port
from tests.serving.kit import Log, Redis, until

IMAGE = Form("image", (8, 8, 3))
VECTOR = Form("vector", (5,))


def key(seed=0, **changes):
    return SampleKey("d" * 64, "n" * 12, seed, None, None)._replace(**changes)


def picture(seed=0):
    return np.random.RandomState(seed).randint(0, 256, IMAGE.shape).astype(np.uint8)


@pytest.fixture
def log():
    return Log()


@pytest.fixture(params=["local", "redis"])
async def cache(request, log):
    """Each backend, empty."""
    if request.param == "local":
        made = MemoryCache(ByteLRU(max_bytes=10**7, ttl_seconds=60), log)
    else:
        url = request.getfixturevalue("redis").url
        made = RedisCache(url, timeout_seconds=5, ttl_seconds=60, observer=log)
    yield made
    await made.close()


@pytest.fixture
async def shared(redis, log):
    made = RedisCache(redis.url, timeout_seconds=5, ttl_seconds=60, observer=log)
    yield made
    await made.close()


async def test_what_was_kept_is_found(cache):
    """The same values, type and shape, for images and vectors; others are missing."""
    vector = np.array([1.5, -2, np.pi, 0, 1e-30], np.float32)
    await cache.put_many({key(1): picture(1), key(2): picture(2)}, IMAGE)
    await cache.put_many({key(3): vector}, VECTOR)
    found = await cache.get_many([key(2), key(9), key(1)], IMAGE)
    assert set(found) == {key(1), key(2)}
    assert all(found[key(i)].tobytes() == picture(i).tobytes() for i in (1, 2))
    assert found[key(1)].dtype == np.uint8
    assert (await cache.get_many([key(3)], VECTOR))[key(3)].tolist() == vector.tolist()
    assert await cache.get_many([], IMAGE) == {}


async def test_every_part_of_the_key_counts(cache):
    """Digest, numerics, seed, class and truncation: a change of any is a miss; class 0 is not no class."""
    await cache.put_many({key(1): picture()}, IMAGE)
    others = [
        key(1, digest="e" * 64),
        key(1, numerics="m" * 12),
        key(2),
        key(1, class_idx=0),
        key(1, truncation=0.5),
        key(1, truncation=0.5000000000000001),
    ]
    assert await cache.get_many(others, IMAGE) == {}


async def test_an_entry_of_another_form_is_a_miss(cache):
    """The same key with another shape is not served."""
    await cache.put_many({key(1): picture()}, IMAGE)
    assert await cache.get_many([key(1)], Form("image", (8, 3, 8))) == {}


async def test_what_is_found_cannot_be_changed(cache):
    """A reader cannot spoil the entry for the next one."""
    await cache.put_many({key(1): picture()}, IMAGE)
    found = await cache.get_many([key(1)], IMAGE)
    with pytest.raises(ValueError, match="read-only"):
        found[key(1)][0, 0, 0] = 1


async def test_lookups_are_counted_in_images(cache, log):
    """Hits and misses, by tier."""
    await cache.put_many({key(1): picture()}, IMAGE)
    await cache.get_many([key(1), key(2), key(3)], IMAGE)
    tier = "redis" if isinstance(cache, RedisCache) else "local"
    assert (log.lookups[tier, "hit"], log.lookups[tier, "miss"]) == (1, 2)


# The local tier.


def test_the_bound_in_bytes_holds_and_the_least_used_go_first():
    """Ten fit; the one that was read lately outlives the one that was not."""
    lru = ByteLRU(max_bytes=10 * (100 + ENTRY_OVERHEAD_BYTES), ttl_seconds=60)
    for i in range(10):
        lru.put(i, b"", 100)
    assert lru.get(0) == b""
    lru.put(10, b"", 100)
    assert lru.get(1) is None
    assert lru.get(0) == b""
    assert len(lru) == 10
    lru.put("large", b"", 10**6)
    assert lru.get("large") is None
    assert lru.bytes <= lru.max_bytes


def test_an_old_entry_is_gone():
    """By the clock."""
    now = [0.0]
    lru = ByteLRU(max_bytes=10**6, ttl_seconds=5, clock=lambda: now[0])
    lru.put("a", 1, 1)
    now[0] = 4.9
    assert lru.get("a") == 1
    now[0] = 5.0
    assert lru.get("a") is None
    assert lru.bytes == 0


async def test_a_kept_sample_does_not_keep_its_batch(log):
    """A view of 16 images must not pin all of them."""
    cache = MemoryCache(ByteLRU(max_bytes=10**6, ttl_seconds=60), log)
    batch = np.zeros((16, 8, 8, 3), np.uint8)
    await cache.put_many({key(1): batch[3]}, IMAGE)
    assert cache.find([key(1)], IMAGE)[key(1)].base is None


# Entries.


@settings(deadline=None)
@given(st.data())
def test_a_damaged_entry_is_never_served(data):
    """Cut short, a bit flipped anywhere, or moved to another key: None."""
    entry = encode_entry(key(1), picture(), IMAGE)
    assert decode_entry(key(1), entry, IMAGE).tobytes() == picture().tobytes()
    cut = data.draw(st.integers(0, len(entry) - 1))
    assert decode_entry(key(1), entry[:cut], IMAGE) is None
    flipped = bytearray(entry)
    flipped[cut] ^= 1 << data.draw(st.integers(0, 7))
    assert decode_entry(key(1), bytes(flipped), IMAGE) is None
    assert decode_entry(key(2), entry, IMAGE) is None
    assert decode_entry(key(1), entry + b"x", IMAGE) is None


# Redis.


async def test_pieces_of_at_most_a_megabyte(redis, log):
    """Sixteen images of 256 KB are asked for with four commands."""
    cache = RedisCache(redis.url, timeout_seconds=5, ttl_seconds=60, observer=log)
    form = Form("image", (256, 512, 2))
    samples = {key(i): np.full(form.shape, i, np.uint8) for i in range(16)}
    await cache.put_many(samples, form)
    with redis_client.Redis(port=redis.port) as direct:
        direct.config_resetstat()
        found = await cache.get_many(list(samples), form)
        assert direct.info("commandstats")["cmdstat_mget"]["calls"] == 4
        assert 0 < direct.ttl(key(0).text()) <= 60
    assert len(found) == 16
    await cache.close()


@contextlib.asynccontextmanager
async def stalling(port, after):
    """A way to a Redis whose connections each fall silent after so many bytes of answers."""

    async def forward(reader, writer, left):
        while left > 0 and (data := await reader.read(min(left, 65536))):
            left -= len(data)
            writer.write(data)
            await writer.drain()

    async def connect(reader, writer):
        answers, questions = await asyncio.open_connection("127.0.0.1", port)
        with contextlib.suppress(OSError):
            await asyncio.gather(forward(reader, questions, 10**12), forward(answers, writer, after))
        for end in (questions, writer):
            end.close()

    async with await asyncio.start_server(connect, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


async def test_a_lookup_that_takes_too_long_keeps_what_came_and_is_no_failure(redis, log):
    """256 images of 192 KB do not arrive in time, again and again: others still find theirs."""
    form = Form("image", (256, 256, 3))
    samples = {key(i): np.full(form.shape, i, np.uint8) for i in range(256)}
    direct = RedisCache(redis.url, timeout_seconds=20, ttl_seconds=60, observer=Log())
    await direct.put_many(samples, form)
    await direct.close()
    async with stalling(redis.port, after=2_500_000) as port:
        cache = RedisCache(f"redis://127.0.0.1:{port}", timeout_seconds=2.0, ttl_seconds=60, observer=log)
        for _ in range(FAILURES_TO_OPEN + 1):
            found = await cache.get_many(list(samples), form)
            assert 5 <= len(found) <= 12
            assert all((sample == samples[key]).all() for key, sample in found.items())
        assert cache.available
        assert set(await cache.get_many([key(7)], form)) == {key(7)}
        assert sum(log.lookups.values()) == 256 * (FAILURES_TO_OPEN + 1) + 1
        await cache.close()


async def test_a_client_that_swallows_its_cancellation_is_stopped_all_the_same(shared, monkeypatch):
    """The second of five pieces is not asked for once the time is over."""
    asked = []

    async def mget(names):
        asked.append(len(names))
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return [None] * len(names)

    monkeypatch.setattr(shared._redis, "mget", mget)
    assert await shared.get_many([key(i) for i in range(20)], Form("image", (512, 512, 1))) == {}
    assert asked == [4]


async def test_large_samples_are_hashed_and_copied_off_the_event_loop(redis, log, monkeypatch):
    """16 MB through both tiers: no piece of the work runs on the loop's own thread."""
    form = Form("image", (256, 256, 3))
    samples = {key(i): np.full(form.shape, i, np.uint8) for i in range(64)}
    threads = {}

    def watched(module, name):
        work = getattr(module, name)

        def record(*arguments):
            threads.setdefault(name, set()).add(threading.get_ident())
            return work(*arguments)

        monkeypatch.setattr(module, name, record)

    watched(cache_redis, "encode_entry")
    watched(cache_redis, "decode_entry")
    watched(cache_memory, "_copied")
    shared = RedisCache(redis.url, timeout_seconds=20, ttl_seconds=60, observer=log)
    local = MemoryCache(ByteLRU(max_bytes=10**8, ttl_seconds=60), log)
    await shared.put_many(samples, form)
    await local.put_many(await shared.get_many(list(samples), form), form)
    assert set(local.find(samples, form)) == set(samples)
    assert set(threads) == {"encode_entry", "decode_entry", "_copied"}
    assert threading.get_ident() not in set().union(*threads.values())
    await shared.close()


async def test_damaged_and_foreign_entries_in_redis_are_misses(redis, shared, log):
    """Cut, flipped, of a wrong Redis type, of another program."""
    await shared.put_many({key(i): picture(i) for i in range(5)}, IMAGE)
    with redis_client.Redis(port=redis.port) as direct:
        entry = direct.get(key(0).text())
        direct.set(key(0).text(), entry[:-1])
        direct.set(key(1).text(), bytes([entry[0]]) + entry[1:-1] + bytes([entry[-1] ^ 1]))
        direct.delete(key(2).text())
        direct.rpush(key(2).text(), "a list")
        direct.set(key(3).text(), "hello")
    assert set(await shared.get_many([key(i) for i in range(5)], IMAGE)) == {key(4)}
    assert log.lookups["redis", "error"] == 3


async def test_what_a_model_made_can_be_dropped_and_nothing_else(redis, shared, monkeypatch):
    """In several steps; by model and numerics."""
    monkeypatch.setattr("serving.cache_redis.SCAN_KEYS", 10)
    mine = {key(seed): picture(seed) for seed in range(100)}
    others = {key(1, digest="e" * 64): picture(1), key(1, numerics="other"): picture(2)}
    await shared.put_many({**mine, **others}, IMAGE)
    known = key(0)
    shared.forget_later(known.digest, known.numerics)
    await until(lambda: not shared._writes)
    assert set(await shared.get_many([*mine, *others], IMAGE)) == set(others)


async def test_a_full_or_read_only_redis_is_no_error(redis, shared, log):
    """Writing fails, reading goes on, the circuit stays closed."""
    await shared.put_many({key(1): picture(1)}, IMAGE)
    with redis_client.Redis(port=redis.port) as direct:
        direct.config_set("maxmemory", "1")
        for _ in range(5):
            await shared.put_many({key(2): picture(2)}, IMAGE)
        assert set(await shared.get_many([key(1), key(2)], IMAGE)) == {key(1)}
    assert shared.available


async def test_each_sort_of_failure_is_logged_once_an_outage(redis, log):
    """With what Redis or the network said; not once for each request."""
    cache = RedisCache(redis.url, timeout_seconds=5, ttl_seconds=60, observer=log)
    with redis_client.Redis(port=redis.port) as direct, structlog.testing.capture_logs() as lines:
        direct.config_set("maxmemory", "1")
        for _ in range(3):
            await cache.put_many({key(2): picture(2)}, IMAGE)
            await cache.get_many([key(2)], IMAGE)
        assert [line["log_level"] for line in lines] == ["warning"]
        assert "OutOfMemoryError" in lines[0]["error"]
        redis.kill()
        for _ in range(5):
            await cache.get_many([key(2)], IMAGE)
    assert [line["timeout_seconds"] for line in lines] == [5] * len(lines)
    assert 2 <= len(lines) <= 3  # a connection that ends, then one that is refused
    assert any("ConnectionError" in line["error"] for line in lines[1:])
    await cache.close()


async def test_a_dead_redis_costs_nothing_and_is_found_again(log):
    """After three failures the circuit opens; lookups are instant misses; it closes when Redis is back."""
    port = free_port()
    cache = RedisCache(f"redis://127.0.0.1:{port}", timeout_seconds=5, ttl_seconds=60, observer=log)
    for _ in range(5):
        assert await cache.get_many([key(1)], IMAGE) == {}
    assert not cache.available
    assert log.lookups["redis", "error"] == 3
    server = Redis(port)
    await until(lambda: cache.available)
    await cache.put_many({key(1): picture()}, IMAGE)
    assert set(await cache.get_many([key(1)], IMAGE)) == {key(1)}
    assert log.circuit == [True, False, True]
    await cache.close()
    server.kill()


async def test_a_redis_that_was_restarted_is_asked_anew(log):
    """Connections of before are noticed to be dead: no lookup fails by them."""
    with contextlib.ExitStack() as stack:
        first = Redis()
        stack.callback(first.kill)
        cache = RedisCache(first.url, timeout_seconds=5, ttl_seconds=60, observer=log)
        await asyncio.gather(*(cache.get_many([key(i)], IMAGE) for i in range(4)))
        first.kill()
        second = await asyncio.to_thread(Redis, first.port)  # the loop goes on, and hears of the ends
        stack.callback(second.kill)
        await cache.put_many({key(1): picture(1)}, IMAGE)
        for _ in range(5):
            assert set(await cache.get_many([key(1)], IMAGE)) == {key(1)}
        assert not log.lookups.get(("redis", "error"))
        await cache.close()


async def test_a_new_connection_says_nothing_before_its_first_question(redis, log):
    """Every word more is a round trip in the time of a lookup."""
    with redis_client.Redis(port=redis.port) as direct:
        direct.config_resetstat()
        cache = RedisCache(redis.url, timeout_seconds=5, ttl_seconds=60, observer=log)
        assert await cache.get_many([key(1)], IMAGE) == {}
        asked = {name: what["calls"] for name, what in direct.info("commandstats").items()}
    assert asked["cmdstat_mget"] == 1
    assert not {name for name in asked if name.startswith(("cmdstat_client", "cmdstat_hello"))}, asked
    await cache.close()


async def test_a_frozen_redis_costs_at_most_the_timeout(redis, log):
    """Each of the first lookups ends with the time-out, and then they cost nothing."""
    cache = RedisCache(redis.url, timeout_seconds=0.2, ttl_seconds=60, observer=log)
    redis.freeze()
    clock = asyncio.get_running_loop().time
    spent = []
    for _ in range(6):
        began = clock()
        assert await cache.get_many([key(1)], IMAGE) == {}
        spent.append(clock() - began)
    assert max(spent) < 10  # of 0.2 s, on a machine that may rest
    assert not cache.available
    assert log.lookups["redis", "error"] <= FAILURES_TO_OPEN  # the others were not even tried
    redis.thaw()
    await until(lambda: cache.available)
    await cache.close()


def test_a_url_that_is_none_is_an_error_at_start(log):
    """The setting is named."""
    with pytest.raises(SettingsError) as error:
        RedisCache("http://localhost", timeout_seconds=1, ttl_seconds=1, observer=log)
    assert error.value.field == "GENSERVE_REDIS_URL"
