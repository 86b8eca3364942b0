"""What callers give the batcher, and what its engines make of it. Knows no queue, threads or event loop."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from models.generator import Samples
from models.latents import Drawn
from serving.calls import Done
from serving.tickets import Batch, Ticket

Source = Callable[[int, int], Drawn]  # images [start, stop) of a request to their latents

# Who waits: somebody now; somebody later, so that images count, and waiting and refusals do not; nobody ever, so that
# the observer is told nothing of it.
Purpose = Literal["request", "ahead", "background"]


class Generated(NamedTuple):
    """What a caller gets.

    Args:
        samples: [N, ...], in the order asked for; where one batch made them all, a view of that batch's samples.
        queue_seconds: from the call to the start of its first batch.
        inference_seconds: from there to the end of its last batch.
    """

    samples: Samples
    queue_seconds: float
    inference_seconds: float


@dataclass(eq=False, slots=True, kw_only=True)
class Job(Ticket):
    """One caller's ticket, and what has come back so far."""

    source: Source
    done: Done[Generated] | None  # None once it was called, or nobody waits any more
    submitted: float
    purpose: Purpose = "request"
    began: float | None = None
    samples: Samples | None = None  # [images, ...], filled batch by batch
    arrived: int = 0  # images


class Part(NamedTuple):
    """Images [start, stop) of a job."""

    job: Job
    start: int
    stop: int


class Ran(NamedTuple):
    """A batch's outcome, made on an engine's thread; times on the batcher's clock.

    Args:
        batch: what the schedule gave.
        parts: what was made.
        failures: the jobs of the others, and why.
        began: when the first latent was drawn.
        ended: when the samples were there.
        drawn: the latents of the parts.
    """

    batch: Batch
    parts: list[Part]
    failures: list[tuple[Job, Exception]]
    began: float
    ended: float
    drawn: list[Drawn]

    @property
    def images(self) -> int:
        """That were made."""
        return sum(part.stop - part.start for part in self.parts)

    @property
    def asked(self) -> int:
        """That were made for somebody, now or ahead."""
        return sum(part.stop - part.start for part in self.parts if part.job.purpose != "background")
