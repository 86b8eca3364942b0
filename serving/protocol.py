"""uvicorn's HTTP protocol with the limits that it lacks: slow or huge headers, connections that never ask, readers
that never read. Knows no routes.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving.middleware import request_id
from serving.problems import MEDIA_TYPE, Problem

HEADER_SECONDS = 10.0  # from connecting, or from a request's first byte, to the end of its headers
HEADER_BYTES = 64 * 1024
FLUSH_SECONDS = 30.0  # for a reader to take what was written before the connection is cut

PHRASES = {400: "Bad request", 408: "Request timeout", 431: "Request header fields too large"}


class GuardedProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 uvicorn's own
        super().__init__(*arguments, **options)
        self._header_bytes = 0
        self._in_headers = True
        self._header_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client connected: its headers are due."""
        super().connection_made(transport)
        self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """It left."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes came; while they are headers they count against the bound."""
        if self._in_headers:
            self._header_bytes += len(data)
        super().data_received(data)
        if self._in_headers and self._header_bytes > HEADER_BYTES:  # and still not whole
            self._refuse(431, f"the headers are above {HEADER_BYTES} bytes")

    def on_message_begin(self) -> None:
        """A request's first byte: the rest of its headers is due."""
        super().on_message_begin()
        if not self._in_headers:
            self._expect_headers()

    def on_headers_complete(self) -> None:
        """The headers are whole."""
        self._stop_timer()
        self._in_headers = False
        self._header_bytes = 0
        super().on_headers_complete()

    def timeout_keep_alive_handler(self) -> None:
        """An idle connection ends; one whose reader does not take its last answer is cut."""
        super().timeout_keep_alive_handler()
        self.loop.call_later(FLUSH_SECONDS, self.transport.abort)

    def send_400_response(self, msg: str) -> None:
        """Bytes that are no HTTP."""
        self._refuse(400, msg)

    def _expect_headers(self) -> None:
        self._in_headers = True
        self._stop_timer()
        self._header_timer = self.loop.call_later(HEADER_SECONDS, self._late)

    def _stop_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _late(self) -> None:
        if self._header_bytes:
            self._refuse(408, f"the headers did not arrive within {HEADER_SECONDS:g} s")
        else:
            self.transport.close()

    def _refuse(self, status: int, detail: str) -> None:
        """Answer before any application saw the request, and close."""
        if self.transport.is_closing():
            return
        body = Problem(title=PHRASES[status], status=status, detail=detail).body()
        head = (
            f"HTTP/1.1 {status} {PHRASES[status]}\r\ncontent-type: {MEDIA_TYPE}\r\ncontent-length: {len(body)}\r\n"
            f"x-request-id: {request_id(None)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()
