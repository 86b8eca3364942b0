"""Closed-loop loads: C connections, each asking again as soon as it is answered. Knows nothing of what it asks.

A load runs in a process of its own, on raw sockets and epoll: on two cores, what it costs the server lacks. Its own
CPU time is part of what it reports.
"""

import multiprocessing
import resource
import select
import time
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from bench.connection import Connection, Requests

WARM_UP = 0.15  # of the measured seconds
DRAIN_SECONDS = 60.0
T = TypeVar("T")


class Load(NamedTuple):
    """What a closed loop saw.

    Args:
        requests: answered with 200 inside the measured time.
        seconds: measured.
        latencies: of those requests, seconds, sorted.
        answered: with 200 from beginning to end, warm-up and drain included.
        failures: other answers and broken connections from beginning to end, by what they were.
        marked: of the measured answers, how many held the mark.
        cpu_seconds: user and system time of the generator inside the measured time.
        answer_bytes: mean length of the measured answers, head and body.
    """

    requests: int
    seconds: float
    latencies: NDArray[np.float64]
    answered: int
    failures: dict[str, int]
    marked: int
    cpu_seconds: float
    answer_bytes: float

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds

    def percentile_seconds(self, share: float) -> float:
        """Latency below which that share of the requests was answered."""
        return float(np.quantile(self.latencies, share)) if len(self.latencies) else float("nan")


def closed_loop(
    port: int,
    requests: Requests,
    *,
    connections: int,
    seconds: float,
    pause_seconds: float = 0.0,
    between: Requests | None = None,
    mark: bytes | None = None,
) -> Load:
    """Drive a server on 127.0.0.1; nothing is in flight when this returns.

    Args:
        port: of the server.
        requests: what is asked.
        connections: kept open, one request in flight on each.
        seconds: measured, after a warm-up.
        pause_seconds: between an answer and the next request; only with one connection.
        between: asked and answered at the beginning of each pause, through another connection; not counted.
        mark: counted in the answers' heads, such as b"x-cache: hit".
    """
    drive: _Paced | _Loop
    if pause_seconds:
        drive = _Paced(port, requests, mark, pause_seconds, between)
    else:
        drive = _Loop(port, requests, mark, connections)
    drive.run(time.perf_counter() + WARM_UP * seconds)
    drive.begin()
    began, cpu = time.perf_counter(), cpu_seconds()
    drive.run(began + seconds)
    spent, cpu = time.perf_counter() - began, cpu_seconds() - cpu
    latencies, marked, answer_bytes = np.sort(drive.latencies), drive.marked, drive.answer_bytes
    drive.drain(time.perf_counter() + DRAIN_SECONDS)
    return Load(
        requests=len(latencies),
        seconds=spent,
        latencies=latencies,
        answered=drive.answered,
        failures=dict(drive.failures),
        marked=marked,
        cpu_seconds=cpu,
        answer_bytes=answer_bytes / max(1, len(latencies)),
    )


def cpu_seconds() -> float:
    """User and system time of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class LoadProcess:
    """A process that runs loads, one at a time; close it when done."""

    def __init__(self) -> None:
        self._pool = multiprocessing.get_context("spawn").Pool(1)

    def start(self, load: Callable[..., T], *arguments: object, **options: object) -> Callable[[], T]:
        """Begin a load, such as closed_loop(port, requests, ...); the result's call waits for its end."""
        return self._pool.apply_async(load, arguments, options).get

    def run(self, load: Callable[..., T], *arguments: object, **options: object) -> T:
        """A load from beginning to end."""
        return self.start(load, *arguments, **options)()

    def close(self) -> None:
        """End it."""
        self._pool.terminate()
        self._pool.join()


