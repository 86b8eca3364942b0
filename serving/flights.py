"""Work that several wait for is done once. Knows nothing of what the work is.

Nobody waits for much more than was asked: one key is not waited for where it is part of a large piece of work, but
worked on once more. And what only those wanted who left is not done: the work begins again with what is left.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, NamedTuple, TypeVar

from serving.calls import Done, Leave, outcome
from serving.schedule import Deadline

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

# Starts the work for some keys under a deadline that may still be extended; called back with their values. With True,
# it had been begun with more keys: it was admitted then, and nobody is refused because another left.
Start = Callable[[list[K], Deadline, bool, Done[Mapping[K, V]]], Leave]

MOST_MORE = 4  # times the keys that are wanted may be in work that is waited for


class Waiter(NamedTuple, Generic[K, V]):
    """Who is told, and which of a flight's keys are wanted."""

    keys: Sequence[K]
    done: Done[Mapping[K, V]]


@dataclass(eq=False, slots=True)
class Flight(Generic[K, V]):
    """One piece of work under way for some keys."""

    keys: list[K]
    deadline: Deadline
    start: Start[K, V]
    leave: Leave | None = None
    waiters: dict[object, Waiter[K, V]] = field(default_factory=dict)


class Flights(Generic[K, V]):
    """Starts work for keys that nobody works on, and joins what is under way; ended when nobody waits for it."""

    def __init__(self) -> None:
        self._flights: dict[K, Flight[K, V]] = {}

    def join(self, key: K, deadline: Deadline, start: Start[K, V], done: Done[Mapping[K, V]]) -> Leave:
        """Be called back with the values of the work that makes `key`, which may be of more keys.

        Args:
            key: wanted.
            deadline: of this caller; work that it joins is extended to it.
            start: starts the work where nobody does it yet; it must not call back at once.
            done: called back.

        Raises:
            Exception: whatever `start` raised.
        """
        flight = self._joined(key, 1)
        if flight is None:
            flight = self._start([key], deadline, start)
        return self._wait(flight, (key,), deadline, done)

    async def get(self, keys: Iterable[K], deadline: Deadline, start: Start[K, V]) -> Mapping[K, V]:
        """The values of distinct keys; see `join`.

        Raises:
            Exception: whatever `start`, or the work for one of the keys, raised.
        """
        wanted = list(keys)
        flights: dict[Flight[K, V], list[K]] = {}
        new = []
        for key in wanted:
            flight = self._joined(key, len(wanted))
            if flight is None:
                new.append(key)
            else:
                flights.setdefault(flight, []).append(key)
        if new:
            flights[self._start(new, deadline, start)] = new
        return await outcome(partial(self._gather, flights, deadline))

    def _gather(self, flights: Mapping[Flight[K, V], list[K]], deadline: Deadline, done: Done[Mapping[K, V]]) -> Leave:
        """Be called back once with what is wanted of several flights, or with the first error."""
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
                done({key: values[key] for keys in flights.values() for key in keys})

        def leave() -> None:
            for one in leaves:
                one()

        leaves += [self._wait(flight, keys, deadline, landed) for flight, keys in flights.items()]
        return leave

    def _joined(self, key: K, wanted: int) -> Flight[K, V] | None:
        """The work under way for a key, where who wants so many keys may wait for it."""
        flight = self._flights.get(key)
        return flight if flight is not None and len(flight.keys) <= MOST_MORE * wanted else None

    def _start(self, keys: list[K], deadline: Deadline, start: Start[K, V]) -> Flight[K, V]:
        flight: Flight[K, V] = Flight(keys, Deadline(deadline.at), start)
        flight.leave = start(keys, flight.deadline, False, partial(self._land, flight))
        for key in keys:
            self._flights[key] = flight
        return flight

    def _wait(self, flight: Flight[K, V], keys: Sequence[K], deadline: Deadline, done: Done[Mapping[K, V]]) -> Leave:
        flight.deadline.extend(deadline.at)
        waiter = object()
        flight.waiters[waiter] = Waiter(keys, done)
        return partial(self._leave, flight, waiter)

    def _leave(self, flight: Flight[K, V], waiter: object) -> None:
        if flight.waiters.pop(waiter, None) is None:
            return
        if any(len(other.keys) == len(flight.keys) for other in flight.waiters.values()):
            return  # the usual case: somebody wants it all
        wanted = frozenset[K]().union(*(other.keys for other in flight.waiters.values()))
        if len(wanted) == len(flight.keys):
            return
        if wanted:
            self._narrow(flight, wanted)
            return
        self._forget(flight)  # at once: nobody may join work that is being ended
        if flight.leave is not None:
            flight.leave()

    def _narrow(self, flight: Flight[K, V], wanted: frozenset[K]) -> None:
        """Begin again with some of a flight's keys, for those who still wait."""
        self._forget(flight)
        if flight.leave is not None:
            flight.leave()
        flight.keys = [key for key in flight.keys if key in wanted]
        try:
            flight.leave = flight.start(flight.keys, flight.deadline, True, partial(self._land, flight))
        except Exception as error:
            self._land(flight, error)
            return
        for key in flight.keys:
            self._flights.setdefault(key, flight)

    def _land(self, flight: Flight[K, V], ended: Mapping[K, V] | BaseException) -> None:
        """The work ended: its waiters are told, once."""
        self._forget(flight)
        waiters, flight.waiters = flight.waiters, {}
        for waiter in waiters.values():
            waiter.done(ended)

    def _forget(self, flight: Flight[K, V]) -> None:
        for key in flight.keys:
            if self._flights.get(key) is flight:
                del self._flights[key]
