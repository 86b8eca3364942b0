"""One kept HTTP connection on a raw socket, with as little parsing as a load can do with. Knows nothing of timing.

Requests are ready bytes. Answers must carry Content-Length; nothing else of their headers is read.
"""

import itertools
import socket
from collections.abc import Iterator
from typing import NamedTuple

READ_BYTES = 16 * 1024  # at once: recv allocates as much each time, and above malloc's threshold that costs 15 us
FIRST_SEED = 1_000_000_000  # ten digits, so that every request of a load has the same length
END_SEED = 4_000_000_000
CLOSED = "closed by the server"
UNREAD = bytearray(1024 * 1024)  # where the rest of long bodies goes: nobody looks at them


class Requests(NamedTuple):
    """What a load asks: POST requests that differ in nothing but the seed.

    Args:
        body: JSON, with one %d where the seed goes; without it all requests are the same.
        first_seed: of the first request, ten digits.
        step: from one seed to the next: the images of a request, where no image is to be asked for twice.
        distinct: seeds, after which they begin again; None for no end.
        headers: further lines, such as "X-Request-Timeout: 1".
        path: POSTed to.
    """

    body: str
    first_seed: int = FIRST_SEED
    step: int = 1
    distinct: int | None = None
    headers: tuple[str, ...] = ()
    path: str = "/sample"

    def stream(self) -> Iterator[bytes]:
        """The requests, endlessly."""
        length = len(self.body % FIRST_SEED) if "%d" in self.body else len(self.body)
        lines = [
            f"POST {self.path} HTTP/1.1",
            "Host: localhost",
            "Content-Type: application/json",
            f"Content-Length: {length}",
            *self.headers,
        ]
        template = ("\r\n".join(lines) + "\r\n\r\n" + self.body).encode()
        if "%d" not in self.body:
            return itertools.repeat(template)
        end = END_SEED if self.distinct is None else self.first_seed + self.step * self.distinct
        seeds = range(self.first_seed, end, self.step)
        return map(template.__mod__, itertools.cycle(seeds) if self.distinct else seeds)


class Connection:
    """A connection to 127.0.0.1 with at most one request in flight.

    Args:
        port: of the server.
    """

    __slots__ = ("_first", "_missing", "_socket", "asked", "length", "number")

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._first = b""  # of an answer that came in pieces: the piece with its head
        self._missing = 0  # bytes of it that are still to come; 0 while its head is not whole
        self.length = 0  # of the last answer, head and body
        self.asked = 0.0  # when, by the load's clock
        self.number = -1  # of the request in flight, where a load numbers them

    def fileno(self) -> int:
        """For epoll."""
        return self._socket.fileno()

    def ask(self, request: bytes) -> None:
        """Send a request."""
        self._socket.sendall(request)

    def receive(self) -> bytes | None:
        """Read once; if the answer is whole now, its head and as much of its body as came with it.

        Raises:
            ConnectionError: the server closed the connection, or sent more than the answer.
        """
        if self._missing:
            count = self._socket.recv_into(UNREAD, min(self._missing, len(UNREAD)))
            if not count:
                raise ConnectionError(CLOSED)
            self._missing -= count
        else:
            data = self._socket.recv(READ_BYTES)
            if not data:
                raise ConnectionError(CLOSED)
            self._first = first = self._first + data
            self.length = whole_bytes(first)
            if not self.length:
                return None
            self._missing = self.length - len(first)
        if self._missing > 0:
            return None
        if self._missing < 0:
            raise ConnectionError("more bytes than the answer's")
        first, self._first = self._first, b""
        return first

    def close(self) -> None:
        """End it."""
        self._socket.close()


def whole_bytes(data: bytes | bytearray) -> int:
    """How long an answer that begins so will be, head and body; 0 while its head is not whole."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return 0
    at = data.find(b"content-length: ", 0, end)  # as uvicorn writes it
    if at < 0:
        at = bytes(data[:end]).lower().index(b"content-length: ")
    return end + 4 + int(data[at + 16 : data.find(b"\r\n", at)])
