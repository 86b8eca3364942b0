"""ASGI's types, as loose as ASGI is, and a whole request and answer as plain values. Knows no routes."""

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, NamedTuple

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]  # Litestar's own types are narrower than these
Headers = list[tuple[bytes, bytes]]

INCOMING = "genserve.incoming"  # where the outermost layer leaves the request in the scope
WHOLE = "genserve.whole"  # in the scope where the body has arrived already
DEPARTURES = "genserve.departures"  # where the server's protocol leaves the set of those to call when the client leaves


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


class Reply(NamedTuple):
    """An answer; content-length is added when it is sent.

    Args:
        status: of HTTP.
        headers: lower-case names.
        body: whole.
    """

    status: int
    headers: Headers
    body: bytes

    async def send(self, send: Send) -> None:
        """Send it whole."""
        headers = [*self.headers, (b"content-length", b"%d" % len(self.body))]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": False})
