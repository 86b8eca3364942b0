"""Gathers latents into calls of the network, on threads of its own. Knows nothing of HTTP, seeds or caches."""

import asyncio
import time
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np

from models.generator import Samples
from models.latents import ClassIndices, Latents
from serving.errors import DeadlineExceeded
from serving.offload import offload
from serving.schedule import Deadline, Piece, Schedule, Ticket

RATE_MEMORY = 0.9  # weight of the past in the running mean of an engine's speed
ASSUMED_IMAGES_PER_SECOND = 200.0  # before the first batch
EARLY_SECONDS = 0.01  # by which a timer may fire before its time


class Network(Hashable, Protocol):
    """What the batcher needs of a generator (serving.live.LiveModel)."""

    def generate(self, z: Latents, class_idx: ClassIndices | None = None) -> Samples:
        """[N, z_dim] float32 and [N] int64 to N samples; blocking, callable from several threads at once."""
        ...


class Generated(NamedTuple):
    """What a caller gets.

    Args:
        samples: [N, ...], in the order of the latents given.
        queue_seconds: from the call to the start of its first batch.
        inference_seconds: from there to the end of its last batch.
    """

    samples: Samples
    queue_seconds: float
    inference_seconds: float


class Observer(Protocol):
    """Whoever wants to know what ran; called on the event loop."""

    def batch_ran(self, network: Any, images: int, seconds: float) -> None:  # noqa: ANN401 what the caller gave
        """A batch ended well."""
        ...

    def waited(self, seconds: float) -> None:
        """A caller's first image started after this long in the queue."""
        ...

    def rejected(self, images: int, reason: str) -> None:
        """Images were not taken, or left unrun: "full" or "deadline"."""
        ...


class Arrived(NamedTuple):
    """All of a caller's images, batch by batch in their order; times as in Generated."""

    parts: list[Samples]
    queue_seconds: float
    inference_seconds: float


class Ran(NamedTuple):
    """A batch's outcome, made on an engine's thread; times on the batcher's clock."""

    samples: Samples
    began: float
    ended: float


@dataclass(eq=False)
class Job:
    """One caller's latents and what has come back so far."""

    ticket: Ticket
    network: Network
    z: Latents
    class_idx: ClassIndices | None
    future: asyncio.Future[Arrived]
    submitted: float
    began: float | None
    parts: list[tuple[int, Samples]]
    arrived: int  # images


