"""Work that several wait for is done once. Knows nothing of what the work is."""

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, TypeVar

from serving.calls import Done, Leave, outcome
from serving.schedule import Deadline

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

# Starts the work for some keys under a deadline that may still be extended; called back with their values.
Start = Callable[[list[K], Deadline, Done[Mapping[K, V]]], Leave]


@dataclass(eq=False, slots=True)
class Flight(Generic[K, V]):
    """One piece of work under way for some keys."""

    keys: list[K]
    deadline: Deadline
    leave: Leave | None = None
    waiters: dict[object, Done[Mapping[K, V]]] = field(default_factory=dict)


class Flights(Generic[K, V]):
    """Starts work for keys that nobody works on, and joins what is under way; ended when the last waiter leaves."""

    def __init__(self) -> None:
        self._flights: dict[K, Flight[K, V]] = {}

    def join(self, key: K, deadline: Deadline, start: Start[K, V], done: Done[Mapping[K, V]]) -> Leave:
        """Be called back with the values of the work that makes `key`, which may be more.

        Args:
            key: wanted.
            deadline: of this caller; work that it joins is extended to it.
            start: starts the work where nobody does it yet; it must not call back at once.
            done: called back.

        Raises:
            Exception: whatever `start` raised.
        """
        flight = self._flights.get(key)
        if flight is None:
            flight = self._start([key], deadline, start)
        return self._wait(flight, deadline, done)

    async def get(self, keys: Iterable[K], deadline: Deadline, start: Start[K, V]) -> Mapping[K, V]:
        """The values of distinct keys; see `join`.

        Raises:
            Exception: whatever `start`, or the work for one of the keys, raised.
        """
        wanted = list(keys)
        new = [key for key in wanted if key not in self._flights]
        if new:
            self._start(new, deadline, start)
        flights = list({id(flight): flight for flight in map(self._flights.__getitem__, wanted)}.values())
        return await outcome(partial(self._gather, wanted, flights, deadline))

    def _gather(
        self, wanted: list[K], flights: list[Flight[K, V]], deadline: Deadline, done: Done[Mapping[K, V]]
    ) -> Leave:
        """Be called back once with the values of several flights, or with the first error."""
        values: dict[K, V] = {}
        leaves: list[Leave] = []
        left = len(flights)

        def landed(ended: Mapping[K, V] | BaseException) -> None:
            nonlocal left
            left -= 1
            if isinstance(ended, BaseException):
                leave()
                done(ended)
                return
            values.update(ended)
            if not left:
                done({key: values[key] for key in wanted})

        def leave() -> None:
            for one in leaves:
                one()

        leaves += [self._wait(flight, deadline, landed) for flight in flights]
        return leave

    def _start(self, keys: list[K], deadline: Deadline, start: Start[K, V]) -> Flight[K, V]:
        flight: Flight[K, V] = Flight(keys, Deadline(deadline.at))
        flight.leave = start(keys, flight.deadline, partial(self._land, flight))
        for key in keys:
            self._flights[key] = flight
        return flight

    def _wait(self, flight: Flight[K, V], deadline: Deadline, done: Done[Mapping[K, V]]) -> Leave:
        flight.deadline.extend(deadline.at)
        waiter = object()
        flight.waiters[waiter] = done
        return partial(self._leave, flight, waiter)

    def _leave(self, flight: Flight[K, V], waiter: object) -> None:
        if flight.waiters.pop(waiter, None) is not None and not flight.waiters:
            self._forget(flight)  # at once: nobody may join work that is being ended
            if flight.leave is not None:
                flight.leave()

    def _land(self, flight: Flight[K, V], ended: Mapping[K, V] | BaseException) -> None:
        """The work ended: its waiters are told, once."""
        self._forget(flight)
        waiters, flight.waiters = flight.waiters, {}
        for done in waiters.values():
            done(ended)

    def _forget(self, flight: Flight[K, V]) -> None:
        for key in flight.keys:
            if self._flights.get(key) is flight:
                del self._flights[key]
