"""Which images run next: the batching policy, pure. Knows no clock, no threads, no networks and no requests.

Work-conserving: an idle engine always gets something while anything waits, and nothing is ever held back to fill a
batch; batches form from what queues while engines are busy. Images are counted, not requests. A batch holds images of
one group. Beside a ticket that is longer than a chunk (see serving.speed) every batch is one chunk at most, so nobody
ever waits for the whole of a large ticket; where all are short, batches are as large as the network is proven for, but
take 40 ms or two single images' time at most, as another group's images wait for them.

Relaxed, while all that waits can be done before the earliest deadline: groups take turns, and in each group the
shortest tickets and those due first take turns. So neither can starve the other, what is short never waits behind what
is long for more than a batch, and long tickets are done one after another, not all at the end. Pressed, when there is
more: earliest deadline first.

A ticket is refused at once where it, or for its sake one that waits already, would be late by the engines' own speed;
what can no longer be in time is not run. So an overloaded server does work that is of use, and no other.
"""

import heapq
import math
from collections import OrderedDict
from collections.abc import Callable

from serving.errors import DeadlineExceeded, QueueFull, QueueTooLong
from serving.speed import Speed
from serving.tickets import ANY_CLASS, Batch, Deadline, Entry, Group, Line, Piece, Ticket

__all__ = ["Batch", "Deadline", "Group", "Piece", "Schedule", "Ticket"]

ANSWER_SHARE = 0.1  # of a request's time is left for encoding and sending
ANSWER_SECONDS = 0.02  # or this, whichever is less
BUCKET_SECONDS = 1 / 16  # work is added up by its due time in buckets of this width


