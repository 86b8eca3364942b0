"""What waits for the engines, and in which order it can be had: by size and by due time. Pure; decides nothing."""

import heapq
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from serving.speed import Speed

MANY_REMOVED = 64  # tickets that may stay in the heaps; more are cleared away when they may be the majority

ANY_CLASS = 64  # above all size classes


class Group(Protocol):
    """What tickets can share a batch of: a network."""

    @property
    def speed(self) -> Speed:
        """Of its batches on one engine."""
        ...


@dataclass(eq=False, slots=True)
class Deadline:
    """When an answer stops being of use; shared work takes the latest of those who wait for it.

    Args:
        at: on the scheduler's clock, in seconds.
    """

    at: float

    def extend(self, at: float) -> None:
        """Somebody who can wait longer joined."""
        self.at = max(self.at, at)


@dataclass(eq=False, slots=True)
class Ticket:
    """Images of one caller that wait to be run.

    Args:
        group: what they can share a batch with.
        images: how many.
        deadline: of the answer.
        admitted: whether its images were taken before, as part of more: then it is not refused.
    """

    group: Group
    images: int
    deadline: Deadline
    admitted: bool = False
    started: int = 0  # images handed out so far
    number: int = 0  # by arrival
    margin_seconds: float = 0.0  # what the answer needs after the last image
    unit_seconds: float = 0.0  # of engine time for each image, as expected at arrival
    bucket: int = 0  # of its due time, at arrival
    long: bool = False  # whether it was more than a chunk, at arrival
    line: "Line | None" = None  # where it waits

    @property
    def waiting(self) -> int:
        """Images not handed out yet."""
        return self.images - self.started

    @property
    def size_class(self) -> int:
        """0, 1, 2, 3, ... for 1, 2, 3-4, 5-8, ... images."""
        return (self.images - self.started - 1).bit_length()

    @property
    def due(self) -> float:
        """When its last image must have run."""
        return self.deadline.at - self.margin_seconds


class Piece(NamedTuple):
    """Images [start, stop) of a ticket, in one batch."""

    ticket: Ticket
    start: int
    stop: int


@dataclass(eq=False, slots=True)
class Batch:
    """What one engine runs at once.

    Args:
        group: of all pieces.
        pieces: what to run; empty when nothing waits.
        expired: tickets that left the queue because they can no longer be in time.
        images: of all pieces.
        ends: when it should be done.
    """

    group: Group | None = None
    pieces: list[Piece] = field(default_factory=list)
    expired: list[Ticket] = field(default_factory=list)
    images: int = 0
    ends: float = 0.0


Entry = tuple[float, int, Ticket]  # due, number: the order in which tickets of one size are taken


class Line:
    """What waits for one group: a heap by due time for each size class.

    A ticket has one entry in one heap. Removed tickets stay until they come to a heap's top.
    """

    __slots__ = ("group", "heaps", "long", "removed", "served_class", "tickets", "unit_seconds", "waiting")

    def __init__(self, group: Group, unit_seconds: float) -> None:
        self.group = group
        self.unit_seconds = unit_seconds  # engine time of an image in a full batch, as it is known now
        self.waiting = 0  # images
        self.tickets = 0
        self.long = 0  # tickets of more than a chunk
        self.removed = 0  # tickets, since they were last cleared away
        self.served_class = ANY_CLASS  # of the shortest, since those due first had their turn
        self.heaps: list[list[Entry]] = []

    def push(self, ticket: Ticket) -> None:
        """Sort a ticket in by what is left of it."""
        while len(self.heaps) <= ticket.size_class:
            self.heaps.append([])
        heapq.heappush(self.heaps[ticket.size_class], (ticket.due, ticket.number, ticket))

    def shortest(self) -> list[Entry]:
        """The heap whose top is of the smallest size there is."""
        return next(heap for heap in self.heaps if heap and _settled(heap))

    def earliest(self) -> list[Entry]:
        """The heap whose top is due first."""
        first: list[Entry] = []
        for heap in self.heaps:
            if heap and _settled(heap) and (not first or heap[0] < first[0]):
                first = heap
        return first

    def clear_removed(self) -> None:
        """Forget removed tickets, where they are many."""
        self.removed += 1
        if self.removed > max(MANY_REMOVED, self.tickets):
            self.removed = 0
            self.heaps = [[entry for entry in heap if entry[2].line is not None] for heap in self.heaps]
            for heap in self.heaps:
                heapq.heapify(heap)


def _settled(heap: list[Entry]) -> bool:
    """Whether the heap holds something; if so, its top is a ticket that waits, and is due then."""
    while heap:
        due, number, ticket = heap[0]
        if ticket.line is None:
            heapq.heappop(heap)
        elif ticket.due > due:  # it was extended
            heapq.heapreplace(heap, (ticket.due, number, ticket))
        else:
            return True
    return False
