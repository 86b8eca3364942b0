"""Several HTTP processes around one that has the models: the same answers, bounds and numbers as one process."""

import concurrent.futures
import contextlib
import os
import re
import resource
import shutil
import signal
import socket
import tempfile
import threading
from pathlib import Path

import httpx
import pytest

from models.repository import Repository
from models.testkit import promote_tiny, tiny_signature
from tests.ports import free_port
from tests.serving.kit import Server, closing
from tests.waiting import wait_until

WORKERS = 2
IMAGE = "/models/tiny/versions/1/images/7.png"


def fill(root):
    repository = Repository(root)
    promote_tiny(repository)
    promote_tiny(repository, "classes", signature=tiny_signature(classes=4, shape=(8, 6, 3)))
    promote_tiny(repository, "vector", signature=tiny_signature(kind="vector"))
    return root


@pytest.fixture(scope="module")
def shared_models(tmp_path_factory):
    return fill(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def shared(shared_models, tmp_path_factory):
    """A server that no test may stop."""
    log = tmp_path_factory.mktemp("log") / "log"
    with closing(Server(shared_models, log, default_model="tiny", threads=1, workers=WORKERS)) as server:
        wait_until(lambda: server.metric("genserve_workers") == WORKERS)
        yield server


@pytest.fixture
def start(tmp_path):
    """Starts servers over a repository of their own, and ends them."""
    root = fill(tmp_path / "models")
    with contextlib.ExitStack() as stack:

        def started(**settings):
            known = {"default_model": "tiny", "threads": 1, "workers": WORKERS, "drain_seconds": 0.2, **settings}
            server = stack.enter_context(closing(Server(root, tmp_path / "log", **known)))
            if "metrics_port" not in settings:
                wait_until(lambda: server.metric("genserve_workers") == known["workers"])
            return server

        yield started


def children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def open_files(pid):
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def connections(pid, port):
    """TCP connections to a port that a process has accepted."""
    inodes = set()
    with contextlib.suppress(FileNotFoundError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                inodes.add(str(entry.readlink()).removeprefix("socket:[").removesuffix("]"))
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    established, wanted = "01", f":{port:04X}"
    return sum(row[1].endswith(wanted) and row[3] == established and row[9] in inodes for row in rows)


def listening(pid, port):
    """Whether a process has the listening socket open."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    inodes = {row[9] for row in rows if row[1].endswith(f":{port:04X}") and row[3] == "0A"}
    with contextlib.suppress(FileNotFoundError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if str(entry.readlink()).removeprefix("socket:[").removesuffix("]") in inodes:
                    return True
    return False


def serving_workers(server):
    return [pid for pid in children(server.process.pid) if listening(pid, server.port)]


@contextlib.contextmanager
def loading(server, clients=4, **wish):
    """Clients that ask without pause, each on one connection, opened again where it breaks; yields what came."""
    came, stop = [], threading.Event()

    def load():
        while not stop.is_set():
            with httpx.Client(base_url=server.url, timeout=20) as client:
                try:
                    while not stop.is_set():
                        answer = client.post("/sample", json={"num_images": 4, **wish})
                        came.append((answer.status_code, answer.headers.get("x-model")))
                except httpx.TransportError as error:
                    came.append(("broken" if server.status("/health/live") is not None else "over", repr(error)))

    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        loads = [pool.submit(load) for _ in range(clients)]
        try:
            yield came
        finally:
            stop.set()
            for one in loads:
                one.result()


def statuses(came):
    return [status for status, _ in came]


def test_the_bytes_are_those_of_one_process(shared, shared_models, tmp_path):
    """Image, grid, walk, latents, classes, vectors, by address; whichever worker answers, from the cache or not."""
    wishes = [
        {"seed": 7},
        {"seed": 7, "num_images": 9},
        {"seeds": [5, 4], "truncation": 0.5, "format": "npy"},
        {"seeds": [1, 2, 3], "format": "json", "model": "classes"},
        {"seed": 3, "class_idx": 2, "model": "classes", "format": "webp"},
        {"z": [[0.5] * 8] * 3, "format": "zip"},
        {"seeds": [7], "model": "vector"},
    ]
    walk = {"keyframes": [{"seed": 1}, {"seed": 2}], "frames": 8}

    def answers(server):
        given = [server.sample(**wish) for wish in wishes]
        given += [httpx.post(f"{server.url}/interpolate", json=walk), httpx.get(server.url + IMAGE)]
        assert {answer.status_code for answer in given} == {200}
        told = ("x-model", "x-model-digest", "x-numerics", "x-seed", "etag", "content-type")
        return [(answer.content, [answer.headers.get(name) for name in told]) for answer in given]

    with closing(Server(shared_models, tmp_path / "log", default_model="tiny", threads=1)) as alone:
        expected = answers(alone)
    for _ in range(4):
        assert answers(shared) == expected


def test_every_worker_gets_connections(shared):
    """Of sixteen that come at once, and all are answered."""

    def spread():
        with contextlib.ExitStack() as stack:
            socks = [stack.enter_context(socket.create_connection(("127.0.0.1", shared.port))) for _ in range(16)]
            for sock in socks:
                sock.sendall(b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n")
            assert all(sock.recv(65536).startswith(b"HTTP/1.1 200") for sock in socks)
            return [connections(pid, shared.port) for pid in serving_workers(shared)]

    wait_until(lambda: min(spread()) >= 5)  # at once where the machine has time for both


def test_a_seed_asked_of_all_workers_at_once_is_made_once(shared):
    """Sixteen clients, sixteen connections, one inference each time."""
    series = 'genserve_images_generated_total{model="tiny"}'
    before = shared.metric(series)
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        for seed in range(1000, 1005):
            answers = list(pool.map(lambda _, seed=seed: shared.sample(seed=seed), range(16)))
            assert {answer.status_code for answer in answers} == {200}
            assert len({answer.content for answer in answers}) == 1
    assert shared.metric(series) == before + 5


def test_metrics_are_those_of_all_workers(shared):
    """Exactly as many requests as were sent, by status; images and answers of all of them."""
    ok = 'genserve_requests_total{method="POST",route="/sample",status="200"}'
    bad = 'genserve_requests_total{method="POST",route="/sample",status="400"}'
    seconds = 'genserve_request_duration_seconds_count{method="POST",route="/sample",status="200"}'
    served = 'genserve_images_served_total{model="tiny"}'
    before = [shared.metric(series) for series in (ok, bad, seconds, served)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: shared.sample(seed=i, num_images=2), range(40)))
        list(pool.map(lambda i: shared.sample(seed=-1), range(10)))
    after = [shared.metric(series) for series in (ok, bad, seconds, served)]
    assert [b - a for a, b in zip(before, after, strict=True)] == [40, 10, 40, 80]
    assert shared.metric("genserve_requests_in_progress") == 1  # the scrape itself
    assert shared.metric('genserve_model_info{digest="x"}') == 0


def test_clients_that_leave_empty_the_queue(shared):
    """What they asked for is not made for nobody."""
    body = b'{"num_images": 256}'
    head = f"POST /sample HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    for _ in range(40):
        with socket.create_connection(("127.0.0.1", shared.port)) as sock:
            sock.sendall(head.encode() + body)
    wait_until(lambda: shared.metric("genserve_requests_in_progress") == 1)
    wait_until(lambda: shared.metric("genserve_queue_images") == 0)
    assert shared.sample(seed=1).status_code == 200


def test_signals_meant_for_everybody_leave_workers_alone(shared):
    """A terminal's Ctrl-C and a service manager's SIGTERM reach them too; the engine's process decides."""
    workers = serving_workers(shared)
    for pid in workers:
        os.kill(pid, signal.SIGINT)
        os.kill(pid, signal.SIGTERM)
    for seed in range(20):
        assert shared.sample(seed=seed).status_code == 200
    assert serving_workers(shared) == workers


def test_a_promotion_under_load_fails_nobody(start, tmp_path):
    """Every answer is 200 and of one of the two versions; all workers end up with the new one."""
    server = start(poll_seconds=0.05)
    with loading(server) as came:
        wait_until(lambda: len(came) > 20)
        promote_tiny(Repository(tmp_path / "models"), seed=5)
        wait_until(lambda: (200, "tiny@2") in came)
    assert set(statuses(came)) == {200}

    def new():
        told = httpx.get(f"{server.url}/models/tiny", timeout=20).json()["serving"]["version"]
        return server.sample().headers["x-model"] == "tiny@2" and told == 2

    wait_until(lambda: all(new() for _ in range(10)))  # the other worker may hear of it a moment later


def test_a_killed_worker_breaks_its_own_connections_only_and_is_started_again(start):
    """Others are answered all the time; what it had counted is not lost, and its successor counts on."""
    server = start(workers=3)
    series = 'genserve_requests_total{method="POST",route="/sample",status="200"}'
    with loading(server, clients=6) as came:
        wait_until(lambda: len(came) > 100)
        before = server.metric(series)
        victim = max(serving_workers(server), key=lambda pid: connections(pid, server.port))
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: server.metric("genserve_worker_restarts_total") == 1)
        assert server.metric(series) >= before
        wait_until(lambda: server.metric("genserve_workers") == 3)
        answered = len(came)
        wait_until(lambda: len(came) > answered + 100)
    broken = [what for what in came if what[0] != 200]
    assert len(broken) <= 6
    assert all(what[0] == "broken" for what in broken)
    assert victim not in serving_workers(server)
    assert server.metric(series) >= before + 100


def test_workers_come_back_once_the_machine_can_start_them_again(start):
    """All of them died while too few descriptors were left: tried again, with no descriptor lost at each failure."""
    server = start()
    before = open_files(server.process.pid)
    limits = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
    few = before - 2 * WORKERS + 3  # each worker that dies gives two back, and a start needs four
    resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (few, limits[1]))
    for pid in serving_workers(server):
        os.kill(pid, signal.SIGKILL)
    failed = "a worker could not be run and is tried again"
    wait_until(lambda: server.log.read_text().count(failed) > 2 * WORKERS)
    resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, limits)
    wait_until(lambda: server.metric("genserve_workers") == WORKERS)
    assert server.sample(seed=1).status_code == 200
    wait_until(lambda: open_files(server.process.pid) == before)
    server.terminate()
    assert server.process.wait(20) == 0
    assert "Traceback" not in server.log.read_text()


