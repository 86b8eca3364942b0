"""What happens to every request whatever its route, as one ASGI layer. Knows no models and no formats.

Request ids, counting, body limits, slow senders, clients that leave. It stands outside of Litestar so that answers
which no route gives (404, 405) are treated alike.
"""

import asyncio
import contextlib
import itertools
import logging
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence

import structlog

from models.errors import GenserveError
from serving.alarm import Alarm
from serving.asgi import (
    DEPARTURES,
    INCOMING,
    WHOLE,
    ASGIApp,
    Incoming,
    Message,
    Receive,
    Reply,
    Route,
    Scope,
    Send,
    Turn,
)
from serving.calls import Leave, nothing
from serving.errors import Overloaded, SlowSender, TooLarge
from serving.known import Known
from serving.logs import REQUEST_ID
from serving.metrics import CLIENT_LEFT, UNMATCHED, Metrics
from serving.problems import problem_of, reply_to

MAX_BODY_BYTES = 8 * 1024 * 1024  # 256 latents of 512 numbers are 3 MB of JSON
# Of all requests being answered: about four times as much while they are read. Decoded, a number is 8 bytes, then 4; in
# JSON it is 2 and more (serving.bodies decodes no more numbers than a model can take).
MAX_BODIES_BYTES = 64 * 1024 * 1024
MAX_REQUEST_ID = 64
PARAMETER = re.compile(r"\\\{[a-z]+\\\}")  # {name} in an escaped template
UNSAFE = re.compile(r"[^A-Za-z0-9._-]")
PROCESS = secrets.token_hex(4)  # begins the ids that this process makes

_numbers = itertools.count()

log = structlog.get_logger("genserve.requests")


class ClientLeft(Exception):
    """The connection closed before the request was whole."""


