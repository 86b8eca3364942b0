"""Work that several wait for is done once. Knows nothing of what the work is."""

import asyncio
from collections.abc import Callable, Coroutine, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from serving.schedule import Deadline

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(eq=False)
class Flight(Generic[K, V]):
    """One piece of work under way for some keys."""

    keys: list[K]
    task: asyncio.Task[Mapping[K, V]]
    deadline: Deadline
    waiters: int = 0


class Flights(Generic[K, V]):
    """Starts work for keys that nobody works on, and joins what is under way; cancelled when the last waiter leaves."""

    def __init__(self) -> None:
        self._flights: dict[K, Flight[K, V]] = {}

    async def get(
        self,
        keys: Iterable[K],
        deadline: Deadline,
        start: Callable[[list[K], Deadline], Coroutine[Any, Any, Mapping[K, V]]],
    ) -> dict[K, V]:
        """The values of keys.

        Args:
            keys: distinct.
            deadline: of this caller; work that it joins is extended to it.
            start: makes the work for those keys that nobody works on yet.

        Raises:
            Exception: whatever the work for one of the keys raised.
        """
        wanted = list(keys)
        new = [key for key in wanted if key not in self._flights]
        if new:
            self._start(new, Deadline(deadline.at), start)
        flights = {id(self._flights[key]): self._flights[key] for key in wanted}.values()
        for flight in flights:
            flight.waiters += 1
            flight.deadline.extend(deadline.at)
        try:
            await asyncio.wait([flight.task for flight in flights])
            values: dict[K, V] = {}
            for flight in flights:
                values.update(flight.task.result())
            return {key: values[key] for key in wanted}
        finally:
            for flight in flights:
                flight.waiters -= 1
                if not flight.waiters and not flight.task.done():
                    self._land(flight)  # at once: nobody may join work that is being cancelled
                    flight.task.cancel()

    def _start(
        self,
        keys: list[K],
        deadline: Deadline,
        start: Callable[[list[K], Deadline], Coroutine[Any, Any, Mapping[K, V]]],
    ) -> None:
        task = asyncio.get_running_loop().create_task(start(keys, deadline))
        flight = Flight(keys, task, deadline)
        self._flights.update(dict.fromkeys(keys, flight))
        task.add_done_callback(lambda _: self._land(flight))

    def _land(self, flight: Flight[K, V]) -> None:
        for key in flight.keys:
            if self._flights.get(key) is flight:
                del self._flights[key]
        if flight.task.done() and not flight.task.cancelled():
            flight.task.exception()  # seen, even where every waiter failed for another reason first
