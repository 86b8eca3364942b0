"""ASGI's types, as loose as ASGI is, and a whole request and answer as plain values. Knows no routes."""

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from http import HTTPStatus
from typing import Any, NamedTuple, Protocol

from serving.calls import Done, Leave

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]  # Litestar's own types are narrower than these
Headers = list[tuple[bytes, bytes]]

INCOMING = "genserve.incoming"  # where the outermost layer leaves the request in the scope
WHOLE = "genserve.whole"  # in the scope where the body has arrived already
DEPARTURES = "genserve.departures"  # where the server's protocol leaves the set of those to call when the client leaves


STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}


class Incoming(NamedTuple):
    """A request whose body has arrived.

    Args:
        headers: by lower-case name; the last of several equal ones.
        body: whole.
    """

    headers: Mapping[bytes, bytes]
    body: bytes

    def header(self, name: bytes, default: str = "") -> str:
        """A header as text."""
        value = self.headers.get(name)
        return default if value is None else value.decode("latin-1")


class Reply:
    """An answer; content-length is added when it is sent.

    Args:
        status: of HTTP.
        headers: lower-case names.
        body: whole.
    """

    __slots__ = ("_head", "body", "headers", "status")

    def __init__(self, status: int, headers: Headers, body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self._head: bytes | None = None

    def head(self) -> bytes:
        """Status line and headers as HTTP/1.1 writes them, each with its line's end; made once.

        Raises:
            ValueError: a header holds a line's end.
        """
        if self._head is None:
            lines = [b"%b: %b\r\n" % header for header in self.headers]
            head = b"%bcontent-length: %d\r\n%b" % (STATUS_LINES[self.status], len(self.body), b"".join(lines))
            if head.count(b"\n") != len(lines) + 2 or head.count(b"\r") != len(lines) + 2:
                raise ValueError("a header holds a line's end")
            self._head = head
        return self._head

    async def send(self, send: Send) -> None:
        """Send it whole."""
        headers = [*self.headers, (b"content-length", b"%d" % len(self.body))]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": False})


class Route(Protocol):
    """What answers whole requests to one path, and can do so without ASGI."""

    path: str

    def at_once(self, request: Incoming) -> Reply | None:
        """The answer of a POST where it is at hand; None where it takes longer. Raises nothing."""
        ...

    def begin(self, request: Incoming, done: Done[Reply]) -> Leave:
        """Answer a POST by calling back, perhaps at once.

        Raises:
            GenserveError: what is wrong with it.
        """
        ...

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 ASGI's
        """ASGI, for every method."""
        ...


class Turn(Protocol):
    """A request on a connection, as its protocol shows it to what answers without ASGI."""

    on_leave: Leave | None  # to be called where the client leaves before its answer

    def reply(self, reply: Reply, request_id: str, *, close: bool) -> None:
        """Answer, once; `close` ends the connection after it.

        Raises:
            ValueError: see Reply.head.
        """
        ...

    def give_up(self) -> None:
        """Close the connection without an answer."""
        ...
