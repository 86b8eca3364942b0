"""The load generators, against a tiny server on a thread: what they count, and from when."""

import re
import socket
import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from bench.connection import Connection, Requests, whole_bytes
from bench.load import closed_loop
from bench.open_load import OpenLoad, arrivals, open_loop

LENGTH = re.compile(rb"Content-Length: (\d+)\r\n")
Answer = Callable[[bytes], list[bytes]]  # a request's body -> the pieces of its answer


class TinyServer:
    """Answers POST requests on 127.0.0.1, one thread for each connection.

    Args:
        answer: what to send.
    """

    def __init__(self, answer: Answer) -> None:
        self.bodies: list[bytes] = []
        self._answer = answer
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                connection = self._listening.accept()[0]
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            while body := self._request(connection):
                self.bodies.append(body)
                for piece in self._answer(body):
                    connection.sendall(piece)
                    if piece.endswith(b"<close>"):
                        return

    def _request(self, connection: socket.socket) -> bytes:
        data = b""
        while b"\r\n\r\n" not in data:
            if not (more := connection.recv(65536)):
                return b""
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        match = LENGTH.search(head + b"\r\n")
        assert match is not None
        while len(body) < int(match[1]):
            body += connection.recv(65536)
        return body


@pytest.fixture
def serve() -> Iterator[Callable[[Answer], TinyServer]]:
    servers = []

    def start(answer: Answer) -> TinyServer:
        servers.append(TinyServer(answer))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def http(body: bytes = b"x" * 100, status: str = "200 OK", more: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n{more}\r\n".encode() + body


Serve = Callable[[Answer], TinyServer]
SEEDED = Requests('{"seed":%d}')


def test_the_closed_loop_counts_every_answer(serve: Serve) -> None:
    """From beginning to end it was answered as often as the server was asked, each time with another seed."""
    server = serve(lambda body: [http()])
    load = closed_loop(server.port, SEEDED, connections=4, seconds=1.0)
    assert load.answered == len(server.bodies) == len(set(server.bodies))
    assert 0 < load.requests <= load.answered
    assert load.failures == {}
    assert load.answer_bytes == len(http())


def test_failures_are_told_apart(serve: Serve) -> None:
    """Refusals are counted by status and broken connections by what happened; neither is an answer."""
    answers = {0: http(), 1: http(status="429 Too Many Requests"), 2: b"<close>"}

    server = serve(lambda body: [answers[int(body[8:-1]) % 3]])
    load = closed_loop(server.port, SEEDED, connections=2, seconds=1.0)
    kinds = [int(body[8:-1]) % 3 for body in server.bodies]
    assert load.answered == kinds.count(0)
    assert load.failures["429"] == kinds.count(1)
    assert sum(load.failures.values()) == kinds.count(1) + kinds.count(2)


def test_marks_are_counted_in_the_measured_answers(serve: Serve) -> None:
    """Those that hold it, and no others."""
    server = serve(lambda body: [http(more="x-cache: hit\r\n" if int(body[8:-1]) % 2 else "x-cache: miss\r\n")])
    load = closed_loop(server.port, SEEDED, connections=1, seconds=1.0, mark=b"x-cache: hit")
    assert abs(load.marked - load.requests / 2) <= 1


def test_a_paced_load_rests(serve: Serve) -> None:
    """Between an answer and the next request; the rest is no part of the latency."""
    server = serve(lambda body: [http()])
    load = closed_loop(server.port, SEEDED, connections=1, seconds=1.0, pause_seconds=0.03)
    assert 1 <= load.requests <= 34
    assert min(load.latencies) < 0.03


def test_a_paced_load_asks_something_else_between(serve: Serve) -> None:
    """Once in each pause; counted only where it fails."""
    server = serve(lambda body: [http(status="429 Too Many Requests") if body == b"{}" else http()])
    load = closed_loop(server.port, SEEDED, connections=1, seconds=1.0, pause_seconds=0.03, between=Requests("{}"))
    assert load.answered == server.bodies.count(b"{}") == load.failures["429"] == len(server.bodies) / 2
    assert load.requests <= load.answered


@pytest.mark.parametrize("cuts", [(1,), (20,), (30, 31), (37, 60, 100)])
def test_answers_in_pieces_are_put_together(serve: Serve, cuts: tuple[int, ...]) -> None:
    """Wherever TCP cuts them, within the head, at its end or within the body."""
    whole = http(bytes(range(256)))
    server = serve(lambda body: [])
    connection = Connection(server.port)
    here, there = socket.socketpair()
    connection._socket.close()
    connection._socket = here
    received = []
    for start, end in zip((0, *cuts), (*cuts, len(whole)), strict=True):
        there.sendall(whole[start:end])
        received.append(connection.receive())
    assert received[:-1] == [None] * len(cuts)
    assert received[-1] is not None
    assert whole.startswith(received[-1])
    assert received[-1].startswith(whole[:40])  # the head, which is what loads look at
    assert connection.length == len(whole)
    there.close()
    with pytest.raises(ConnectionError):
        connection.receive()
    connection.close()


def test_lengths_are_read_whatever_their_case() -> None:
    """Header names have none; a head that is not whole has no length yet."""
    assert (
        whole_bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n")
        == len(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n") + 7
    )
    assert whole_bytes(b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n") == 0


def test_requests_are_valid_http() -> None:
    """Their length is their body's, seeds ascend by the step, and begin again where so few are distinct."""
    stream = Requests('{"seed":%d,"num_images":16}', step=16, distinct=2).stream()
    first, second, third = (next(stream) for _ in range(3))
    head, _, body = first.partition(b"\r\n\r\n")
    assert body == b'{"seed":1000000000,"num_images":16}'
    assert f"Content-Length: {len(body)}".encode() in head
    assert second == first.replace(b"1000000000", b"1000000016")
    assert third == first


def test_arrivals_are_a_poisson_process() -> None:
    """The rate is right, gaps spread as much as they last, counts as much as they are; a seed gives the same again."""
    times = arrivals(200.0, 100.0, seed=3)
    gaps = np.diff(times, prepend=0.0)
    assert abs(len(times) - 20_000) < 4 * np.sqrt(20_000)
    assert (gaps > 0).all()
    assert times[-1] < 100.0
    assert abs(gaps.std() / gaps.mean() - 1) < 0.05  # 1 for the exponential distribution; its error here is 0.007
    counts = np.bincount(times.astype(int), minlength=100)
    assert abs(counts.var() / counts.mean() - 1) < 0.6  # 1 for a Poisson one; its error here is 0.14
    assert (times == arrivals(200.0, 100.0, seed=3)).all()
    assert len(times) != len(arrivals(200.0, 100.0, seed=4)) or (times != arrivals(200.0, 100.0, seed=4)).any()


def test_the_open_loop_asks_once_at_each_time(serve: Serve) -> None:
    """Whatever the answers are; statuses stand by their requests."""
    server = serve(lambda body: [http(status="429 Too Many Requests") if int(body[8:-1]) % 4 == 0 else http()])
    load = open_loop(server.port, SEEDED, arrivals(400.0, 0.25, seed=1), connections=8)
    assert len(server.bodies) == len(set(server.bodies)) == len(load.scheduled)
    refused = sum(int(body[8:-1]) % 4 == 0 for body in server.bodies)
    assert load.counts() == {200: len(server.bodies) - refused, 429: refused}
    assert (load.latencies > 0).all()


def test_latency_counts_from_the_time_that_was_planned(serve: Serve) -> None:
    """Twenty requests due at once over one connection: each is asked after the last one's answer, and waits longer."""
    load = open_loop(serve(lambda body: [http()]).port, SEEDED, np.zeros(20), connections=1)
    assert (np.diff(load.latencies) > 0).all()


def test_answers_too_late_are_no_goodput() -> None:
    """Within the deadline, answered 200, and inside the measured time: all three."""
    load = OpenLoad(
        scheduled=np.array([0.0, 1.0, 1.0, 1.0, 2.0]),
        latencies=np.array([0.5, 0.5, 1.5, 0.5, 0.5]),
        statuses=np.array([200, 200, 200, 429, 200]),
        late_seconds=0.0,
        cpu_seconds=0.0,
    )
    assert load.answered_within(1.0, 0.0, 2.0) == 2
    assert load.answered_within(1.0, 1.0, 2.0) == 1
    assert load.answered_within(2.0, 0.0, 9.0) == 4


def test_lost_connections_are_no_answers(serve: Serve) -> None:
    """Their requests have status 0 and no latency; the others go on over a new connection."""
    server = serve(lambda body: [b"<close>"] if body == b'{"seed":1000000001}' else [http()])
    load = open_loop(server.port, SEEDED, np.array([0.0, 0.01, 0.02]), connections=1)
    assert load.statuses.tolist() == [200, 0, 200]
    assert np.isnan(load.latencies[1])