def test_sigterm_drains_without_losing_a_request(start):
    """Every worker says 503 at once and answers on; at the end the process exits 0 and no worker is left."""
    server = start(drain_seconds=5)
    workers = serving_workers(server)
    with loading(server) as came:
        wait_until(lambda: len(came) > 20)
        server.terminate()
        wait_until(lambda: all(server.status("/health/ready") == 503 for _ in range(6)))
        assert server.status("/health/live") == 200
        before = len(came)
        wait_until(lambda: len(came) > before + 5)
        assert server.process.wait(30) == 0
    assert set(statuses(came)) <= {200, "over"}
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


def test_a_second_signal_ends_the_drain(start):
    """No need to wait for a long one."""
    server = start(drain_seconds=600)
    server.terminate()
    wait_until(lambda: server.status("/health/ready") == 503)
    server.terminate()
    assert server.process.wait(20) == 0


def test_workers_end_with_the_engines_process(start, monkeypatch):
    """Killed, it cannot tell them; they also remove the folder that they met in."""
    place = tempfile.mkdtemp()  # short: a socket's path may have 107 characters
    monkeypatch.setenv("TMPDIR", place)
    server = start()
    assert [path.stat().st_mode & 0o777 for path in Path(place).glob("genserve-*")] == [0o700]
    workers = serving_workers(server)
    assert len(workers) == WORKERS
    server.process.kill()
    server.process.wait(10)
    wait_until(lambda: server.status("/health/live") is None)
    wait_until(lambda: not any(listening(pid, server.port) for pid in workers))
    assert not list(Path(place).glob("genserve-*"))
    shutil.rmtree(place)


