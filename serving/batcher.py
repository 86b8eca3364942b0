"""Gathers what several callers want into calls of the network, on threads of its own. Knows no HTTP, seeds or caches.

The threads take their batches from the schedule themselves, so that none waits for the event loop to give it work; what
they made comes back to the event loop once for each batch. Latents are made on these threads too, when their batch is
about to run: for what is refused or left behind, none are drawn.
"""

import asyncio
import contextlib
import math
import os
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import Any, Protocol, cast

import numpy as np
import structlog

from models.generator import Samples
from models.latents import ClassIndices, Drawn, Latents
from models.runtime import available_cores
from serving.calls import Done, Leave, outcome
from serving.errors import DeadlineExceeded, QueueFull, QueueTooLong
from serving.jobs import Generated, Job, Part, Purpose, Ran, Source
from serving.loop_share import LoopShare
from serving.schedule import Batch, Deadline, Schedule, Ticket
from serving.speed import Speed

log = structlog.get_logger("genserve.batcher")

ENGINE_NICENESS = 5
WORTH_WAKING = 8  # images for each engine, that wake one beside a busy event loop
EARLY_SECONDS = 0.01  # by which a timer may fire before its time


class Network(Protocol):
    """What the batcher needs of a generator (serving.loading.LiveModel); hashed by identity."""

    @property
    def speed(self) -> Speed:
        """Of its batches on one engine; kept up to date here."""
        ...

    def generate(self, z: Latents, class_idx: ClassIndices | None = None) -> Samples:
        """[N, z_dim] float32 and [N] int64 to N samples; blocking, callable from several threads at once."""
        ...


Tap = Callable[[Any, Drawn, Samples, float], None]  # network, latents, samples, seconds that each of them took


class Observer(Protocol):
    """Whoever wants to know what ran for somebody; called on the event loop."""

    def batch_ran(self, network: Any, images: int, seconds: float) -> None:  # noqa: ANN401 what the caller gave
        """A batch ended well."""
        ...

    def waited(self, seconds: float) -> None:
        """A caller's first image started after this long in the queue."""
        ...

    def rejected(self, images: int, reason: str) -> None:
        """Images were not taken ("full"; "wait": they would be late), or left unrun ("deadline")."""
        ...