class _Drive:
    """What is counted, and what is done with an answer."""

    def __init__(self, port: int, requests: Requests, mark: bytes | None) -> None:
        self.port, self._mark = port, mark
        self._stream = requests.stream()
        self.failures: Counter[str] = Counter()
        self.answered = 0
        self.begin()

    def begin(self) -> None:
        """The measured time begins."""
        self.latencies: list[float] = []
        self.marked = self.answer_bytes = 0

    def keep(self, answer: bytes, length: int, latency: float) -> None:
        """Count an answer."""
        if not is_fine(answer):
            self.fail(answer)
            return
        self.answered += 1
        self.latencies.append(latency)
        self.answer_bytes += length
        if self._mark is not None and self._mark in answer:
            self.marked += 1

    def fail(self, answer: bytes) -> None:
        """Count what is no answer."""
        self.failures[answer[9:12].decode()] += 1


class _Loop(_Drive):
    """C connections over one epoll."""

    def __init__(self, port: int, requests: Requests, mark: bytes | None, connections: int) -> None:
        super().__init__(port, requests, mark)
        self._epoll = select.epoll()
        self._open: dict[int, Connection] = {}
        self._draining = False
        for _ in range(connections):
            self._connect()

    def run(self, until: float) -> None:
        """Ask and count until then."""
        poll, clock, turn, connections = self._epoll.poll, time.perf_counter, self._turn, self._open
        while (now := clock()) < until and connections:
            for fd, _ in poll(until - now):
                turn(connections[fd])

    def drain(self, until: float) -> None:
        """Ask no more; count what is in flight."""
        self._draining = True
        self.run(until)
        self.failures.update(["not answered"] * len(self._open))
        for connection in self._open.values():
            connection.close()

    def _turn(self, connection: Connection) -> None:
        try:
            answer = connection.receive()
        except ConnectionError as error:
            self.failures[str(error)] += 1
            self._leave(connection)
            return
        if answer is None:
            return
        now = time.perf_counter()
        self.keep(answer, connection.length, now - connection.asked)
        if self._draining or says_close(answer):
            self._leave(connection)
        else:
            connection.asked = now
            connection.ask(next(self._stream))

    def _connect(self) -> None:
        connection = Connection(self.port)
        self._open[connection.fileno()] = connection
        self._epoll.register(connection, select.EPOLLIN)
        connection.asked = time.perf_counter()
        connection.ask(next(self._stream))

    def _leave(self, connection: Connection) -> None:
        del self._open[connection.fileno()]
        connection.close()
        if not self._draining:
            self._connect()


class _Paced(_Drive):
    """One connection that rests between an answer and the next request; another may ask something meanwhile."""

    def __init__(
        self, port: int, requests: Requests, mark: bytes | None, pause_seconds: float, between: Requests | None
    ) -> None:
        super().__init__(port, requests, mark)
        self._pause_seconds = pause_seconds
        self._connection = Connection(port)
        self._other = (Connection(port), between.stream()) if between else None

    def run(self, until: float) -> None:
        """Ask and count until then; a request in flight is waited for."""
        while time.perf_counter() < until:
            began = time.perf_counter()
            answer = _answer(self._connection, next(self._stream))
            self.keep(answer, self._connection.length, time.perf_counter() - began)
            if self._other and not is_fine(answer := _answer(self._other[0], next(self._other[1]))):
                self.fail(answer)
            time.sleep(self._pause_seconds)

    def drain(self, until: float) -> None:
        """Nothing is in flight."""
        self._connection.close()
        if self._other:
            self._other[0].close()


def _answer(connection: Connection, request: bytes) -> bytes:
    """Ask, and wait for the answer's head."""
    connection.ask(request)
    while (answer := connection.receive()) is None:
        pass
    return answer


def is_fine(answer: bytes) -> bool:
    """Whether it is a 200."""
    return answer.startswith(b"HTTP/1.1 200")


def says_close(answer: bytes) -> bool:
    """Whether the server gives up the connection after this answer, which it does with some that are not 200."""
    return not is_fine(answer) and b"connection: close" in answer
