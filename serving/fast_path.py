"""A connection on which whole requests to some paths are answered without ASGI. Knows no routes.

An ASGI server makes a scope, a task, two coroutines and two messages for each request: 25 us of the 55 that a constant
answer takes. Here a POST that arrived whole, alone on its connection, is handed over as one value and answered as one
write. All else (bodies that come in pieces, pipelined requests, other methods and paths, readers that fall behind) goes
uvicorn's way, with the same answers.

Where a request's answer was at hand, what its bytes mean is remembered: the same bytes again, between two requests of
any connection, mean the same and are not parsed, which was about a third of what a cache hit cost.
"""

from collections.abc import Callable, Mapping
from typing import Any

from serving.asgi import Incoming, Reply, Route, Turn
from serving.calls import Leave
from serving.known import Known, Parsed
from serving.protocol import GuardedProtocol

CLOSE = b"\r\nconnection: close\r\n\r\n"
END = b"\r\n\r\n"

Take = Callable[[Route, Incoming, Turn], bool]


class _Unheard:
    """Stands where uvicorn's cycle has an event that its task waits for."""

    def set(self) -> None:
        """Nobody waits."""


class FastTurn:
    """One request: serving.asgi.Turn, and what uvicorn's protocol asks of a request's cycle.

    Args:
        protocol: of its connection.
        keep_alive: whether the connection goes on after it.
    """

    __slots__ = ("_protocol", "body", "disconnected", "keep_alive", "more_body", "on_leave", "response_complete")
    message_event = _Unheard()

    def __init__(self, protocol: "FastProtocol", keep_alive: bool) -> None:
        self._protocol = protocol
        self.body = bytearray()
        self.disconnected = False
        self.keep_alive = keep_alive
        self.more_body = False
        self.on_leave: Leave | None = None
        self.response_complete = False

    def leave(self) -> None:
        """The client left."""
        if self.on_leave is not None and not self.response_complete:
            self.on_leave()

    def reply(self, reply: Reply, request_id: str, *, close: bool) -> None:
        """See Turn."""
        if self.disconnected or self.response_complete:
            return
        protocol = self._protocol
        keep_alive = self.keep_alive and not close
        end = END if keep_alive else CLOSE
        parts = (reply.head(), *protocol.common_lines(), b"x-request-id: ", request_id.encode(), end, reply.body)
        protocol.transport.write(b"".join(parts))
        self.response_complete = True
        if not keep_alive:
            protocol.transport.close()
        protocol.on_response_complete()

    def give_up(self) -> None:
        """See Turn."""
        self._protocol.transport.close()


class FastProtocol(GuardedProtocol):
    """One connection.

    Where the application is a serving.middleware.Front, or has one as `front`, whole requests to its `routes` go there.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 uvicorn's own
        super().__init__(*arguments, **options)
        front = getattr(self.config.app, "front", self.config.app)
        self._take: Take | None = getattr(front, "take", None)
        self._routes: Mapping[bytes, Route] = front.routes if self._take is not None else {}  # type: ignore[union-attr]
        self._known: Known | None = getattr(front, "known", None)
        self._between = True  # no byte of a request came that has not come whole
        self._begun = 0  # requests in the last piece of data
        self._at_once: Parsed | None = None  # the last of them, if its answer was at hand
        self._route: Route | None = None  # of the request whose body is to come
        self._parts: list[bytes] = []  # of that body
        self._turn: FastTurn | None = None  # the last one

    def common_lines(self) -> list[bytes]:
        """Header lines of every answer: the date, by uvicorn's clock."""
        return [part for name, value in self.server_state.default_headers for part in (name, b": ", value, b"\r\n")]

    def data_received(self, data: bytes) -> None:
        """Bytes came; a request whose body does not come with its headers is one of uvicorn's."""
        if self._known is None or not self._between:
            self._parse(data)
            return
        known = self._known.find(data)
        if known is not None and self._ready():
            self._unset_keepalive_if_required()
            self._headers_came()
            self._hand_over(*known, keep_alive=True)
            return
        self._begun, self._at_once = 0, None
        self._parse(data)
        alone = self._begun == 1 and self._between and not self.transport.is_closing()
        if self._at_once is not None and alone:
            self._known.keep(data, self._at_once)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client left, or the connection was closed here."""
        super().connection_lost(exc)
        if self._turn is not None:
            self._turn.leave()

    def on_message_begin(self) -> None:
        """A request's first byte."""
        self._between = False
        self._begun += 1
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The headers are whole: note where the request goes."""
        route = self._routes.get(self.url)
        if route is None or self.parser.get_method() != b"POST" or not self._free():
            super().on_headers_complete()
            return
        self._headers_came()
        self._route = route

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        if self._route is not None:
            self._parts.append(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._between = True
        route, self._route = self._route, None
        if route is None:
            super().on_message_complete()
            return
        keep_alive = self.parser.get_http_version() != "1.0" and self.parser.should_keep_alive()
        request = Incoming(dict(self.headers), self._parts[0] if len(self._parts) == 1 else b"".join(self._parts))
        self._parts.clear()
        if self._hand_over(route, request, keep_alive=keep_alive):
            self._at_once = (route, request)

    def _parse(self, data: bytes) -> None:
        super().data_received(data)
        if self._route is not None and self.parser is not None:
            self._give_back()

    def _hand_over(self, route: Route, request: Incoming, *, keep_alive: bool) -> bool:
        """Have a request answered; whether its answer was at hand."""
        turn = self._turn = self.cycle = FastTurn(self, keep_alive)  # type: ignore[assignment]  # it has what is used
        return self._take is not None and self._take(route, request, turn)

    def _ready(self) -> bool:
        """Whether the answer before is out, and the client takes what is written."""
        return (self.cycle is None or self.cycle.response_complete) and not self.flow.write_paused

    def _free(self) -> bool:
        """Whether nothing stands in the way of answering this request at once."""
        return self._ready() and not self.expect_100_continue and not self.parser.should_upgrade()

    def _give_back(self) -> None:
        """Let uvicorn have a request that was begun here."""
        self._route = None
        super().on_headers_complete()
        for part in self._parts:
            super().on_body(part)
        self._parts.clear()
