"""The scheduler on engines of virtual time: no threads, no networks, no clock. Knows nothing of HTTP.

    python -m bench.simulation

Engines follow a line, overhead + per_image * images, with noise; what the schedule knows of it, it learns. Clients are
open (Poisson) or closed (one request after the other). The table shows each client's fate, and goodput as the share of
what the engines could do with full batches.
"""

import heapq
import itertools
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from serving.errors import Busy, DeadlineExceeded
from serving.schedule import Batch, Deadline, Schedule, Ticket
from serving.speed import Speed


class Network:
    """An engine's true behaviour, and what is known of it.

    Args:
        overhead: seconds of each batch.
        per_image: seconds of each image.
        noise: a batch takes up to this share more or less.
        speed: what is known at the start; the truth by default.
    """

    def __init__(self, overhead: float, per_image: float, *, noise: float = 0.0, speed: Speed | None = None) -> None:
        self.overhead = overhead
        self.per_image = per_image
        self.noise = noise
        self.speed = speed or Speed(overhead, per_image)

    def seconds(self, images: int, chance: random.Random) -> float:
        """How long a batch takes this time."""
        return (self.overhead + self.per_image * images) * chance.uniform(1 - self.noise, 1 + self.noise)


@dataclass(eq=False)
class Request:
    """One request and its fate; times are virtual seconds."""

    ticket: Ticket
    client: "Client"
    arrived: float
    began: float | None = None
    ended: float | None = None  # its last image was made
    refused: Exception | None = None
    expired: bool = False
    ran: list[tuple[int, int]] = field(default_factory=list)

    @property
    def late_seconds(self) -> float:
        """By how much it ended after its deadline; negative where it was in time."""
        return (self.ended or 0.0) - self.ticket.deadline.at


@dataclass(eq=False)
class Client:
    """Somebody who asks.

    Args:
        network: what runs it.
        images: of each request.
        timeout: seconds that each may take.
        rate: requests a second, Poisson; None for one after the other.
        name: for tables.
        pause: seconds before a closed client asks again.
    """

    network: Network
    images: int
    timeout: float = 30.0
    rate: float | None = None
    name: str = ""
    pause: float = 0.0
    requests: list[Request] = field(default_factory=list)

    def done(self, until: float = float("inf")) -> list[Request]:
        """What was answered in time, before `until`."""
        return [r for r in self.requests if r.ended is not None and r.late_seconds <= 0 and r.ended <= until]

    def latencies(self) -> list[float]:
        """Of what was answered, in seconds."""
        return [r.ended - r.arrived for r in self.requests if r.ended is not None]


class Simulation:
    """Runs clients against a schedule.

    Args:
        schedule: the policy; its clock is `now`.
        seed: of arrivals and noise.
        watch: called with every batch taken.
    """

    def __init__(self, schedule: Schedule, *, seed: int = 0, watch: Callable[[Batch], None] | None = None) -> None:
        self.schedule = schedule
        self.now = 0.0
        self.busy_seconds = 0.0
        self._until = 0.0
        self.chance = random.Random(seed)
        self._watch = watch
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = itertools.count()
        self._requests: dict[Ticket, Request] = {}

    def at(self, time: float, event: Callable[[], None]) -> None:
        """Let something happen."""
        heapq.heappush(self._events, (time, next(self._number), event))

    def run(self, clients: Iterable[Client], seconds: float) -> None:
        """From now on for so long; requests arrive until then, and what was accepted is finished."""
        self._until = self.now + seconds
        for client in clients:
            self._plan(client)
        while self._events:
            self.now, _, event = heapq.heappop(self._events)
            event()
            self._dispatch()

    def _plan(self, client: Client, wait: float | None = None) -> None:
        """The client's next request, after `wait` seconds or its own pace."""
        if wait is None:
            wait = self.chance.expovariate(client.rate) if client.rate else client.pause
        if self.now + wait < self._until:
            self.at(self.now + wait, lambda: self._arrive(client))

    def _arrive(self, client: Client) -> None:
        ticket = Ticket(client.network, client.images, Deadline(self.now + client.timeout))
        request = Request(ticket, client, self.now)
        client.requests.append(request)
        try:
            self.schedule.add(ticket, self.now)
        except (Busy, DeadlineExceeded) as error:
            request.refused = error
            if client.rate is None:
                self._plan(client, error.retry_after_seconds if isinstance(error, Busy) else client.timeout)
        else:
            self._requests[ticket] = request
        if client.rate is not None:
            self._plan(client)

    def _dispatch(self) -> None:
        schedule = self.schedule
        while schedule.idle_engines and schedule.waiting:
            batch = schedule.take(self.now)
            for ticket in batch.expired:
                request = self._requests.pop(ticket)
                request.expired = True
                self._again(request)
            if batch.pieces:
                self._start(batch)

    def _start(self, batch: Batch) -> None:
        network = batch.pieces[0].ticket.group
        assert isinstance(network, Network)
        seconds = network.seconds(batch.images, self.chance)
        self.busy_seconds += seconds
        if self._watch:
            self._watch(batch)
        for piece in batch.pieces:
            request = self._requests[piece.ticket]
            request.began = self.now if request.began is None else request.began
        self.at(self.now + seconds, lambda: self._finish(batch, network, seconds))

    def _finish(self, batch: Batch, network: Network, seconds: float) -> None:
        self.schedule.done(batch)
        network.speed.observe(batch.images, seconds)
        for ticket, start, stop in batch.pieces:
            request = self._requests.get(ticket)
            if request is None:  # it expired meanwhile
                continue
            request.ran.append((start, stop))
            if sum(b - a for a, b in request.ran) == ticket.images:
                request.ended = self.now
                del self._requests[ticket]
                self._again(request)

    def _again(self, request: Request) -> None:
        if request.client.rate is None:
            self._plan(request.client)