class Batcher:
    """Runs networks on a fixed number of engines: threads that each run one batch at a time.

    Args:
        schedule: the policy; decides what runs together and what is refused.
        engines: number of threads.
        observer: told of every batch, wait and rejection.
        clock: seconds, monotonic.
    """

    def __init__(
        self, schedule: Schedule, *, engines: int, observer: Observer, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.schedule = schedule
        self._engines = engines
        self._idle = engines
        self._observer = observer
        self._clock = clock
        self._pool = ThreadPoolExecutor(engines, thread_name_prefix="engine")
        self._jobs: dict[Ticket, Job] = {}
        self._images_per_second = ASSUMED_IMAGES_PER_SECOND  # of one engine
        self._closed = False

    async def generate(
        self, network: Network, z: Latents, class_idx: ClassIndices | None, *, deadline: Deadline
    ) -> Generated:
        """Run latents through a network, together with whatever else waits for it.

        Cancelling the caller takes what has not started out of the queue.

        Args:
            network: what to run; only latents of the same one share a batch.
            z: [N, z_dim] float32, N >= 1.
            class_idx: [N] int64, or None.
            deadline: what has not started by then is not run.

        Raises:
            QueueFull: too many images wait.
            DeadlineExceeded: the deadline passed in the queue.
            Exception: whatever the network raised for a batch that these latents were in.
        """
        job = Job(
            ticket=Ticket(network, len(z), deadline),
            network=network,
            z=z,
            class_idx=class_idx,
            future=asyncio.get_running_loop().create_future(),
            submitted=self._clock(),
            began=None,
            parts=[],
            arrived=0,
        )
        self._submit(job)
        try:
            arrived = await job.future
        finally:  # answered, failed, or the caller left
            left = self.schedule.remove(job.ticket)
            self._jobs.pop(job.ticket, None)
            if left and job.ticket.deadline.at <= self._clock() + EARLY_SECONDS:  # it left because its time was over
                self._observer.rejected(left, "deadline")
        samples = await offload(sum(part.nbytes for part in arrived.parts[1:]), _joined, arrived.parts)
        return Generated(samples, arrived.queue_seconds, arrived.inference_seconds)

    @property
    def wait_seconds(self) -> float:
        """How long an image that is queued now will wait, by the engines' measured speed."""
        return self.schedule.waiting / (self._images_per_second * self._engines)

    def close(self) -> None:
        """Let the threads end after what they are running; callers still waiting are not answered."""
        self._closed = True
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _submit(self, job: Job) -> None:
        try:
            self.schedule.add(job.ticket, retry_after_seconds=self.wait_seconds)
        except Exception:
            self._observer.rejected(job.ticket.images, "full")
            raise
        self._jobs[job.ticket] = job
        self._dispatch()

    def _dispatch(self) -> None:
        """Give work to every idle engine while there is any."""
        while self._idle and self.schedule.waiting and not self._closed:
            turn = self.schedule.take(self._clock(), self._idle)
            for ticket in turn.expired:
                self._expire(ticket)
            if turn.pieces:
                self._start(turn.pieces)

    def _start(self, pieces: list[Piece]) -> None:
        self._idle -= 1
        jobs = [self._jobs[piece.ticket] for piece in pieces]
        z = [job.z[piece.start : piece.stop] for job, piece in zip(jobs, pieces, strict=True)]
        classes = [
            job.class_idx[piece.start : piece.stop]
            for job, piece in zip(jobs, pieces, strict=True)
            if job.class_idx is not None
        ]
        running = asyncio.get_running_loop().run_in_executor(self._pool, self._run, jobs[0].network, z, classes)
        running.add_done_callback(partial(self._finish, pieces, jobs))

    def _run(self, network: Network, z: list[Latents], classes: list[ClassIndices]) -> Ran:
        """One batch, on an engine's thread."""
        began = self._clock()
        samples = network.generate(_joined(z), _joined(classes) if classes else None)
        return Ran(samples, began, self._clock())

    def _finish(self, pieces: list[Piece], jobs: list[Job], running: "asyncio.Future[Ran]") -> None:
        """Back on the event loop: hand the samples out, then give the engine its next batch."""
        self._idle += 1
        if running.cancelled():  # the batcher was closed
            return
        error = running.exception()
        if error is not None:
            for job in jobs:
                self._fail(job, error)
        else:
            self._hand_out(pieces, jobs, running.result())
        self._dispatch()

    def _hand_out(self, pieces: list[Piece], jobs: list[Job], ran: Ran) -> None:
        images = sum(piece.stop - piece.start for piece in pieces)
        seconds = max(ran.ended - ran.began, 1e-6)
        rate = RATE_MEMORY * self._images_per_second + (1 - RATE_MEMORY) * images / seconds
        self._images_per_second = rate
        self._observer.batch_ran(jobs[0].network, images, seconds)
        offset = 0
        for piece, job in zip(pieces, jobs, strict=True):
            count = piece.stop - piece.start
            self._receive(job, piece.start, ran.samples[offset : offset + count], ran)
            offset += count

    def _receive(self, job: Job, start: int, samples: Samples, ran: Ran) -> None:
        job.parts.append((start, samples))
        job.arrived += len(samples)
        if job.began is None:
            job.began = ran.began
            self._observer.waited(ran.began - job.submitted)
        if job.arrived == job.ticket.images and not job.future.done():  # the caller may have left
            parts = [part for _, part in sorted(job.parts, key=lambda part: part[0])]
            job.future.set_result(Arrived(parts, job.began - job.submitted, ran.ended - job.began))

    def _expire(self, ticket: Ticket) -> None:
        self._observer.rejected(ticket.waiting, "deadline")
        late = DeadlineExceeded("the request's time was over before its images could be started")
        self._fail(self._jobs[ticket], late)

    def _fail(self, job: Job, error: BaseException) -> None:
        self.schedule.remove(job.ticket)  # what is left of it would run for nobody
        if not job.future.done():  # the caller may have left, or another batch of the same job failed before
            job.future.set_exception(error)


def _joined(parts: list[Samples]) -> Samples:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
