"""What happens to every request: bodies, slow senders, clients that leave. Driven as a server would drive it."""

import asyncio

import pytest

from models.repository import Repository
from models.testkit import promote_tiny
from serving.app import create_app
from serving.loading import load
from serving.metrics import Metrics
from serving.middleware import MAX_BODY_BYTES, Front
from serving.settings import Settings
from tests.serving.kit import Gated, running, until


class Connection:
    """One request, message by message."""

    def __init__(self, app, path="/sample", method="POST", headers=(), body=b"{}"):
        self.sent: list[dict] = []
        self._inbox: asyncio.Queue[dict] = asyncio.Queue()
        pairs = {"content-type": "application/json", "content-length": str(len(body)), **dict(headers)}
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [(key.encode(), value.encode()) for key, value in pairs.items()],
            "http_version": "1.1",
            "scheme": "http",
            "root_path": "",
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
            "state": {},
            "asgi": {"version": "3.0"},
        }
        self.task = asyncio.create_task(app(scope, self._inbox.get, self._send))

    async def _send(self, message):
        self.sent.append(dict(message))

    def body(self, data, more=False):
        self._inbox.put_nowait({"type": "http.request", "body": data, "more_body": more})

    def leave(self):
        self._inbox.put_nowait({"type": "http.disconnect"})

    @property
    def status(self):
        return self.sent[0]["status"] if self.sent else None


class GatedModel:
    """A loaded model whose network runs when told to."""

    def __init__(self, model, gate: Gated):
        self._model, self._gate = model, gate

    def __getattr__(self, name):
        return getattr(self._model, name)

    def generate(self, z, class_idx=None):
        self._gate.generate(z)
        return self._model.generate(z, class_idx)


@pytest.fixture
def gate():
    made = Gated()
    yield made
    made.release(1000)


@pytest.fixture
async def app(tmp_path, gate):
    repository = Repository(tmp_path)
    promote_tiny(repository)
    settings = Settings(threads=1, max_images=64, max_queue_images=64, stock_images=0)
    made = create_app(settings, repository, loader=lambda version: GatedModel(load(repository, version), gate))
    async with running(made):
        yield made
        gate.release(1000)


def counted(app, status):
    line = f'genserve_requests_total{{method="POST",route="/sample",status="{status}"}}'
    return sum(float(row.rsplit(" ", 1)[1]) for row in exposition(app).splitlines() if row.startswith(line))


def exposition(app):
    return app.service.metrics.exposition().decode()


def ask(app, body=b"{}", **options):
    connection = Connection(app, body=body, **options)
    connection.body(body)
    return connection


async def test_a_client_that_leaves_cancels_its_work(app, gate):
    """What it queued never runs, it is counted as 499, and the engine goes on for the others."""
    first = ask(app, b'{"seed": 1}')
    await until(lambda: gate.batches)
    leaving, staying = ask(app, b'{"seed": 2, "num_images": 30}'), ask(app, b'{"seed": 99}')
    await until(lambda: app.service.sampler._batcher.schedule.waiting == 31)
    leaving.leave()
    await asyncio.wait([leaving.task])
    assert app.service.sampler._batcher.schedule.waiting == 1
    gate.release(5)
    await asyncio.gather(first.task, staying.task)
    assert (first.status, staying.status, leaving.status) == (200, 200, None)
    assert sum(len(batch) for batch in gate.batches) == 2
    assert 'genserve_queue_rejected_images_total{reason="deadline"} 0.0' in exposition(app)  # it had time left
    assert (counted(app, 200), counted(app, 499)) == (2, 1)


async def test_shared_work_survives_the_first_who_leaves(app, gate):
    """Two ask for the same seed; the one that started it leaves; the other is answered by the same run."""
    first = ask(app, b'{"seed": 1}')
    await until(lambda: gate.batches)
    second = ask(app, b'{"seed": 1}')
    await until(lambda: app.front.in_progress == 2)
    first.leave()
    await asyncio.wait([first.task])
    gate.release(5)
    await second.task
    assert second.status == 200
    assert len(gate.batches) == 1


