"""A request answered without ASGI is answered as by ASGI, however its bytes arrive."""

import asyncio
import gc
import itertools
import re
import socket

import pytest
from uvicorn.server import ServerState

from models.repository import Repository
from models.testkit import promote_tiny
from serving.app import create_app
from serving.asgi import Incoming, Reply
from serving.fast_path import FastProtocol
from serving.known import MAX_BYTES, MAX_REQUESTS, Known
from serving.listening import http_config
from serving.settings import Settings
from tests.serving.kit import Server, closing, running, until
from tests.waiting import wait_until

OWN = (b"date", b"x-request-id", b"server-timing", b"x-cache")  # headers that belong to one answer


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """One for all: nothing here changes its models."""
    root = tmp_path_factory.mktemp("fast")
    promote_tiny(Repository(root / "models"))
    with closing(Server(root / "models", root / "log", threads=1, drain_seconds=0.2)) as running:
        yield running


@pytest.fixture
def client(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as sock, sock.makefile("rb") as answers:
        yield sock, answers


def post(body=b'{"seed": 1}', path=b"/sample", version=b"1.1", **headers):
    given = {"host": "x", "content-type": "application/json", "content-length": len(body), **headers}
    lines = b"".join(b"%b: %b\r\n" % (n.replace("_", "-").encode(), str(v).encode()) for n, v in given.items())
    return b"POST %b HTTP/%b\r\n%b\r\n%b" % (path, version, lines, body)


def answer(answers):
    """Status, headers and body of the next answer."""
    status = int(answers.readline().split()[1])
    headers = dict(line.rstrip(b"\r\n").split(b": ", 1) for line in iter(answers.readline, b"\r\n"))
    return status, headers, answers.read(int(headers[b"content-length"]))


def shared(headers):
    return {name: value for name, value in headers.items() if name not in OWN}


def test_pieces_and_a_query_get_the_same_answer_as_a_whole(client):
    """One write, one byte at a time, chunked, and with a query, which only ASGI's way knows."""
    sock, answers = client
    sock.sendall(post())
    status, headers, body = answer(answers)
    assert status == 200
    assert {b"x-model", b"x-seed", b"x-request-id", b"date", b"x-numerics"} <= set(headers)
    chunked = (
        b"POST /sample HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    chunks = b'4\r\n{"se\r\n7\r\ned": 1}\r\n0\r\n\r\n'
    for data in (post(), post(path=b"/sample?x"), chunked + chunks):
        for size in (len(data), 7):
            for start in range(0, len(data), size):
                sock.sendall(data[start : start + size])
            again = answer(answers)
            assert (again[0], shared(again[1]), again[2]) == (200, shared(headers), body)


def test_pipelined_requests_are_answered_in_order(client):
    """Hits, misses, other paths and errors behind each other in one packet."""
    sock, answers = client
    asked = [b'{"seed": %d}' % seed for seed in (5, 5, 6, 7)]
    get = b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n"
    sock.sendall(b"".join(map(post, asked[:2])) + get + post(b'{"seed": -1}') + b"".join(map(post, asked[2:])))
    got = [answer(answers) for _ in range(6)]
    assert [status for status, _, _ in got] == [200, 200, 200, 400, 200, 200]
    assert [headers.get(b"x-seed") for _, headers, _ in got] == [b"5", b"5", None, None, b"6", b"7"]
    assert len({headers[b"x-request-id"] for _, headers, _ in got}) == 6


def test_a_hit_of_other_words_is_another_answer(client):
    """What is kept by a request's words is kept by all of them that matter."""
    sock, answers = client
    for headers, kind in (({}, b"image/png"), ({"accept": "image/webp"}, b"image/webp"), ({}, b"image/png")):
        sock.sendall(post(b'{"seed": 11}', **headers))
        status, got, _ = answer(answers)
        assert (status, got[b"content-type"]) == (200, kind)
    sock.sendall(post(b'{"seed": 11}', content_type="text/plain"))
    assert answer(answers)[0] == 415
    sock.sendall(post(b'{"seed": 11}', x_request_timeout="soon"))
    assert answer(answers)[0] == 400
    sock.sendall(post(b'{"seed": 11}', x_request_id="mine"))
    status, got, _ = answer(answers)
    assert (status, got[b"x-cache"], got[b"x-request-id"]) == (200, b"hit", b"mine")


def repeat(client, data, times=3):
    """The answers to the same bytes again and again: computed, then at hand, then known."""
    sock, answers = client
    got = []
    for _ in range(times):
        sock.sendall(data)
        got.append(answer(answers))
    return got


def test_known_bytes_get_the_answer_that_they_had(client):
    """Only the id, and the cache's word after the first, differ."""
    first, *later = repeat(client, post(b'{"seed": 31}'), times=4)
    assert first[1][b"x-cache"] == b"miss"
    for status, headers, body in later:
        assert (status, shared(headers), body, headers[b"x-cache"]) == (200, shared(first[1]), first[2], b"hit")
    assert len({headers[b"x-request-id"] for _, headers, _ in [first, *later]}) == 4


def test_known_bytes_are_kept_whole(client):
    """Two requests in one packet have two answers each time, and what follows a request is never forgotten."""
    sock, answers = client
    one = post(b'{"seed": 33}')
    repeat(client, one)
    for _ in range(3):
        sock.sendall(one + one)
        assert [answer(answers)[0] for _ in range(2)] == [200, 200]
    sock.sendall(one + b"\x00")
    assert [answer(answers)[0] for _ in range(2)] == [200, 400]
    assert answers.read() == b""


def test_bytes_before_a_refusal_are_refused_each_time(server, client):
    """A request with bytes behind it that are no HTTP is not known without them."""
    one = post(b'{"seed": 34}')
    repeat(client, one)
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as sock, sock.makefile("rb") as answers:
            sock.sendall(one + b"\x00")
            assert [answer(answers)[0] for _ in range(2)] == [200, 400]
            assert answers.read() == b""


def test_what_is_known_is_bounded():
    """In number and in size; what was forgotten is parsed again."""
    known, request = Known(), (None, Incoming({}, b""))
    known.keep(b"x" * (MAX_BYTES + 1), request)
    assert known.find(b"x" * (MAX_BYTES + 1)) is None
    for number in range(MAX_REQUESTS):
        known.keep(b"%d" % number, request)
    assert known.find(b"0") is request
    known.keep(b"one more", request)
    assert known.find(b"0") is None
    assert known.find(b"one more") is request


@pytest.mark.parametrize(("version", "headers"), [(b"1.0", {}), (b"1.1", {"connection": "close"})])
def test_a_connection_that_shall_end_does(server, version, headers):
    """HTTP/1.0 and Connection: close, for a miss and its repetition's hit alike."""
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as sock, sock.makefile("rb") as answers:
            sock.sendall(post(b'{"seed": 21}', version=version, **headers))
            status, got, _ = answer(answers)
            assert (status, got[b"connection"]) == (200, b"close")
            assert answers.read() == b""


def test_expectations_are_met(client):
    """100-continue comes before the answer."""
    sock, answers = client
    head, body = post(expect="100-continue").split(b"\r\n\r\n")
    sock.sendall(head + b"\r\n\r\n")
    assert answers.readline().startswith(b"HTTP/1.1 100")
    assert answers.readline() == b"\r\n"
    sock.sendall(body)
    assert answer(answers)[0] == 200


def test_one_that_leaves_is_counted(server):
    """499, and nothing stays in progress."""
    left = 'genserve_requests_total{method="POST",route="/sample",status="499"}'
    before = server.metric(left)
    seeds = itertools.count(77_000, 256)

    def leave():
        """Again where the answer was there before the client had left."""
        with socket.create_connection(("127.0.0.1", server.port)) as sock:
            sock.sendall(post(b'{"num_images": 256, "seed": %d}' % next(seeds)))
        return server.metric(left) > before

    wait_until(leave)
    wait_until(lambda: server.metric("genserve_requests_in_progress") == 1)  # the scrape itself


def test_a_drain_closes_connections_after_their_answer(tmp_path):
    """An answer under way when the server drains says so."""
    promote_tiny(Repository(tmp_path / "models"))
    with (
        closing(Server(tmp_path / "models", tmp_path / "log", threads=1, drain_seconds=5)) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=20) as sock,
        sock.makefile("rb") as answers,
    ):
        for _ in range(3):  # a miss, a hit, and the same bytes once more
            sock.sendall(post())
            assert b"connection" not in answer(answers)[1]
        server.terminate()
        wait_until(lambda: server.status("/health/ready") == 503)
        sock.sendall(post())
        assert answer(answers)[1][b"connection"] == b"close"


def test_a_header_cannot_end_the_headers():
    """Whatever gets into a value, no second answer comes of it."""
    for value in (b"a\r\nset-cookie: b", b"a\nb", b"a\rb"):
        with pytest.raises(ValueError, match="line"):
            Reply(200, [(b"x-model", value)], b"").head()


class Wire(asyncio.Transport):
    """A transport to nowhere that counts answers."""

    def __init__(self):
        super().__init__()
        self.answers = 0
        self.written = b""
        self.closed = False

    def write(self, data):
        self.answers += data.startswith(b"HTTP/1.1 200")
        self.written += data

    def close(self):
        self.closed = True

    def is_closing(self):
        return self.closed

    def pause_reading(self):
        """Nothing comes unasked."""

    def resume_reading(self):
        """Nor now."""


@pytest.fixture
async def connect(tmp_path):
    """Makes connections to an application: a wire and a protocol each."""
    repository = Repository(tmp_path)
    promote_tiny(repository)
    app = create_app(Settings(), repository)
    async with running(app):
        config = http_config(app, Settings(), lifespan="off")
        config.load()

        def connected():
            wire, protocol = Wire(), FastProtocol(config=config, server_state=ServerState(), app_state={})
            protocol.connection_made(wire)
            return wire, protocol

        yield connected


async def asked(wire, protocol, request, times):
    """The same bytes so many times, each after the answer before."""
    for number in range(times):
        protocol.data_received(request)
        await until(lambda number=number: wire.answers > number)


async def test_known_bytes_are_no_request_inside_of_another(connect):
    """As a part of a body and of headers they are what they are there."""
    wire, protocol = connect()
    known = post(b'{"seed": 32}')
    await asked(wire, protocol, known, 3)
    protocol.data_received(post(b"", **{"content-length": len(known)}))
    protocol.data_received(known)
    await until(lambda: b"not valid JSON" in wire.written)
    protocol.data_received(b"POST /interpolate HTTP/1.1\r\nx-more: ")
    protocol.data_received(known)  # whose first line is a header's value now, and whose body lacks key frames
    await until(lambda: wire.written.count(b"HTTP/1.1 400") == 2)
    assert wire.answers == 3


async def test_known_bytes_wait_for_the_answer_before(connect):
    """An answer at hand does not overtake one that is being computed."""
    wire, protocol = connect()
    known = post(b'{"seed": 35}')
    await asked(wire, protocol, known, 3)
    protocol.data_received(post(b'{"seed": 36}'))
    protocol.data_received(known)
    await until(lambda: wire.answers == 5)
    seeds = re.findall(rb"x-seed: (\d+)", wire.written)
    assert seeds == [b"35", b"35", b"35", b"36", b"35"]


async def test_known_bytes_end_the_wait_for_headers(connect, monkeypatch):
    """The first request of a connection is in time though it is not parsed; silence is still cut."""
    monkeypatch.setattr(FastProtocol, "header_seconds", 0.2)
    wires = []
    for times in (3, 1, 0):  # the bytes are known at the second connection
        wire, protocol = connect()
        await asked(wire, protocol, post(), times)
        wires.append(wire)
    await until(lambda: wires[-1].closed)  # the last to connect
    assert [wire.closed for wire in wires] == [False, False, True]


@pytest.mark.parametrize("body", [b'{"seed": %d}', b'{"seed": 1}', b'{"seed": %d, "num_images": 4}'])
async def test_a_request_leaves_nothing_for_the_collector(connect, body):
    """Misses, hits and grids: everything is freed when the answer is out."""
    wire, protocol = connect()

    async def ask(numbers):
        for number in numbers:
            before = wire.answers
            protocol.data_received(post(body.replace(b"%d", b"%d" % number)))
            await until(lambda before=before: wire.answers > before)

    await ask(range(10))
    gc.collect()
    gc.disable()
    try:
        await ask(range(10, 60))
        assert gc.collect() < 50
    finally:
        gc.enable()
