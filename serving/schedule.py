"""Which images run next: the batching policy, pure. Knows no clock, no threads, no networks and no requests.

Work-conserving: an idle engine always gets something while anything waits, and nothing is ever held back to fill a
batch; batches form from what queues while engines are busy. Images are counted, not requests. Tickets share a batch
max-min fairly, and what is left of a large one goes to the end of the queue, so small ones never wait for all of it.
"""

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from serving.errors import QueueFull


@dataclass(eq=False)
class Deadline:
    """When an answer stops being of use; shared work takes the latest of those who wait for it.

    Args:
        at: on the scheduler's clock, in seconds.
    """

    at: float

    def extend(self, at: float) -> None:
        """Somebody who can wait longer joined."""
        self.at = max(self.at, at)


@dataclass(eq=False)
class Ticket:
    """Images of one caller that wait to be run.

    Args:
        group: what they can share a batch with: the generator.
        images: how many.
        deadline: they are not started after it.
        started: how many of them have been handed out so far.
    """

    group: Hashable
    images: int
    deadline: Deadline
    started: int = 0

    @property
    def waiting(self) -> int:
        """Images not handed out yet."""
        return self.images - self.started


class Piece(NamedTuple):
    """Images [start, stop) of a ticket, in one batch."""

    ticket: Ticket
    start: int
    stop: int


class Turn(NamedTuple):
    """What the schedule decided.

    Args:
        pieces: the batch to run, all of one group; empty when nothing waits.
        expired: tickets whose deadline has passed; they left the queue.
    """

    pieces: list[Piece]
    expired: list[Ticket]


class Schedule:
    """A queue of tickets, bounded in images.

    Args:
        max_queue_images: bound of what waits; what runs is not counted.
        max_batch_images: bound of one batch.
    """

    def __init__(self, *, max_queue_images: int, max_batch_images: int) -> None:
        self.max_queue_images = max_queue_images
        self.max_batch_images = max_batch_images
        self.waiting = 0  # images
        self._tickets: OrderedDict[Ticket, None] = OrderedDict()

    def add(self, ticket: Ticket, *, retry_after_seconds: float) -> None:
        """Queue a ticket.

        Raises:
            QueueFull: its images would pass the bound; the error carries `retry_after_seconds`.
        """
        if self.waiting + ticket.waiting > self.max_queue_images:
            raise QueueFull(
                asked=ticket.waiting,
                waiting=self.waiting,
                limit=self.max_queue_images,
                retry_after_seconds=retry_after_seconds,
            )
        self._tickets[ticket] = None
        self.waiting += ticket.waiting

    def remove(self, ticket: Ticket) -> int:
        """Forget a ticket's images that have not been handed out; returns how many there were."""
        if ticket not in self._tickets:
            return 0
        del self._tickets[ticket]
        self.waiting -= ticket.waiting
        return ticket.waiting

    def take(self, now: float, idle_engines: int) -> Turn:
        """The next batch for one of `idle_engines` (>= 1) idle engines; what waits is spread over them."""
        room = min(self.max_batch_images, -(-self.waiting // idle_engines))
        chosen: list[Ticket] = []
        expired: list[Ticket] = []
        for ticket in list(self._tickets):
            if len(chosen) == room:
                break
            if ticket.deadline.at <= now:
                self.remove(ticket)
                expired.append(ticket)
            elif not chosen or ticket.group is chosen[0].group:
                chosen.append(ticket)
        shares = share_out(room, [ticket.waiting for ticket in chosen])
        return Turn([self._hand_out(ticket, images) for ticket, images in zip(chosen, shares, strict=True)], expired)

    def _hand_out(self, ticket: Ticket, images: int) -> Piece:
        """Start some of a ticket's images; what is left of it goes to the end of the queue."""
        piece = Piece(ticket, ticket.started, ticket.started + images)
        ticket.started = piece.stop
        self.waiting -= images
        if ticket.waiting:
            self._tickets.move_to_end(ticket)
        else:
            del self._tickets[ticket]
        return piece


def share_out(room: int, wanted: Sequence[int]) -> list[int]:
    """Max-min fair shares: everyone gets at least 1, small wishes are met whole, large ones split what is left.

    Args:
        room: images in the batch.
        wanted: images that each ticket still has, each >= 1, at most `room` of them.

    Returns:
        the share of each; they sum to min(room, sum(wanted)).
    """
    shares = [0] * len(wanted)
    hungry = list(range(len(wanted)))
    while room > 0 and hungry:
        quota = max(1, room // len(hungry))
        for i in hungry:
            give = min(quota, wanted[i] - shares[i], room)
            shares[i] += give
            room -= give
        hungry = [i for i in hungry if shares[i] < wanted[i]]
    return shares