class Schedule:
    """A queue of tickets, bounded in images and in time.

    Args:
        max_queue_images: bound of what waits; what runs is not counted.
        max_batch_images: bound of one batch.
        engines: that take batches.
    """

    def __init__(self, *, max_queue_images: int, max_batch_images: int, engines: int) -> None:
        self.max_queue_images = max_queue_images
        self.max_batch_images = max_batch_images
        self.engines = engines
        self.waiting = 0  # images
        self._lines: OrderedDict[Group, Line] = OrderedDict()  # those with work, in the order of their turns
        self._running: set[Batch] = set()
        self._due: dict[int, list[float]] = {}  # bucket of due times -> tickets, seconds of engine time
        self._latest = 0.0  # due time of those in the queue, or later
        self._arrived = 0

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing runs."""
        return not self.waiting and not self._running

    @property
    def idle_engines(self) -> int:
        """Engines that run nothing."""
        return self.engines - len(self._running)

    def add(self, ticket: Ticket, now: float) -> None:
        """Queue a ticket. One that was admitted before may pass the bound by what came since.

        Raises:
            QueueFull: its images would pass the bound.
            QueueTooLong: it, or one that waits already, would be late; the error says by how much.
            DeadlineExceeded: it could not be in time even alone.
        """
        if not ticket.admitted and self.waiting + ticket.images > self.max_queue_images:
            raise self._full(ticket.images, now)
        allowed = ticket.deadline.at - now
        ticket.margin_seconds = min(ANSWER_SECONDS, ANSWER_SHARE * allowed) if allowed > 0.0 else 0.0
        due = ticket.due
        ticket.bucket = int(due / BUCKET_SECONDS)
        line = self._lines.get(ticket.group)
        if line is None:
            line = Line(ticket.group, self._unit_seconds(ticket.group.speed))
        ticket.unit_seconds = line.unit_seconds
        if not ticket.admitted:
            self._check_time(ticket, due, now)
        self._lines[ticket.group] = line
        self._latest = max(self._latest, due)
        self._arrived += 1
        ticket.number = self._arrived
        ticket.line = line
        ticket.long = ticket.images > ticket.group.speed.chunk
        line.tickets += 1
        line.long += ticket.long
        line.push(ticket)
        work = self._due.get(ticket.bucket)
        if work is None:
            work = self._due[ticket.bucket] = [0, 0.0]
        work[0] += 1
        self._count(ticket, line, ticket.images)

    def remove(self, ticket: Ticket) -> int:
        """Forget a ticket's images that have not been handed out; returns how many there were."""
        line = ticket.line
        if line is None:
            return 0
        left = ticket.waiting
        self._leave(ticket, line)
        line.clear_removed()
        return left

    def take(self, now: float, takers: int | None = None) -> Batch:
        """The next batch for an idle engine. Call `done` when it ended.

        Args:
            now: the time.
            takers: idle engines that what waits is spread over, this one included; None for all.
        """
        takers = max(1, self.idle_engines if takers is None else takers)
        batch = Batch()
        while self.waiting and not batch.pieces:
            line, pressed = self._choose(now)
            speed = line.group.speed
            line.unit_seconds = self._unit_seconds(speed)
            room = min(self._most(line, pressed), -(-line.waiting // takers))
            shares: dict[Ticket, int] = {}
            if not pressed and self._short_turn(line):
                taken = self._fill(line, room, line.shortest, shares, whole=True)
                # While the batch itself takes longer than its images (GPUs), more of them cost nobody much.
                room = min(room, math.floor(speed.overhead / speed.per_image)) - taken
            else:
                line.served_class = ANY_CLASS
            self._fill(line, room, line.earliest, shares, pressed=(now, batch.expired) if pressed else None)
            if shares:
                batch.group = line.group
                batch.pieces = [Piece(ticket, ticket.started - n, ticket.started) for ticket, n in shares.items()]
                batch.images = sum(shares.values())
                batch.ends = now + speed.seconds(batch.images)
                self._running.add(batch)
            if line.waiting:
                self._lines.move_to_end(line.group)
        return batch

    def done(self, batch: Batch) -> None:
        """The batch ended, one way or the other."""
        self._running.discard(batch)

    def wait_seconds(self, now: float) -> float:
        """How long until all that runs and waits now is done, by the engines' speed."""
        work = self._running_work(now)
        for line in self._lines.values():
            work += line.waiting * line.unit_seconds
        return work / self.engines

    def _running_work(self, now: float) -> float:
        """Engine time that is left of what runs."""
        work = 0.0
        for batch in self._running:
            if batch.ends > now:
                work += batch.ends - now
        return work

    def _full(self, asked: int, now: float) -> QueueFull:
        over = (self.waiting + asked - self.max_queue_images) / max(1, self.waiting)
        seconds = self.wait_seconds(now) * min(1.0, over)
        return QueueFull(asked=asked, waiting=self.waiting, limit=self.max_queue_images, retry_after_seconds=seconds)

    def _alone(self, speed: Speed, images: int) -> float:
        """What images take on all engines, where nothing else is."""
        return speed.fastest(images, self.engines, self.max_batch_images)

    def _unit_seconds(self, speed: Speed) -> float:
        """Engine time of an image in a full batch."""
        full = min(speed.chunk, self.max_batch_images)
        return speed.seconds(full) / full

    def _choose(self, now: float) -> tuple[Line, bool]:
        """Whose turn it is, and whether time presses."""
        first = min(self._lines.values(), key=_first_entry)
        if self._presses(first, now, 0.0):
            return first, True
        return next(iter(self._lines.values())), False

    def _short_turn(self, line: Line) -> bool:
        """Whether the shortest tickets are next: after those due first, or when some come that are shorter still."""
        shortest = line.shortest()
        size_class = shortest[0][2].size_class
        if shortest is line.earliest() or size_class >= line.served_class:
            return False
        line.served_class = size_class
        return True

    def _presses(self, first: Line, now: float, more_seconds: float) -> bool:
        """Whether all that waits, and `more_seconds`, may take until after the earliest due time, which `first` has."""
        batch = first.group.speed.seconds(min(self._most(first, False), first.waiting))
        return now + self.wait_seconds(now) + more_seconds + batch > _first_entry(first)[0]

    def _most(self, line: Line, pressed: bool) -> int:
        """Images of a batch: a chunk beside long tickets, and where some could be late for the others' sake."""
        speed = line.group.speed
        return min(self.max_batch_images, speed.chunk if line.long or pressed else speed.most)

    def _fill(
        self,
        line: Line,
        room: int,
        pick: Callable[[], list[Entry]],
        shares: dict[Ticket, int],
        *,
        whole: bool = False,
        pressed: tuple[float, list[Ticket]] | None = None,
    ) -> int:
        """Hand out up to `room` images; returns how many.

        Args:
            line: whose.
            room: images.
            pick: gives the heap whose top is next.
            shares: images of each ticket in this batch, added to.
            whole: whether only the first ticket may be cut.
            pressed: the time, and where tickets go that can no longer be in time; None while nobody can be late.
        """
        left = room
        taken = 0
        while left > 0 and line.waiting:
            heap = pick()
            ticket = heap[0][2]
            if pressed and pressed[0] + self._alone(ticket.group.speed, ticket.waiting) > ticket.due:
                heapq.heappop(heap)
                self._leave(ticket, line)
                pressed[1].append(ticket)
                continue
            if pressed and not shares:  # nobody may make the first one late
                left = min(left, self._in_time(ticket, pressed[0]))
            images = min(left, ticket.waiting)
            if whole and shares and images < ticket.waiting:
                break
            left -= images
            taken += images
            shares[ticket] = shares.get(ticket, 0) + images
            self._hand_out(ticket, images, line, heap)
        return taken

    def _in_time(self, ticket: Ticket, now: float) -> int:
        """Images of a batch that ends before a ticket is due; at least 1."""
        speed = ticket.group.speed
        return max(1, math.floor((ticket.due - now - speed.overhead) / speed.per_image + 1e-9))

    def _hand_out(self, ticket: Ticket, images: int, line: Line, heap: list[Entry]) -> None:
        """Start some images of the ticket at the top of a heap."""
        size_class = ticket.size_class
        self._count(ticket, line, -images)
        ticket.started += images
        if not ticket.waiting:
            heapq.heappop(heap)
            self._leave(ticket, line)
        elif ticket.size_class != size_class:
            heapq.heappop(heap)
            line.push(ticket)

    def _leave(self, ticket: Ticket, line: Line) -> None:
        """The ticket is no longer in the queue."""
        ticket.line = None
        line.tickets -= 1
        line.long -= ticket.long
        self._count(ticket, line, -ticket.waiting)
        due = self._due[ticket.bucket]
        due[0] -= 1
        if not due[0]:
            del self._due[ticket.bucket]
        if not line.tickets:
            del self._lines[line.group]

    def _count(self, ticket: Ticket, line: Line, images: int) -> None:
        """So many more of a ticket's images wait, or fewer."""
        self.waiting += images
        line.waiting += images
        self._due[ticket.bucket][1] += images * ticket.unit_seconds

    def _check_time(self, ticket: Ticket, due: float, now: float) -> None:
        """Refuse what would be late, or make others late."""
        alone = self._alone(ticket.group.speed, ticket.images)
        if now + alone > due:
            if self.idle:
                ticket.group.speed.doubt((due - now) / alone)
            raise DeadlineExceeded(
                f"{ticket.images} images take about {alone:.3g} s here, "
                f"and the time left for the request is {max(0.0, ticket.deadline.at - now):.3g} s"
            )
        late = now + self.wait_seconds(now) + alone - due  # as if all that waits came first
        if not self.waiting:
            self._latest = 0.0
        elif due < self._latest:  # some of it can come later
            work = ticket.images * ticket.unit_seconds / self.engines
            if late > 0 or self._presses(min(self._lines.values(), key=_first_entry), now, work):
                late = self._late(ticket, now, alone, work)
        if late > 0:
            raise QueueTooLong(late_seconds=late, wait_seconds=self.wait_seconds(now))

    def _late(self, ticket: Ticket, now: float, alone: float, work: float) -> float:
        """How late a ticket would be, or would make one that is due later and in time now.

        Args:
            ticket: not queued yet.
            now: the time.
            alone: what it takes on all engines.
            work: by which others would be later.
        """
        late = 0.0
        ends = begins = now + self._running_work(now) / self.engines
        for bucket in sorted(self._due):
            ends += self._due[bucket][1] / self.engines
            if bucket <= ticket.bucket:
                begins = ends
            elif (bucket + 1) * BUCKET_SECONDS >= ends:  # else it is late already, whoever comes
                late = max(late, ends + work - bucket * BUCKET_SECONDS)
        return max(late, begins + alone - ticket.due)


def _first_entry(line: Line) -> Entry:
    """What is due first in a line."""
    return line.earliest()[0]
