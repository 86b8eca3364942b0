"""Open-loop loads: requests come at random times, answered or not, as from many users. Knows nothing of what it asks.

A request's latency counts from the time at which it was to be sent, so that a slow server cannot hide behind a load
that waits for it (no "coordinated omission").
"""

import select
import time
from collections import Counter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.connection import Connection, Requests
from bench.load import DRAIN_SECONDS, cpu_seconds, says_close

OK = 200


class OpenLoad(NamedTuple):
    """What an open loop saw, one entry for each request in the order of their times.

    Args:
        scheduled: when it was to be sent, seconds from the beginning.
        latencies: seconds from then to the whole answer; nan where none came.
        statuses: of the answers; 0 where none came.
        late_seconds: how long after its time a request was sent, the 99th percentile: the load's own fault.
        cpu_seconds: user and system time of the generator.
    """

    scheduled: NDArray[np.float64]
    latencies: NDArray[np.float64]
    statuses: NDArray[np.int64]
    late_seconds: float
    cpu_seconds: float

    def answered_within(self, deadline_seconds: float, begin: float, end: float) -> int:
        """Requests answered 200 within their deadline, of those whose answer came between two times."""
        done = self.scheduled + self.latencies
        good = (self.statuses == OK) & (self.latencies <= deadline_seconds)
        return int(np.count_nonzero(good & (done >= begin) & (done < end)))

    def counts(self) -> dict[int, int]:
        """Answers by status."""
        return dict(sorted(Counter(self.statuses.tolist()).items()))


def arrivals(rate: float, seconds: float, seed: int) -> NDArray[np.float64]:
    """Times of a Poisson process of `rate` a second, from 0 until `seconds`; the same for the same seed."""
    stream = np.random.default_rng(seed)
    expected = rate * seconds
    gaps = stream.exponential(1 / rate, int(expected + 10 * np.sqrt(expected) + 10))  # never too few
    times = np.cumsum(gaps)
    return times[times < seconds]


def open_loop(port: int, requests: Requests, times: NDArray[np.float64], *, connections: int) -> OpenLoad:
    """Send a request at each of the times, over kept connections; ends when all are answered.

    Args:
        port: of the server on 127.0.0.1.
        requests: what is asked.
        times: seconds from the beginning, ascending; see arrivals.
        connections: the most that are open; when none is free a request waits, and its latency with it.
    """
    return _Open(port, requests, times, connections).run()


class _Open:
    """One run."""

    def __init__(self, port: int, requests: Requests, times: NDArray[np.float64], connections: int) -> None:
        self._port = port
        self._times: list[float] = times.tolist()
        self._stream = requests.stream()
        self._epoll = select.epoll()
        self._open: dict[int, Connection] = {}
        self._free: list[Connection] = []
        for _ in range(connections):
            self._connect()
        self._sent: list[float] = []
        self._done = np.full(len(times), np.nan)
        self._statuses = np.zeros(len(times), np.int64)

    def run(self) -> OpenLoad:
        """Send, answer by answer and time by time."""
        cpu, began = cpu_seconds(), time.perf_counter()
        give_up = began + (self._times[-1] if self._times else 0) + DRAIN_SECONDS
        while (now := time.perf_counter()) < give_up:
            self._send(now - began)
            if len(self._sent) == len(self._times) and len(self._free) == len(self._open):
                break
            for fd, _ in self._epoll.poll(self._wait(now - began)):
                self._turn(self._open[fd], began)
        for connection in self._open.values():
            connection.close()
        scheduled = np.asarray(self._times)
        late = np.asarray(self._sent) - scheduled[: len(self._sent)]
        return OpenLoad(
            scheduled=scheduled,
            latencies=self._done - scheduled,
            statuses=self._statuses,
            late_seconds=float(np.quantile(late, 0.99)) if len(late) else 0.0,
            cpu_seconds=cpu_seconds() - cpu,
        )

    def _send(self, now: float) -> None:
        while len(self._sent) < len(self._times) and self._times[len(self._sent)] <= now and self._free:
            connection = self._free.pop()
            connection.number = len(self._sent)
            self._sent.append(now)
            connection.ask(next(self._stream))

    def _wait(self, now: float) -> float:
        """Until the next time, or for an answer alone where no connection is free or all is sent."""
        if len(self._sent) == len(self._times) or not self._free:
            return 1.0
        return max(0.0, self._times[len(self._sent)] - now)

    def _turn(self, connection: Connection, began: float) -> None:
        try:
            answer = connection.receive()
        except ConnectionError:
            self._replace(connection)
            return
        if answer is None:
            return
        self._done[connection.number] = time.perf_counter() - began
        self._statuses[connection.number] = int(answer[9:12])
        if says_close(answer):
            self._replace(connection)
        else:
            self._free.append(connection)

    def _connect(self) -> None:
        connection = Connection(self._port)
        self._open[connection.fileno()] = connection
        self._free.append(connection)
        self._epoll.register(connection, select.EPOLLIN)

    def _replace(self, connection: Connection) -> None:
        """A new connection for one that the server closed."""
        del self._open[connection.fileno()]
        if connection in self._free:
            self._free.remove(connection)
        connection.close()
        self._connect()
