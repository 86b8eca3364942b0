"""uvicorn's HTTP protocol with the limits that it lacks: slow or huge headers, connections that never ask, readers
that never read, too many at once. Knows no routes.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving.asgi import DEPARTURES, WHOLE
from serving.middleware import request_id
from serving.problems import MEDIA_TYPE, Problem

PHRASES = {400: "Bad request", 408: "Request timeout", 431: "Request header fields too large", 503: "Overloaded"}


class GuardedProtocol(HttpToolsProtocol):
    """One connection.

    Args:
        header_seconds: from connecting, or from a request's first byte, to the end of its headers.
        header_bytes: of one request's headers.
        flush_seconds: for a reader to take what was written before the connection is cut.
        max_connections: open at once; one more is answered 503 and closed.
    """

    header_seconds = 10.0
    header_bytes = 64 * 1024
    flush_seconds = 30.0
    max_connections = 10_000

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 uvicorn's own
        super().__init__(*arguments, **options)
        self._header_bytes = 0
        self._in_headers = True
        self._header_timer: asyncio.TimerHandle | None = None
        self._departures: set[Callable[[], None]] = set()  # of the requests of this connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client connected: its headers are due, unless too many are here already."""
        super().connection_made(transport)
        if len(self.connections) > self.max_connections:
            self._refuse(503, f"{self.max_connections} connections are open")
        else:
            self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """It left."""
        self._stop_timer()
        super().connection_lost(exc)
        for leave in tuple(self._departures):
            leave()

    def data_received(self, data: bytes) -> None:
        """Bytes came; while they are headers they count against the bound."""
        if self._in_headers:
            self._header_bytes += len(data)
        super().data_received(data)
        if not self._in_headers:
            return
        if self._header_bytes > self.header_bytes:  # and still not whole
            self._refuse(431, f"the headers are above {self.header_bytes} bytes")
        elif self._header_timer is None and self._header_bytes:
            self._start_timer()

    def on_message_begin(self) -> None:
        """A request's first byte: the rest of its headers is due; no timer where it is in the same chunk."""
        super().on_message_begin()
        self.scope[DEPARTURES] = self._departures  # type: ignore[literal-required]
        if not self._in_headers:  # a later one on the same connection
            self._header_bytes = 1  # of this chunk, which may be the end of the last body for the rest
            self._in_headers = True

    def on_headers_complete(self) -> None:
        """The headers are whole."""
        self._headers_came()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The body is whole."""
        self.cycle.scope[WHOLE] = True  # type: ignore[literal-required]
        super().on_message_complete()

    def timeout_keep_alive_handler(self) -> None:
        """An idle connection ends; one whose reader does not take its last answer is cut."""
        super().timeout_keep_alive_handler()
        self.loop.call_later(self.flush_seconds, self.transport.abort)

    def send_400_response(self, msg: str) -> None:
        """Bytes that are no HTTP."""
        self._refuse(400, msg)

    def _headers_came(self) -> None:
        self._stop_timer()
        self._in_headers = False
        self._header_bytes = 0

    def _start_timer(self) -> None:
        self._header_timer = self.loop.call_later(self.header_seconds, self._late)

    def _stop_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _late(self) -> None:
        if self._header_bytes:
            self._refuse(408, f"the headers did not arrive within {self.header_seconds:g} s")
        else:
            self.transport.close()

    def _refuse(self, status: int, detail: str) -> None:
        """Answer before any application saw the request, and close."""
        if self.transport.is_closing():
            return
        body = Problem(title=PHRASES[status], status=status, detail=detail).body()
        more = "retry-after: 1\r\n" if status == 503 else ""
        head = (
            f"HTTP/1.1 {status} {PHRASES[status]}\r\ncontent-type: {MEDIA_TYPE}\r\ncontent-length: {len(body)}\r\n"
            f"x-request-id: {request_id(None)}\r\n{more}connection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()
