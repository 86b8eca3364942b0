"""The errors that serving adds to the tree of models.errors, each with its HTTP status. Knows nothing of HTTP replies.

GenserveError
├── SettingsError        exit 2   a setting is wrong; named at start
├── NotAcceptable        406      none of the accepted media types can hold the answer
├── SlowSender           408      the body did not arrive in time
├── TooLarge             413      the body is above the limit
├── WrongMediaType       415      the body is not application/json
├── DeadlineExceeded     504      the request's time is over; what had not begun is not run
└── Busy                          try again later: carries retry_after_seconds
    ├── QueueFull        429      the queue is at its bound
    ├── QueueTooLong     429      what waits for engines or encoders already takes longer than the request may
    ├── NotReady         503      nothing loaded yet, or the version asked for is being loaded
    └── Overloaded       503      the bodies being answered, or the connections, are at their bound
"""

import math
from typing import ClassVar

from models.errors import GenserveError


class SettingsError(GenserveError):
    """A setting is wrong; `field` is the environment variable or TOML key."""

    exit_status = 2
    title = "Invalid setting"


class NotAcceptable(GenserveError):
    """None of the media types in Accept can hold the answer."""

    status = 406
    title = "Not acceptable"


class SlowSender(GenserveError):
    """The request's body did not arrive in time."""

    status = 408
    title = "Request timeout"


class TooLarge(GenserveError):
    """The request's body is above the limit."""

    status = 413
    title = "Content too large"


class WrongMediaType(GenserveError):
    """The request's body is not application/json."""

    status = 415
    title = "Unsupported media type"


class DeadlineExceeded(GenserveError):
    """The request's time is over; what had not begun is not run."""

    status = 504
    title = "Deadline exceeded"
    reason: ClassVar[str] = "deadline"  # in the metric of rejected images


class Busy(GenserveError):
    """Try again later.

    Args:
        detail: why.
        retry_after_seconds: an honest estimate of when it is worth trying again.
    """

    retry_after_seconds: float

    def __init__(self, detail: str, *, retry_after_seconds: float = 1.0, field: str | None = None) -> None:
        super().__init__(detail, field=field)
        self.retry_after_seconds = retry_after_seconds

    @property
    def retry_after(self) -> int:
        """The Retry-After header: whole seconds, at least 1."""
        return max(1, math.ceil(self.retry_after_seconds))


class QueueFull(Busy):
    """The queue cannot take this many images now."""

    status: ClassVar[int] = 429
    title = "Queue full"
    reason: ClassVar[str] = "full"

    def __init__(self, *, asked: int, waiting: int, limit: int, retry_after_seconds: float) -> None:
        super().__init__(
            f"{waiting} images are waiting and {asked} more would pass the limit of {limit}",
            retry_after_seconds=retry_after_seconds,
        )


class QueueTooLong(Busy):
    """The request's time would be over before its images were made or encoded, or it would make another one late."""

    status: ClassVar[int] = 429
    title = "Queue too long"
    reason: ClassVar[str] = "wait"

    def __init__(self, *, late_seconds: float, wait_seconds: float) -> None:
        super().__init__(
            f"what waits takes {wait_seconds:.3g} s, which is {late_seconds:.3g} s too long for the request's time",
            retry_after_seconds=late_seconds,
        )


class NotReady(Busy):
    """No model is loaded yet, or the version asked for is being loaded."""

    status: ClassVar[int] = 503
    title = "Not ready"


class Overloaded(Busy):
    """The server holds as many request bodies or connections as it may."""

    status: ClassVar[int] = 503
    title = "Overloaded"
