"""Every error as RFC 9457 problem+json, whatever was accepted. Knows no routes and no models."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException

from models.errors import GenserveError, LoadError
from serving.asgi import Reply
from serving.errors import Busy

MEDIA_TYPE = "application/problem+json"

log = structlog.get_logger("genserve.problems")


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """The body of an error, and the headers that go with it.

    Args:
        title: the same for every problem of a kind.
        status: of the answer.
        detail: what is wrong this time.
        errors: [{"field", "detail"}] where a field is at fault.
        headers: Retry-After, Allow.
    """

    title: str
    status: int
    detail: str
    errors: tuple[Mapping[str, str], ...] = ()
    headers: Mapping[str, str] = {}

    def body(self) -> bytes:
        """The JSON document."""
        document: dict[str, Any] = {
            "type": "about:blank",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
        }
        if self.errors:
            document["errors"] = self.errors
        return msgspec.json.encode(document)

    def reply(self) -> Reply:
        """The whole answer."""
        headers = [(b"content-type", MEDIA_TYPE.encode()), (b"cache-control", b"no-store")]
        headers += [(name.encode(), value.encode()) for name, value in self.headers.items()]
        return Reply(self.status, headers, self.body())


def problem_of(error: BaseException) -> Problem:
    """What a client is told of an error; nothing internal of one that is not ours."""
    if isinstance(error, LoadError):  # only a network that breaks its promise while serving gets here
        return Problem(title="Internal error", status=500, detail="the model cannot answer")
    if isinstance(error, GenserveError):
        errors = ({"field": error.field, "detail": error.detail},) if error.field else ()
        headers = {"retry-after": str(error.retry_after)} if isinstance(error, Busy) else {}
        return Problem(title=error.title, status=error.status, detail=str(error), errors=errors, headers=headers)
    if isinstance(error, HTTPException) and error.status_code < 500:
        given = (error.headers or {}).items()
        allow = {key.lower(): _allowed(value) for key, value in given if key.lower() == "allow"}
        phrase = HTTPStatus(error.status_code).phrase
        details = {404: "there is no such path", 405: f"here one can {allow.get('allow')}"}
        detail = details.get(error.status_code, error.detail or phrase)
        return Problem(title=phrase, status=error.status_code, detail=detail, headers=allow)
    return Problem(title="Internal error", status=500, detail="something went wrong here; the log knows the request id")


def _allowed(methods: str) -> str:
    """An Allow header with HEAD, which every GET route answers (see serving.middleware)."""
    names = {name.strip() for name in methods.split(",")}
    return ", ".join(sorted(names | {"HEAD"} if "GET" in names else names))


def answer_error(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Litestar's exception handler for everything."""
    return response_of(reply_to(error, request.scope.get("path_template")))


def response_of(reply: Reply) -> Response[bytes]:
    """An answer as Litestar's routes give it."""
    headers = {name.decode(): value.decode() for name, value in reply.headers}
    media = headers.pop("content-type", None)
    return Response(reply.body, status_code=reply.status, media_type=media, headers=headers)


def reply_to(error: BaseException, path: str | None) -> Reply:
    """What answers an error; the log is told of what is our fault."""
    problem = problem_of(error)
    if problem.status >= 500 and not isinstance(error, GenserveError):
        log.error("unhandled error", path=path, exc_info=error)
    elif problem.status == 500:
        log.error("the request failed", path=path, error=str(error))
    return problem.reply()