async def test_many_identical_requests_are_one_inference(app, gate):
    """300 at once: one batch of one image, identical bytes."""
    connections = [ask(app, b'{"seed": 1}') for _ in range(300)]
    await until(lambda: app.front.in_progress == 300)
    gate.release(5)
    await asyncio.gather(*(connection.task for connection in connections))
    assert len({connection.sent[1]["body"] for connection in connections}) == 1
    assert [len(batch) for batch in gate.batches] == [1]


async def test_a_deadline_that_passes_is_504_and_the_work_is_not_run(app, gate):
    """Also while another request holds the engine."""
    first = ask(app, b'{"seed": 1}')
    await until(lambda: gate.batches)
    late = ask(app, b'{"seed": 2}', headers={"x-request-timeout": "0.05"})
    await late.task
    assert late.status == 504
    gate.release(5)
    await first.task
    assert len(gate.batches) == 1
    assert 'genserve_queue_rejected_images_total{reason="deadline"} 1.0' in exposition(app)


async def test_a_full_queue_is_429_with_retry_after_and_costs_nothing(app, gate):
    """64 images wait; the 65th is refused at once; when there is room again it is taken."""
    first = ask(app, b'{"seed": 1}')
    await until(lambda: gate.batches)
    filling = ask(app, b'{"seed": 100, "num_images": 64}')
    await until(lambda: app.service.sampler._batcher.schedule.waiting == 64)
    refused = ask(app, b'{"seed": 2}')
    await refused.task
    assert refused.status == 429
    headers = dict(refused.sent[0]["headers"])
    assert int(headers[b"retry-after"]) >= 1
    assert headers[b"content-type"] == b"application/problem+json"
    gate.release(10)
    await asyncio.gather(first.task, filling.task)
    assert filling.status == 200


async def test_a_network_that_fails_is_500_without_details(app, gate):
    """The next request is answered."""
    gate.error = RuntimeError("secret")
    gate.release()
    failed = ask(app, b'{"seed": 1}')
    await failed.task
    assert failed.status == 500
    assert b"secret" not in failed.sent[1]["body"]
    gate.error = None
    gate.release()
    good = ask(app, b'{"seed": 1}')
    await good.task
    assert good.status == 200


async def test_a_body_above_the_limit_is_413(app):
    """Whether it says so or not."""
    honest = Connection(app, headers={"content-length": str(MAX_BODY_BYTES + 1)})
    await honest.task
    chunked = Connection(app, headers={"content-length": "0", "transfer-encoding": "chunked"})
    for _ in range(9):
        chunked.body(b" " * (MAX_BODY_BYTES // 8), more=True)
    await chunked.task
    assert (honest.status, chunked.status) == (413, 413)
    assert (b"connection", b"close") in honest.sent[0]["headers"]
    assert counted(app, 413) == 2  # by their route, though no route saw them


async def test_a_body_that_does_not_arrive_is_408(app):
    """And a client that leaves in the middle of it is 499."""
    front = Front(app, metrics=Metrics(), draining=lambda: False, body_seconds=0.05)
    slow = Connection(front, body=b"{}" * 100)
    slow.body(b"{", more=True)
    await slow.task
    assert slow.status == 408
    leaving = Connection(app, body=b"{}" * 100)
    leaving.body(b"{", more=True)
    leaving.leave()
    await leaving.task
    assert leaving.sent == []


async def test_all_bodies_together_are_bounded(app):
    """One above the bound is 503 with Retry-After; when another ends there is room again."""
    front = Front(app, metrics=Metrics(), draining=lambda: False, max_bodies_bytes=1000)
    holding = Connection(front, body=b" " * 900)
    holding.body(b" " * 800, more=True)
    await until(lambda: front.bodies_bytes == 800)
    refused = ask(front, b" " * 300)
    await refused.task
    assert refused.status == 503
    assert int(dict(refused.sent[0]["headers"])[b"retry-after"]) >= 1
    holding.leave()
    await holding.task
    wrong = ask(front, b" " * 300)
    await wrong.task
    assert (wrong.status, front.bodies_bytes) == (400, 0)
