"""A closed-loop HTTP load: C connections, each asking again as soon as it is answered. Knows nothing of what it asks.

It runs in a process of its own and parses as little HTTP as it may: on two cores, what it costs the server lacks.
"""

import asyncio
import multiprocessing
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple, cast

import numpy as np
import uvloop

Bodies = Callable[[int], bytes]  # request number -> JSON body


class Load(NamedTuple):
    """What a run of the load saw.

    Args:
        requests: answered with 200 inside the measured time.
        seconds: measured.
        latencies: of those requests, seconds, sorted.
        failures: answers other than 200, and broken connections, by what they were.
    """

    requests: int
    seconds: float
    latencies: list[float]
    failures: dict[str, int]

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds

    def percentile(self, share: float) -> float:
        """Latency in seconds below which that share of the requests was answered."""
        return float(np.quantile(self.latencies, share)) if self.latencies else float("nan")


def closed_loop(port: int, bodies: list[bytes], *, connections: int, seconds: float, path: str = "/sample") -> Load:
    """Run the load in a process of its own.

    Args:
        port: of the server on 127.0.0.1.
        bodies: sent in turn; enough that none is asked for twice.
        connections: kept open, one request in flight on each.
        seconds: measured, after a tenth of it to warm up.
        path: POSTed to.
    """
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_run, (port, bodies, connections, seconds, path))


def _run(port: int, bodies: list[bytes], connections: int, seconds: float, path: str) -> Load:
    return uvloop.run(_drive(port, bodies, connections, seconds, path))


async def _drive(port: int, bodies: list[bytes], connections: int, seconds: float, path: str) -> Load:
    turn = iter(bodies)
    loop = asyncio.get_running_loop()
    clients = [
        (await loop.create_connection(lambda: _Client(turn, path), "127.0.0.1", port))[1] for _ in range(connections)
    ]
    await asyncio.sleep(seconds / 10)
    for client in clients:
        client.latencies.clear()
        client.failures.clear()
    start = time.perf_counter()
    await asyncio.sleep(seconds)
    spent = time.perf_counter() - start
    latencies = sorted(latency for client in clients for latency in client.latencies)
    failures: dict[str, int] = {}
    for client in clients:
        for what, count in client.failures.items():
            failures[what] = failures.get(what, 0) + count
        client.close()
    return Load(len(latencies), spent, latencies, failures)


class _Client(asyncio.Protocol):
    """One connection. Answers must carry Content-Length."""

    def __init__(self, bodies: Iterator[bytes], path: str) -> None:
        self.latencies: list[float] = []
        self.failures: dict[str, int] = {}
        self._bodies, self._path = bodies, path
        self._received = bytearray()
        self._closing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one, though no subclass
        self._ask()

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._received[:end]).lower()
        at = head.find(b"content-length:")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0])
        if len(self._received) < end + 4 + length:
            return
        del self._received[: end + 4 + length]
        status = head[9:12]
        if status == b"200":
            self.latencies.append(time.perf_counter() - self._asked)
        else:
            self._fail(status.decode())
        self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._closing:
            self._fail("connection lost")

    def close(self) -> None:
        self._closing = True
        self._transport.close()

    def _ask(self) -> None:
        body = next(self._bodies, None)
        if body is None:
            self._fail("ran out of bodies")
            return
        self._asked = time.perf_counter()
        self._transport.write(
            b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
            % (self._path.encode(), len(body), body)
        )

    def _fail(self, what: str) -> None:
        self.failures[what] = self.failures.get(what, 0) + 1
