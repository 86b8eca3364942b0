"""What each row of the table measures, as one repeat against a stand. Knows no table and no HTTP.

Figures carry their unit in their name; ratios and counts have none.
"""

import statistics
import time

from bench.connection import Requests
from bench.limit import Limit
from bench.load import Load, closed_loop
from bench.server import Server
from bench.stand import Kind, Stand, body_bytes
from bench.table import Figures

IDLE_PROBES, IDLE_PROBE_SECONDS = 4, 0.5
WARM_UPS = 10
STREAM_IMAGES = 256
STREAM_LEAD_SECONDS = 0.5  # the stream runs this long before and after what is measured beside it
PAUSE_SECONDS = 0.02  # of paced requests: time in which the stock fills again
DISTINCT = 64  # seeds that cache hits are asked for
HIT, STOCK = b"x-cache: hit", b"x-cache: stock"


def idle(stand: Stand, model: str) -> Figures:
    """The limit while an idle server runs, over the limit without one."""
    limit = stand.limit(model)
    without = _probes(limit)
    with stand.new_server("plain", model):
        time.sleep(1.0)
        beside = _probes(limit)
    without += _probes(limit)
    return {
        "figure": statistics.median(beside) / statistics.median(without),
        "without_images_per_second": statistics.median(without),
    }


def _probes(limit: Limit) -> list[float]:
    return [limit(IDLE_PROBE_SECONDS) for _ in range(IDLE_PROBES)]


def closed(stand: Stand, model: str, *, num_images: int = 1, connections: int, kind: Kind = "plain") -> Figures:
    """Images/s of a closed loop over the limit."""
    server = stand.server(kind, model)
    cpu = server.cpu_seconds()
    load, limit = stand.around(
        model, lambda: stand.drive(server, model, num_images=num_images, connections=connections)
    )
    cpu = server.cpu_seconds() - cpu
    rate = load.rate * num_images
    return {"figure": rate / limit, "limit_images_per_second": limit, **_told(load, num_images), **_costs(load, cpu)}


def lone(stand: Stand, model: str) -> Figures:
    """The median latency of one connection over one image without a server."""
    raw, server = stand.raw(model), stand.server("plain", model)
    before = raw()
    load = stand.drive(server, model, connections=1)
    raw_seconds = (before + raw()) / 2
    p50 = load.percentile_seconds(0.5)
    return {
        "figure": 1000 * (p50 - raw_seconds),
        "ratio_to_raw": p50 / raw_seconds,
        "raw_ms": 1000 * raw_seconds,
        **_told(load, 1),
    }


def memory(stand: Stand, model: str) -> Figures:
    """The most resident megabytes of a server under 64 connections."""
    server = stand.server("plain", model)
    with server.watched_memory() as peak:
        load = stand.drive(server, model, connections=64)
    return {"figure": peak[0] / 1e6, **_told(load, 1)}


def beside_stream(stand: Stand, model: str) -> Figures:
    """How much the 99th percentile of one connection grows beside a client that streams n=256, in chunks.

    A chunk is what a large request may hold an engine for: two single images, or 5 ms.
    """
    server = stand.server("plain", model)
    alone = stand.drive(server, model, connections=1)
    single = stand.raw(model)()
    requests = stand.requests(model, STREAM_IMAGES)
    seconds = 1.15 * stand.seconds + 2 * STREAM_LEAD_SECONDS
    with stand.counted(server, f"{model} beside a stream") as images:
        wait = stand.load("second").start(closed_loop, server.port, requests, connections=1, seconds=seconds)
        time.sleep(STREAM_LEAD_SECONDS)
        beside = stand.load().run(closed_loop, server.port, stand.requests(model), connections=1, seconds=stand.seconds)
        stream = wait()
        images += [beside.answered, stream.answered * STREAM_IMAGES]
    stand.check(not beside.failures and not stream.failures, f"{model}: {beside.failures} {stream.failures}")
    chunk = max(2 * single, 0.005)
    return {
        "figure": (beside.percentile_seconds(0.99) - alone.percentile_seconds(0.99)) / chunk,
        "chunk_ms": 1000 * chunk,
        "alone_p50_ms": 1000 * alone.percentile_seconds(0.5),
        "alone_p99_ms": 1000 * alone.percentile_seconds(0.99),
        "beside_p50_ms": 1000 * beside.percentile_seconds(0.5),
        "beside_p99_ms": 1000 * beside.percentile_seconds(0.99),
        "stream_images_per_second": stream.rate * STREAM_IMAGES,
    }