class Front:
    """The outermost layer.

    Args:
        app: what answers.
        hot: what answers these very paths in its place: routing costs 20 us, a tenth of a whole request. A server that
            has a whole request to one of them in hand gives it to `take` (see serving.fast_path).
        paths: templates of the paths that it answers, such as /models/{name}, for what is refused before it is asked.
        metrics: where requests are counted.
        draining: whether connections should be given up after their answer.
        body_seconds: time in which a body must have arrived.
        max_bodies_bytes: bound of the bodies of all requests that are being answered.
        known: what requests to `routes` meant that came before, kept by their bytes; None to parse each.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        hot: Mapping[str, Route] = {},
        paths: Sequence[str] = (),
        metrics: Metrics,
        draining: Callable[[], bool],
        body_seconds: float = 15.0,
        max_bodies_bytes: int = MAX_BODIES_BYTES,
        known: Known | None = None,
    ) -> None:
        self.app = app
        self.known = known
        self._hot = dict(hot)
        self.routes = {path.encode(): route for path, route in hot.items()}
        self._paths = {path: re.compile(PARAMETER.sub("[^/]+", re.escape(path))) for path in paths}
        self.metrics = metrics
        self.draining = draining
        self.body_seconds = body_seconds
        self.max_bodies_bytes = max_bodies_bytes
        self.bodies_bytes = 0  # held now
        self.in_progress = 0  # requests being answered
        self.logs_requests = logging.getLogger("genserve.requests").isEnabledFor(logging.DEBUG)
        metrics.watch_requests(lambda: self.in_progress)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] == "http":
            app = self._hot.get(scope["path"])
            if app is not None:
                scope["path_template"] = scope["path"]
            await Exchange(self, app or self.app, scope, receive, send).run()
        elif scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        else:  # no route speaks websocket
            await send({"type": "websocket.close", "code": 1000, "reason": None})

    def take(self, route: Route, request: Incoming, turn: Turn) -> bool:
        """Answer a whole request to one of `routes`, at once where that can be: whether it was."""
        began = time.perf_counter()
        name = request_id(request.headers.get(b"x-request-id"))
        reply = route.at_once(request)
        if reply is None:
            Call(self, route, request, turn, name, began).begin()
            return False
        turn.reply(reply, name, close=self.draining())
        self.count(route.path, "POST", reply.status, time.perf_counter() - began)
        return True

    def count(self, route: str, method: str, status: int, seconds: float) -> None:
        """A request ended."""
        self.metrics.request_ended(route, method, status, seconds)
        if self.logs_requests:
            log.debug("request", route=route, method=method, status=status, seconds=round(seconds, 6))

    def too_many_bodies(self) -> Overloaded:
        """The refusal of one more body."""
        return Overloaded(f"the requests being answered hold {self.max_bodies_bytes} bytes already")

    def template(self, path: str) -> str:
        """The template that a path belongs to, "unmatched" for none."""
        found = (template for template, pattern in self._paths.items() if pattern.fullmatch(path.rstrip("/") or "/"))
        return next(found, UNMATCHED)


class Call:
    """A request to one of `Front.routes`, and its answer."""

    __slots__ = ("_began", "_ended", "_front", "_leave", "_name", "_request", "_route", "_turn")

    def __init__(self, front: Front, route: Route, request: Incoming, turn: Turn, name: str, began: float) -> None:
        self._front = front
        self._route = route
        self._request = request
        self._turn = turn
        self._name = name
        self._began = began
        self._leave: Leave = nothing
        self._ended = False

    def begin(self) -> None:
        """Have it answered."""
        front = self._front
        front.in_progress += 1
        front.bodies_bytes += len(self._request.body)
        self._turn.on_leave = self._left
        REQUEST_ID.set(self._name)
        try:
            if front.bodies_bytes > front.max_bodies_bytes:
                raise front.too_many_bodies()
            leave = self._route.begin(self._request, self._done)
            if not self._ended:  # else there is nothing to leave, and it would be a cycle
                self._leave = leave
        except Exception as error:
            self._done(error)

    def _done(self, ended: Reply | BaseException) -> None:
        """Answer; called from wherever the answer was made."""
        if self._ended:
            return
        if not isinstance(ended, Reply):
            REQUEST_ID.set(self._name)
            ended = reply_to(ended, self._route.path)
        try:
            self._turn.reply(ended, self._name, close=self._front.draining())
        except Exception:
            log.exception("the answer could not be written", route=self._route.path)
            self._turn.give_up()
        self._end(ended.status)

    def _left(self) -> None:
        if not self._ended:
            self._leave()
            self._end(CLIENT_LEFT)

    def _end(self, status: int) -> None:
        self._ended = True
        self._turn.on_leave, self._leave = None, nothing  # no cycles: what was made is freed now
        front = self._front
        front.in_progress -= 1
        front.bodies_bytes -= len(self._request.body)
        front.count(self._route.path, "POST", status, time.perf_counter() - self._began)


class Exchange:
    """One request and its answer."""

    def __init__(self, front: Front, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        self._front = front
        self._app = app
        self._receive = receive
        self._send = send
        self._head = scope["method"] == "HEAD"
        # HEAD is answered by the GET route, without the body.
        self._scope: Scope = {**scope, "method": "GET"} if self._head else scope
        self._headers: dict[bytes, bytes] = dict(scope["headers"])
        self._request_id = request_id(self._headers.get(b"x-request-id"))
        self._task = asyncio.current_task()
        self._status = 0
        self._answered = False
        self._left = False
        self._body = b""
        self._held = 0  # bytes of it that are here
        self._replayed = False

    async def run(self) -> None:
        """Read the body, answer, count."""
        front = self._front
        began = time.perf_counter()
        REQUEST_ID.set(self._request_id)
        front.in_progress += 1
        departures: set[Callable[[], None]] | None = self._scope.get(DEPARTURES)
        if departures is not None:
            departures.add(self._leave)
        try:
            self._body = await self._read_body()
            self._scope[INCOMING] = Incoming(self._headers, self._body)
            await (self._answer() if departures is None else self._app(self._scope, self._replay, self._forward))
        except ClientLeft:
            self._status = CLIENT_LEFT
        except asyncio.CancelledError:
            if not (self._left and self._task and self._task.uncancel() == 0):
                raise
            self._status = CLIENT_LEFT
        except GenserveError as error:
            await self._refuse(error)
        finally:
            if departures is not None:
                departures.discard(self._leave)
            front.in_progress -= 1
            front.bodies_bytes -= self._held
            self._count(time.perf_counter() - began)

    def _count(self, seconds: float) -> None:
        route = str(self._scope.get("path_template") or self._front.template(self._scope["path"]))
        method = "HEAD" if self._head else str(self._scope["method"])
        self._front.count(route, method, self._status or 500, seconds)

    def _leave(self) -> None:
        """The client left: what is being done for it ends, unless the answer is out."""
        if self._task is not None and not self._answered:
            self._left = True
            self._task.cancel()

    async def _read_body(self) -> bytes:
        """The whole body.

        Raises:
            TooLarge, SlowSender: it is above the limit, or does not arrive in time.
            Overloaded: with the bodies of other requests it is more than may be held.
            ClientLeft: it will never be whole.
        """
        length = self._headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > MAX_BODY_BYTES:
            raise TooLarge(f"the body has {int(length)} bytes, at most {MAX_BODY_BYTES} are read")
        if length == b"0" and b"transfer-encoding" not in self._headers:
            return b""
        if WHOLE in self._scope:
            return await self._read_chunks()
        alarm = Alarm(self._front.body_seconds)
        try:
            return await self._read_chunks()
        except asyncio.CancelledError:
            if not alarm.stop():
                raise
            raise SlowSender(f"the body did not arrive within {self._front.body_seconds:g} s") from None
        finally:
            alarm.stop()

    async def _read_chunks(self) -> bytes:
        chunks: list[bytes] = []
        while True:
            message = await self._receive()
            if message["type"] != "http.request":
                raise ClientLeft
            chunks.append(message["body"])
            self._held += len(message["body"])
            self._front.bodies_bytes += len(message["body"])
            if self._held > MAX_BODY_BYTES:
                raise TooLarge(f"the body is above {MAX_BODY_BYTES} bytes")
            if self._front.bodies_bytes > self._front.max_bodies_bytes:
                raise self._front.too_many_bodies()
            if not message["more_body"]:
                return b"".join(chunks)

    async def _answer(self) -> None:
        """Run the application under a server that does not tell of departures: ask it all the time."""
        watch = asyncio.get_running_loop().create_task(self._watch())
        try:
            await self._app(self._scope, self._replay, self._forward)
        finally:
            watch.cancel()

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._leave()

    async def _replay(self) -> Message:
        """The body once more, for the application."""
        if self._replayed:
            await asyncio.Event().wait()  # the client's leaving is handled here
        self._replayed = True
        return {"type": "http.request", "body": self._body, "more_body": False}

    async def _forward(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            headers = [*message["headers"], (b"x-request-id", self._request_id.encode())]
            if self._front.draining():
                headers.append((b"connection", b"close"))
            message["headers"] = headers
        elif message["type"] == "http.response.body":
            self._answered = not message.get("more_body", False)
            if self._head:
                message["body"] = b""
        await self._send(message)

    async def _refuse(self, error: GenserveError) -> None:
        """Answer what was refused before any route saw it; the connection may hold unread bytes, so it ends."""
        reply = problem_of(error).reply()
        with contextlib.suppress(OSError):
            await Reply(reply.status, [*reply.headers, (b"connection", b"close")], reply.body).send(self._forward)


def request_id(given: bytes | None) -> str:
    """The client's id, bounded to 64 safe characters, or a new one."""
    kept = UNSAFE.sub("", given[: 4 * MAX_REQUEST_ID].decode("latin-1"))[:MAX_REQUEST_ID] if given else ""
    return kept or f"{PROCESS}{next(_numbers) % 2**32:08x}"
