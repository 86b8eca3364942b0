"""The errors of the models room, each with the HTTP status and the exit status that it deserves. Knows nothing of HTTP.

GenserveError            500 / 3   anything of ours
├── Invalid              400 / 2   an argument or a request field is wrong
│   └── DataError        400 / 2   a data set cannot be read as it is
├── NotFound             404 / 2   no such model, version or alias
├── Refused              409 / 1   a well-formed wish that the rules refuse
│   ├── NotServable      409 / 1   an ONNX file that cannot become a generator
│   └── LoadError        409 / 1   a published version that must not be served
└── Unavailable          503 / 3   something outside (network, disk, library) is missing now
"""

from typing import ClassVar


class GenserveError(Exception):
    """Base of all errors that a person is meant to read.

    Args:
        detail: what is wrong, in one sentence, with the limit that was crossed.
        field: the request field or argument at fault, None where there is none.
    """

    status: ClassVar[int] = 500
    exit_status: ClassVar[int] = 3
    title: ClassVar[str] = "Internal error"

    def __init__(self, detail: str, *, field: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.field = field

    def __str__(self) -> str:
        return f"{self.field}: {self.detail}" if self.field else self.detail


class Invalid(GenserveError):
    """An argument or a request field is wrong; `field` names it."""

    status = 400
    exit_status = 2
    title = "Invalid request"


class DataError(Invalid):
    """A data set is missing, damaged or not of the expected form."""

    title = "Unusable data"


class NotFound(GenserveError):
    """No such model, version or alias."""

    status = 404
    exit_status = 2
    title = "Not found"


class Refused(GenserveError):
    """A well-formed wish that the rules refuse: the gate, promotion, rollback."""

    status = 409
    exit_status = 1
    title = "Refused"


class NotServable(Refused):
    """An ONNX file that cannot become a generator, with the reason."""

    title = "Not a servable generator"


class LoadError(Refused):
    """A published version that must not be served: digest, metadata, golden samples or verdict."""

    title = "Version refused"


class Unavailable(GenserveError):
    """Something outside this program is missing now: a network, a disk, a library."""

    status = 503
    exit_status = 3
    title = "Unavailable"


def told(error: OSError) -> str:
    """Which file, and what is the matter with it."""
    return f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)