class Batcher:
    """Runs networks on the engines of a schedule: threads that each run one batch at a time.

    Args:
        schedule: the policy; decides what runs together and what is refused.
        observer: told of every batch, wait and rejection.
        clock: seconds, monotonic.
    """

    def __init__(self, schedule: Schedule, *, observer: Observer, clock: Callable[[], float] = time.monotonic) -> None:
        self.schedule = schedule
        self._observer = observer
        self._clock = clock
        self._lock = threading.Lock()  # of the schedule, and of everything below
        self._loop: asyncio.AbstractEventLoop | None = None
        self._asleep = schedule.engines  # engines that wait for a wake-up call, none of which is under way to them
        self._wake: SimpleQueue[bool] = SimpleQueue()  # False: end
        self._closed = False
        self._asked = -math.inf  # when somebody last asked for something
        self.tap: Tap | None = None  # shown what ran for somebody; called on the event loop
        self._calling = False  # whether engines will be woken at the end of this turn of the event loop
        self._cores = available_cores()
        self._share = LoopShare()
        self._threads = [
            threading.Thread(target=self._engine, name=f"engine-{i}", daemon=True) for i in range(schedule.engines)
        ]
        for thread in self._threads:
            thread.start()

    async def generate(
        self,
        network: Network,
        source: Source,
        images: int,
        *,
        deadline: Deadline,
        purpose: Purpose = "request",
        admitted: bool = False,
    ) -> Generated:
        """`submit`, and wait for it; cancelling the caller takes what has not started out of the queue."""

        def begin(done: Done[Generated]) -> Leave:
            job = self.submit(network, source, images, deadline=deadline, done=done, purpose=purpose, admitted=admitted)
            return partial(self.leave, job)

        return await outcome(begin)

    def submit(
        self,
        network: Network,
        source: Source,
        images: int,
        *,
        deadline: Deadline,
        done: Done[Generated],
        purpose: Purpose = "request",
        admitted: bool = False,
    ) -> Job:
        """Have images run through a network, together with whatever else waits for it.

        Args:
            network: what to run; only images of the same one share a batch.
            source: called on an engine's thread for images [start, stop), each once, just before they run.
            images: how many, >= 1.
            deadline: of the answer; what cannot be in time is not run.
            done: called later on the event loop: with what was made, with DeadlineExceeded where the time turned out to
                be too short, or with whatever the source raised, or the network for a batch that these images were in.
            purpose: who waits; give what nobody waits for now only a few images, and only when it is quiet.
            admitted: they were taken before, as part of more that has been left: they are not refused.

        Returns:
            What waits, for `leave`.

        Raises:
            QueueFull, QueueTooLong: too many images wait.
            DeadlineExceeded: the time is too short.
        """
        self._loop = asyncio.get_running_loop()
        job = Job(
            group=network,
            images=images,
            deadline=deadline,
            source=source,
            done=done,
            submitted=self._clock(),
            purpose=purpose,
            admitted=admitted,
        )
        if purpose == "request":
            self._asked = job.submitted
        self._submit(job)
        return job

    def leave(self, job: Job) -> None:
        """The caller is gone: what has not started will not, and nobody is told."""
        job.done = None
        with self._lock:
            left = self.schedule.remove(job)
        over = job.deadline.at <= self._clock() + EARLY_SECONDS  # it left because its time was
        if left and over and job.purpose == "request":
            self._observer.rejected(left, DeadlineExceeded.reason)

    @property
    def spare(self) -> bool:
        """Whether nothing waits and an engine is idle."""
        return not self.schedule.waiting and self.schedule.idle_engines > 0

    @property
    def quiet_seconds(self) -> float:
        """How long nobody has asked for anything; 0 while anything waits or runs."""
        return self._clock() - self._asked if self.schedule.idle else 0.0

    @property
    def wait_seconds(self) -> float:
        """How long until all that waits and runs now is done, by the engines' measured speed."""
        with self._lock:
            return self.schedule.wait_seconds(self._clock())

    def close(self) -> None:
        """Let the threads end after what they are running; callers still waiting are not answered."""
        with self._lock:
            self._closed = True
        for _ in self._threads:
            self._wake.put(False)
        for thread in self._threads:
            thread.join()

    def _submit(self, job: Job) -> None:
        try:
            with self._lock:
                self.schedule.add(job, job.submitted)
        except (QueueFull, QueueTooLong, DeadlineExceeded) as error:
            if job.purpose == "request":
                self._observer.rejected(job.images, error.reason)
            raise
        if self._asleep and not self._calling and self._loop is not None:
            self._calling = True
            self._loop.call_soon(self._call)

    def _call(self) -> None:
        """Wake engines for what waits, once for all requests that came together.

        An engine that would have to take its core from a busy event loop is not idle, until there is enough for it.
        """
        self._calling = False
        cores = math.floor(self._cores - self._share.look() + 0.5)
        with self._lock:
            running, waiting = self.schedule.engines - self._asleep, self.schedule.waiting
            wanted = max(min(max(1, cores) - running, waiting), -(-waiting // WORTH_WAKING) - running)
            calls = max(0, min(self._asleep, wanted))
            self._asleep -= calls
        for _ in range(calls):
            self._wake.put(True)

    # On an engine's thread.

    def _engine(self) -> None:
        """Sleep until there is work, then run batches until there is none."""
        give_way()
        free_since = self._clock()
        while self._wake.get():
            batch = self._next()
            while batch is not None:
                ran = self._run(batch)
                batch = self._next(ran, free_since)
                free_since = ran.ended

    def _next(self, ran: Ran | None = None, free_since: float = 0.0) -> Batch | None:
        """Hand in what ran, get what is next; None where there is nothing.

        An engine outlives a fault of the policy: what ran is delivered, and what comes later is tried again.
        """
        batch = Batch()
        with self._lock:
            try:
                if ran is not None:
                    self._settle(ran, free_since)
                if not self._closed:
                    batch = self.schedule.take(self._clock(), self.schedule.idle_engines - self._asleep)
            except Exception:
                log.exception("the batching policy failed")
            if not batch.pieces:
                self._asleep += 1
        if ran is not None:
            self._post(self._deliver, ran)
        if batch.expired:
            self._post(self._expire, batch.expired)
        return batch if batch.pieces else None

    def _settle(self, ran: Ran, free_since: float) -> None:
        """Book what ran.

        An engine is as fast as it is with everything around its batches: its time counts from when its last batch
        ended, or from when there was work for it.
        """
        self.schedule.done(ran.batch)
        for job, _ in ran.failures:  # what is left of them would run for nobody
            self.schedule.remove(job)
        if ran.parts:
            ready = min(job.submitted for job, _, _ in ran.parts)
            seconds = ran.ended - max(free_since, ready)
            ran.parts[0].job.group.speed.observe(ran.images, max(seconds, 1e-6))

    def _run(self, batch: Batch) -> Ran:
        began = self._clock()
        drawn: list[Drawn] = []
        parts: list[Part] = []
        failures: list[tuple[Job, Exception]] = []
        for ticket, start, stop in batch.pieces:
            job = cast(Job, ticket)
            try:
                drawn.append(job.source(start, stop))
                parts.append(Part(job, start, stop))
            except Exception as error:
                failures.append((job, error))
        if parts:
            try:
                self._sort_out(parts, _generate(cast(Network, batch.group), drawn))
            except Exception as error:
                failures += [(part.job, error) for part in parts]
                parts = []
        return Ran(batch, parts, failures, began, self._clock(), drawn)

    def _sort_out(self, parts: list[Part], samples: Samples) -> None:
        """To each job what is its own."""
        offset = 0
        for job, start, stop in parts:
            made = samples[offset : offset + stop - start]
            offset += stop - start
            if len(made) == job.images:
                job.samples = made
                continue
            with self._lock:  # another engine may have the first part of the same job
                if job.samples is None:
                    job.samples = np.empty((job.images, *made.shape[1:]), made.dtype)
            job.samples[start:stop] = made

    def _post(self, callback: Callable[[Any], None], argument: object) -> None:
        """Have something done on the event loop."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
                self._loop.call_soon_threadsafe(callback, argument)

    # Back on the event loop.

    def _deliver(self, ran: Ran) -> None:
        asked, seconds = ran.asked, ran.ended - ran.began
        if asked:
            self._observer.batch_ran(ran.batch.group, asked, seconds)
        if asked and self.tap is not None:
            for part, drawn in zip(ran.parts, ran.drawn, strict=False):
                if part.job.purpose != "background" and part.job.samples is not None:
                    samples = part.job.samples[part.start : part.stop]
                    _guarded(self.tap, ran.batch.group, drawn, samples, seconds / ran.images)
        for job, start, stop in ran.parts:
            if job.began is None:
                job.began = ran.began
                if job.purpose == "request":
                    self._observer.waited(ran.began - job.submitted)
            job.arrived += stop - start
            if job.arrived == job.images and job.done is not None:  # the caller may have left
                made = Generated(cast(Samples, job.samples), job.began - job.submitted, ran.ended - job.began)
                done, job.done = job.done, None
                _guarded(done, made)
        for job, error in ran.failures:
            self._fail(job, error)

    def _expire(self, tickets: list[Ticket]) -> None:
        for ticket in tickets:
            if cast(Job, ticket).purpose == "request":
                self._observer.rejected(ticket.waiting, DeadlineExceeded.reason)
            late = DeadlineExceeded("the request's images could no longer be made within its time")
            self._fail(cast(Job, ticket), late)

    def _fail(self, job: Job, error: Exception) -> None:
        if job.done is not None:  # the caller may have left, or another batch of the same job failed before
            done, job.done = job.done, None
            _guarded(done, error)


def give_way() -> None:
    """Let the event loop go first where there are fewer cores than threads, on Linux, whose threads have priorities.

    At 64 connections on two cores: 0.84 of the limit instead of 0.71.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), ENGINE_NICENESS)


def _guarded(callback: Callable[..., None], *told: object) -> None:
    """Tell one caller: a fault of its own is not the others' of its batch."""
    try:
        callback(*told)
    except Exception:
        log.exception("who was told of a batch failed")


def _generate(network: Network, drawn: list[Drawn]) -> Samples:
    """Run what several jobs drew."""
    if len(drawn) == 1:
        return network.generate(*drawn[0])
    classes = [one.class_idx for one in drawn if one.class_idx is not None]
    return network.generate(np.concatenate([one.z for one in drawn]), np.concatenate(classes) if classes else None)
