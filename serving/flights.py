"""Work that several wait for is done once. Knows nothing of what the work is."""

import asyncio
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from serving.schedule import Deadline

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(eq=False, slots=True)
class Work(Generic[K, V]):
    """What was started.

    Args:
        future: of the outcome.
        collect: makes the values of the outcome; called once, when it is there.
        cancel: ends the work; the future may be left as it is.
    """

    future: asyncio.Future[Any]
    collect: Callable[[Any], Mapping[K, V]]
    cancel: Callable[[], object]


@dataclass(eq=False, slots=True)
class Flight(Generic[K, V]):
    """One piece of work under way for some keys, and its outcome when it has landed."""

    keys: list[K]
    deadline: Deadline
    work: Work[K, V]
    waiters: set[asyncio.Future[None]] = field(default_factory=set)
    landed: bool = False
    values: Mapping[K, V] = field(default_factory=dict)
    error: BaseException | None = None

    def outcome(self) -> Mapping[K, V]:
        """The values, or whatever the work raised."""
        if self.error is not None:
            raise self.error
        return self.values


class Flights(Generic[K, V]):
    """Starts work for keys that nobody works on, and joins what is under way; cancelled when the last waiter leaves.

    Waiters have futures of their own: a task for each, as asyncio.wait makes, costs 17 us on the path of every request.
    """

    def __init__(self) -> None:
        self._flights: dict[K, Flight[K, V]] = {}

    async def get(
        self,
        keys: Iterable[K],
        deadline: Deadline,
        start: Callable[[list[K], Deadline], Work[K, V]],
    ) -> Mapping[K, V]:
        """The values of keys.

        Args:
            keys: distinct.
            deadline: of this caller; work that it joins is extended to it.
            start: starts the work for those keys that nobody works on yet.

        Raises:
            Exception: whatever `start`, or the work for one of the keys, raised.
        """
        wanted = list(keys)
        new = [key for key in wanted if key not in self._flights]
        if new:
            flight = self._start(new, Deadline(deadline.at), start)
            if len(new) == len(wanted):  # alone, as most are
                return await self._wait(flight, deadline)
        flights = {id(flight): flight for flight in map(self._flights.__getitem__, wanted)}.values()
        waiters = [self._join(flight, deadline) for flight in flights]
        try:
            for waiter in waiters:
                await waiter
            values: dict[K, V] = {}
            for flight in flights:
                values.update(flight.outcome())
            return {key: values[key] for key in wanted}
        finally:
            for flight, waiter in zip(flights, waiters, strict=True):
                self._leave(flight, waiter)

    async def _wait(self, flight: Flight[K, V], deadline: Deadline) -> Mapping[K, V]:
        waiter = self._join(flight, deadline)
        try:
            await waiter
            return flight.outcome()
        finally:
            self._leave(flight, waiter)

    def _join(self, flight: Flight[K, V], deadline: Deadline) -> "asyncio.Future[None]":
        flight.deadline.extend(deadline.at)
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        flight.waiters.add(waiter)
        return waiter

    def _leave(self, flight: Flight[K, V], waiter: "asyncio.Future[None]") -> None:
        flight.waiters.discard(waiter)
        if not flight.waiters and not flight.landed:
            self._forget(flight)  # at once: nobody may join work that is being cancelled
            flight.work.cancel()

    def _start(
        self, keys: list[K], deadline: Deadline, start: Callable[[list[K], Deadline], Work[K, V]]
    ) -> Flight[K, V]:
        flight = Flight(keys, deadline, start(keys, deadline))
        self._flights.update(dict.fromkeys(keys, flight))
        flight.work.future.add_done_callback(lambda _: self._land(flight))
        return flight

    def _land(self, flight: Flight[K, V]) -> None:
        """The work ended: its waiters read the outcome."""
        self._forget(flight)
        flight.landed = True
        try:
            flight.values = flight.work.collect(flight.work.future.result())
        except (Exception, asyncio.CancelledError) as error:
            flight.error = error
        for waiter in flight.waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _forget(self, flight: Flight[K, V]) -> None:
        for key in flight.keys:
            if self._flights.get(key) is flight:
                del self._flights[key]