def best_rate(network: Network, *, engines: int, max_batch_images: int) -> float:
    """Images a second with nothing but full batches."""
    full = min(network.speed.chunk, max_batch_images)
    return engines * full / (network.overhead + network.per_image * full)


def _small() -> Network:
    return Network(0.0002, 0.0003, noise=0.3)


def _medium() -> Network:
    return Network(0.0003, 0.0025, noise=0.3)


def _scenarios() -> dict[str, list[Client]]:
    """What the table shows."""
    a, b = _medium(), _small()
    return {
        "lone n=1": [Client(_medium(), 1, name="n=1")],
        "64 x n=1": [Client(network, 1, name="n=1") for network in [_small()] for _ in range(64)],
        "16 x n=16": [Client(network, 16, name="n=16") for network in [_medium()] for _ in range(16)],
        "n=1 beside a stream of n=256": [Client(a, 1, rate=20.0, name="n=1"), Client(a, 256, name="n=256")],
        "n=1 beside 4 streams of n=256": [
            Client(b, 1, rate=100.0, name="n=1"),
            *(Client(b, 256, name="n=256") for _ in range(4)),
        ],
        "two models": [Client(_medium(), 256, name="medium n=256"), Client(_small(), 1, rate=100.0, name="small n=1")],
        **{
            f"{load:g} x load, n=16, {timeout:g} s": [
                Client(
                    network, 16, timeout=timeout, rate=load * best_rate(network, engines=2, max_batch_images=16) / 16
                )
            ]
            for network in [_medium()]
            for load in (0.8, 1.2, 3.0)
            for timeout in (0.25, 2.0, 30.0)
        },
        "3 x load, n=16 and n=1, 1 s": [
            Client(a, 16, timeout=1.0, rate=100.0, name="n=16"),
            Client(a, 1, timeout=1.0, rate=800.0, name="n=1"),
        ],
    }


def main() -> None:
    """Run the scenarios, print the table."""
    print(f"{'scenario':<32}{'client':<14}{'asked':>7}{'in time':>9}{'late':>6}{'expired':>9}{'refused':>9}", end="")
    print(f"{'p50 ms':>8}{'p99 ms':>8}{'goodput':>9}")
    for name, clients in _scenarios().items():
        schedule = Schedule(max_queue_images=1024, max_batch_images=16, engines=2)
        Simulation(schedule).run(clients, 20.0)
        for client_name in dict.fromkeys(client.name for client in clients):
            print(_row(name, [client for client in clients if client.name == client_name]))


def _row(name: str, clients: list[Client]) -> str:
    requests = [request for client in clients for request in client.requests]
    done = sum(len(client.done()) for client in clients)
    ended = sum(request.ended is not None for request in requests)
    best = best_rate(clients[0].network, engines=2, max_batch_images=16)
    times = [1000 * latency for client in clients for latency in client.latencies()] or [float("nan")]
    goodput = sum(len(client.done(20.0)) * client.images for client in clients) / 20.0 / best
    return (
        f"{name:<32}{clients[0].name:<14}{len(requests):>7}{done:>9}{ended - done:>6}"
        f"{sum(request.expired for request in requests):>9}"
        f"{sum(request.refused is not None for request in requests):>9}"
        f"{np.percentile(times, 50):>8.1f}{np.percentile(times, 99):>8.1f}{goodput:>9.2f}"
    )


if __name__ == "__main__":
    main()