def cache_hit(stand: Stand, model: str) -> Figures:
    """Cache hits/s of 64 connections, over a constant answer's of the same length."""
    server = stand.server("cached", model)
    constant = stand.constant_server(body_bytes(server, model))
    asked = stand.requests(model, distinct=DISTINCT)
    for _ in range(WARM_UPS):  # until each seed was asked for: a busy machine takes its time
        warm = _run(stand, server, asked, connections=8, seconds=0.5, mark=HIT)
        if warm.marked == warm.requests:
            break
    before = _run(stand, constant, asked, connections=64)
    cpu = server.cpu_seconds()
    hits = _run(stand, server, asked, connections=64, mark=HIT)
    cpu = server.cpu_seconds() - cpu
    after = _run(stand, constant, asked, connections=64)
    stand.check(hits.marked == hits.requests, f"{model}: {hits.marked} of {hits.requests} answers were cache hits")
    rate = (before.rate + after.rate) / 2
    return {"figure": hits.rate / rate, "constant_per_second": rate, **_told(hits, 1), **_costs(hits, cpu)}


def from_stock(stand: Stand, model: str) -> Figures:
    """The median latency of an unseeded image from the stock, over a cache hit's; both paced alike.

    A third kind tells what the stock's filling costs the next answer: hits after an image that was made for another.
    """
    server = stand.server("stocked", model)
    asked = stand.requests(model, distinct=DISTINCT)
    unseeded = Requests(f'{{"model":"{model}"}}')
    _run(stand, server, asked, connections=8, seconds=0.5)
    before = _run(stand, server, asked, mark=HIT, connections=1, pause_seconds=PAUSE_SECONDS)
    stock = _run(stand, server, unseeded, mark=STOCK, connections=1, pause_seconds=PAUSE_SECONDS)
    others = stand.requests(model)
    disturbed = _run(stand, server, asked, mark=HIT, connections=1, pause_seconds=PAUSE_SECONDS, between=others)
    after = _run(stand, server, asked, mark=HIT, connections=1, pause_seconds=PAUSE_SECONDS)
    hit_seconds = (before.percentile_seconds(0.5) + after.percentile_seconds(0.5)) / 2
    share = stock.marked / max(1, stock.requests)
    stand.check(share > 0.95, f"{model}: only {share:.2f} of the unseeded answers came from the stock")
    return {
        "figure": stock.percentile_seconds(0.5) / hit_seconds,
        "hit_p50_ms": 1000 * hit_seconds,
        "stock_p50_ms": 1000 * stock.percentile_seconds(0.5),
        "hit_after_an_image_p50_ms": 1000 * disturbed.percentile_seconds(0.5),
        "share_from_stock": share,
    }


def _run(
    stand: Stand,
    server: Server,
    requests: Requests,
    *,
    connections: int,
    seconds: float = 0,
    pause_seconds: float = 0,
    between: Requests | None = None,
    mark: bytes | None = None,
) -> Load:
    load = stand.load().run(
        closed_loop,
        server.port,
        requests,
        connections=connections,
        seconds=seconds or stand.seconds,
        pause_seconds=pause_seconds,
        between=between,
        mark=mark,
    )
    stand.check(not load.failures, f"{requests.body}: {load.failures}")
    return load


def _told(load: Load, num_images: int) -> Figures:
    return {
        "images_per_second": load.rate * num_images,
        "p50_ms": 1000 * load.percentile_seconds(0.5),
        "p99_ms": 1000 * load.percentile_seconds(0.99),
        "load_us_per_request": 1e6 * load.cpu_seconds / max(1, load.requests),
    }


def _costs(load: Load, cpu_seconds: float) -> Figures:
    """The server's time, warm-up and drain included."""
    return {"server_us_per_request": 1e6 * cpu_seconds / max(1, load.answered)}