def test_metrics_on_a_port_of_their_own_are_the_engines(start):
    """And there alone."""
    port = free_port()
    server = start(metrics_port=port)
    assert server.sample(seed=1).status_code == 200
    text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    assert 'genserve_requests_total{method="POST",route="/sample",status="200"} 1.0' in text
    assert re.search("^genserve_workers [12].0$", text, re.MULTILINE)
    assert server.status("/metrics") == 404


def test_a_redis_is_asked_by_the_engines_process(start, redis):
    """What one server made, the workers of another have; a dead Redis breaks nothing."""
    settings = {"redis_url": redis.url, "redis_timeout_seconds": 10.0}
    first, second = start(**settings), start(**settings)
    drawn = first.sample(seed=7, num_images=16)
    wait_until(lambda: redis.entries() == 16)  # written after the answer; asked sooner, `second` would draw its own
    again = second.sample(seed=7, num_images=16)
    assert again.headers["x-numerics"] == drawn.headers["x-numerics"]
    assert again.headers["x-cache"] == "hit", second.log.read_text()
    assert again.content == drawn.content
    assert second.metric('genserve_cache_requests_total{result="hit",tier="redis"}') == 16
    redis.kill()
    assert {second.sample(seed=seed).status_code for seed in range(100, 120)} == {200}
