"""A server as a process: signals, restarts, clients that leave, hostile connections, a Redis that two share."""

import argparse
import concurrent.futures
import contextlib
import socket
import threading

import httpx
import pytest
import structlog

from models.repository import Repository
from models.testkit import promote_tiny
from serving.errors import SettingsError
from serving.server import serve
from tests.ports import free_port
from tests.serving.kit import Server, closing
from tests.waiting import wait_until


@pytest.fixture
def models(tmp_path):
    """A repository of its own: these tests promote."""
    root = tmp_path / "models"
    promote_tiny(Repository(root))
    return root


@pytest.fixture
def start(models, tmp_path):
    """Starts servers and ends them."""
    with contextlib.ExitStack() as stack:
        yield lambda **settings: stack.enter_context(
            closing(Server(models, tmp_path / "log", **{"threads": 1, "drain_seconds": 0.2, **settings}))
        )


def connect(server):
    return socket.create_connection(("127.0.0.1", server.port), timeout=20)


def everything(sock):
    """All that comes until the server closes."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while data := sock.recv(65536):
            received += data
    return received


def test_sigterm_drains_without_losing_a_request(start):
    """Ready says 503 at once, requests are answered for the drain time, the process exits 0."""
    server = start(drain_seconds=5)
    statuses, stop = [], threading.Event()

    def load():
        while not stop.is_set():
            try:
                statuses.append(server.sample(num_images=4).status_code)
            except httpx.TransportError as error:  # excused where the drain is over: nobody listens any more
                if server.status("/health/live") is not None:
                    statuses.append(repr(error))

    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        loads = [pool.submit(load) for _ in range(3)]
        wait_until(lambda: len(statuses) > 10)
        server.terminate()
        wait_until(lambda: server.status("/health/ready") == 503)
        assert server.status("/health/live") == 200
        before = len(statuses)
        wait_until(lambda: len(statuses) > before + 5)
        assert server.process.wait(20) == 0
        stop.set()
        for one in loads:
            one.result()
    assert set(statuses) == {200}


def test_a_second_signal_ends_the_drain(start):
    """No need to wait for a long one."""
    server = start(drain_seconds=600)
    server.terminate()
    wait_until(lambda: server.status("/health/ready") == 503)
    server.terminate()
    assert server.process.wait(20) == 0


def test_a_restart_gives_the_same_bytes(start):
    """PNG, grid and animation."""

    def answers(server):
        walk = {"keyframes": [{"seed": 1}, {"seed": 2}], "frames": 8}
        return [
            server.sample(seed=7).content,
            server.sample(seed=7, num_images=16).content,
            httpx.post(f"{server.url}/interpolate", json=walk).content,
        ]

    first = start()
    expected = answers(first)
    first.stop()
    assert answers(start()) == expected


def test_a_promotion_under_load_fails_nobody(start, models):
    """Every answer is 200 and names one of the two digests; the new one ends up answering."""
    server = start(poll_seconds=0.05)
    digests, stop = [], threading.Event()

    def load():
        while not stop.is_set():
            answer = server.sample(num_images=4)
            assert answer.status_code == 200
            digests.append((answer.headers["x-model"], answer.headers["x-model-digest"]))

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        loads = [pool.submit(load) for _ in range(2)]
        wait_until(lambda: len(digests) > 5)
        promote_tiny(Repository(models), seed=5)
        wait_until(lambda: ("tiny@2",) in {(name,) for name, _ in digests})
        stop.set()
        for one in loads:
            one.result()
    assert len(set(digests)) == 2
    assert server.sample().headers["x-model"] == "tiny@2"


def test_two_servers_share_a_redis_and_survive_its_death(start, redis):
    """What one drew the other has; Redis killed and frozen under requests gives no 5xx and no wrong pixel."""
    settings = {"redis_url": redis.url, "redis_timeout_seconds": 6.0}
    first, second = start(**settings), start(**settings)
    drawn = first.sample(seed=7, num_images=16)
    wait_until(lambda: redis.entries() == 16)  # written after the answer; asked sooner, `second` would draw its own
    again = second.sample(seed=7, num_images=16)
    assert again.headers["x-numerics"] == drawn.headers["x-numerics"]
    assert again.headers["x-cache"] == "hit", second.log.read_text()
    assert again.content == drawn.content
    assert second.metric('genserve_cache_requests_total{result="hit",tier="redis"}') == 16
    answers, stop = [], threading.Event()

    def load():
        seed = 0
        while not stop.is_set():
            seed = (seed + 1) % 50
            answers.append((seed, second.sample(seed=seed, format="npy")))

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        loading = pool.submit(load)
        wait_until(lambda: len(answers) > 20)
        redis.freeze()
        wait_until(lambda: second.metric('genserve_cache_available{tier="redis"}') == 0 or len(answers) > 500)
        redis.thaw()
        redis.kill()
        before = len(answers)
        wait_until(lambda: len(answers) > before + 30)
        stop.set()
        loading.result()
    assert {answer.status_code for _, answer in answers} == {200}
    images: dict[int, set[bytes]] = {}
    for seed, answer in answers:
        images.setdefault(seed, set()).add(answer.content)
    assert all(len(versions) == 1 for versions in images.values())


def test_clients_that_leave_are_counted_and_disturb_nobody(start):
    """Fifty connections that are closed without reading; the server is as good as new."""
    server = start()
    body = b'{"num_images": 256}'
    head = f"POST /sample HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    for _ in range(50):
        sock = connect(server)
        sock.sendall(head.encode() + body)
        sock.close()
    wait_until(lambda: server.metric("genserve_requests_in_progress") == 1)  # the scrape itself
    assert server.sample(seed=1).status_code == 200
    wait_until(lambda: server.metric("genserve_queue_images") == 0)  # of the stock, an image waits for a moment


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nhost: x\r\nbroken\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nx: " + b"a" * 1_000_000, b"431"),
        (b"POST /sample HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999\r\n\r\n", b"413"),
        (b"POST /sample HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n", b"400"),
        (b"POST /sample HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nZZ\r\n", b"400"),
        (b"GET /%00%ff%2e%2e/x HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", b"404"),
        (b"GET /models/%ff HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", b"404"),
        (b"GET /?a=%ff HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", b"200"),
    ],
)
def test_hostile_bytes_are_refused_clearly(start, data, status):
    """As problem+json with a request id, and the connection ends."""
    server = start()
    with connect(server) as sock:
        with contextlib.suppress(ConnectionError):
            sock.sendall(data)
        answer = everything(sock)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.split()[1] == status
    assert b"x-request-id" in head
    if status != b"200":
        assert b"application/problem+json" in head
        assert body.startswith(b'{"type"')
    assert server.status("/health/live") == 200


def test_slow_senders_are_cut(start):
    """Half a header, first or after an answer, is 408, and silence ends the connection, while others are answered."""
    server = start(limits={"header_seconds": 5.0})
    whole = b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n"
    with connect(server) as silent, connect(server) as slow, connect(server) as again:
        slow.sendall(whole[:30])
        again.sendall(whole)
        assert again.recv(65536).startswith(b"HTTP/1.1 200 ")
        again.sendall(whole[:30])
        assert server.sample(seed=1).status_code == 200
        assert b" 408 " in everything(slow)
        assert b" 408 " in everything(again)
        assert everything(silent) == b""


def test_one_connection_too_many_is_refused(start):
    """503 with Retry-After; when one of the others ends, there is room again."""
    server = start(limits={"max_connections": 2})
    with connect(server) as first, connect(server), connect(server) as third:
        head, _, body = everything(third).partition(b"\r\n\r\n")
        assert head.split()[1] == b"503"
        assert b"retry-after: 1" in head
        assert b"application/problem+json" in head
        assert b"2 connections are open" in body
        first.close()
        wait_until(lambda: server.status("/health/live") == 200)


def test_metrics_on_a_port_of_their_own(start):
    """And not beside everything else."""
    port = free_port()
    server = start(metrics_port=port)
    assert server.status("/metrics") == 404
    assert "genserve_ready 1.0" in httpx.get(f"http://127.0.0.1:{port}/metrics").text
    assert httpx.get(f"http://127.0.0.1:{port}/sample").status_code == 404


def test_a_wrong_setting_or_a_taken_port_ends_the_start(models, start, monkeypatch):
    """The error names the setting."""
    monkeypatch.setattr("serving.server.configure_logging", lambda settings: None)  # this process logs for pytest
    with pytest.raises(SettingsError, match="GENSERVE_PROT"):
        serve(None, {"GENSERVE_PROT": "1"})
    taken = start().port
    with pytest.raises(SettingsError, match="GENSERVE_PORT: cannot listen"):
        serve(None, {"GENSERVE_PORT": str(taken), "GENSERVE_MODELS": str(models)})
    arguments = argparse.Namespace(host=None, port=taken, models=str(models), config=None)
    with pytest.raises(SettingsError, match="--port: cannot listen"):
        serve(arguments, {})
    with pytest.raises(SettingsError, match="CUDAExecutionProvider"):
        serve(None, {"GENSERVE_PROVIDERS": "cuda"})


@pytest.mark.parametrize(("there", "said"), [(False, "does not exist"), (True, "is empty")])
def test_nothing_to_serve_is_said_as_it_is(tmp_path, monkeypatch, there, said):
    """A folder that is missing, a typo perhaps, is not called empty."""
    monkeypatch.setattr("serving.server.configure_logging", lambda settings: None)
    root = tmp_path / "models"
    if there:
        root.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as taken, structlog.testing.capture_logs() as lines:
        environment = {"GENSERVE_PORT": str(taken.getsockname()[1]), "GENSERVE_MODELS": str(root)}
        with pytest.raises(SettingsError, match="cannot listen"):
            serve(None, environment)
    assert [said in line["event"] for line in lines if line["log_level"] == "warning"] == [True]
