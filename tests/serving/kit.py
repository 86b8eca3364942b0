"""What the serving tests share: applications without a socket, networks that obey, servers as processes."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import httpx
import numpy as np
import redis as redis_client

from serving.app import App
from serving.speed import Speed
from tests.ports import free_port
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]
SERVE = """
import argparse, sys
import serving.hub
from serving.arguments import add_serve_arguments
from serving.protocol import GuardedProtocol
from serving.server import serve
serving.hub.SCRAPE_SECONDS = 10.0  # all workers are asked, however busy the machine is
for name, value in {limits!r}.items():
    setattr(GuardedProtocol, name, value)
parser = argparse.ArgumentParser()
add_serve_arguments(parser)
sys.exit(serve(parser.parse_args()))
"""


async def until(predicate, seconds: float = 20.0, pause_seconds: float = 0.002) -> None:
    """Let the event loop turn until the predicate is true."""
    pause = asyncio.Event()
    async with asyncio.timeout(seconds):
        while not predicate():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(pause.wait(), pause_seconds)


@contextlib.asynccontextmanager
async def running(app: App) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application that has started; it is ready unless nothing can be loaded."""
    inbox: asyncio.Queue[dict] = asyncio.Queue()
    outbox: asyncio.Queue[dict] = asyncio.Queue()
    lifespan = asyncio.create_task(app({"type": "lifespan", "asgi": {}, "state": {}}, inbox.get, outbox.put))
    await inbox.put({"type": "lifespan.startup"})
    assert (await outbox.get())["type"] == "lifespan.startup.complete"
    await app.service.live.refresh()
    transport = httpx.ASGITransport(app)
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            yield client
    finally:
        await inbox.put({"type": "lifespan.shutdown"})
        assert (await outbox.get())["type"] == "lifespan.shutdown.complete"
        await lifespan


class Gated:
    """A network that runs a batch only when told to: sample = z * 10; each network knows the batches it was given."""

    def __init__(self, *, error: Exception | None = None) -> None:
        self.batches: list[np.ndarray] = []
        self.error = error
        self.speed = Speed(0.0002, 0.0003)
        self._permits = threading.Semaphore(0)

    def generate(self, z, class_idx=None):
        self.batches.append(z)
        assert self._permits.acquire(timeout=20)
        if self.error is not None:
            raise self.error
        return z * 10

    def release(self, batches: int = 1) -> None:
        """Let so many batches through, now or when they come."""
        self._permits.release(batches)


class Log:
    """An observer of batches, lookups and live models that writes everything down."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.waits: list[float] = []
        self.rejections: list[tuple[int, str]] = []
        self.lookups: dict[tuple[str, str], int] = {}
        self.circuit: list[bool] = []
        self.live: list[str] = []
        self.reloads: list[str] = []
        self.failures: list[str] = []
        self.unjudged: list[str] = []

    def batch_ran(self, network, images, seconds):
        self.batches.append(images)

    def waited(self, seconds):
        assert seconds >= 0
        self.waits.append(seconds)

    def rejected(self, images, reason):
        self.rejections.append((images, reason))

    def looked_up(self, tier, result, images):
        self.lookups[tier, result] = self.lookups.get((tier, result), 0) + images

    def available(self, tier, yes):
        self.circuit.append(yes)

    def went_live(self, model):
        self.live.append(str(model.version))

    def reloaded(self, model):
        self.reloads.append(str(model.version))

    def load_failed(self, name):
        self.failures.append(name)

    def changed(self, loaded):
        self.unjudged = sorted(str(model.version) for model in loaded if model.verdict is None)


class Server:
    """`genserve serve` in a process of its own, on a free port, with other limits of its protocol where given."""

    def __init__(
        self, models: Path, log: Path, *, limits: Mapping[str, float] | None = None, **settings: object
    ) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        kept = {k: v for k, v in os.environ.items() if not k.startswith("GENSERVE_")}
        ours = {f"GENSERVE_{name.upper()}": str(value) for name, value in settings.items()}
        self.log = log
        self._log = log.open("ab")
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                SERVE.format(limits=dict(limits or {})),
                "--models",
                str(models),
                "--port",
                str(self.port),
            ],
            env={**kept, **ours, "PYTHONPATH": str(ROOT)},
            cwd=models,
            stderr=self._log,
            stdout=self._log,
        )
        try:
            wait_until(self._ready, 60)
        except BaseException:
            self.process.kill()
            raise

    def _ready(self) -> bool:
        assert self.process.poll() is None, "the server ended"
        return self.status("/health/ready") == 200

    def status(self, path: str) -> int | None:
        """Status of a GET; None where nobody listens."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=10) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return None

    def sample(self, **wish: object) -> httpx.Response:
        """POST /sample."""
        return httpx.post(f"{self.url}/sample", json=wish, timeout=20)

    def metric(self, line: str) -> float:
        """The value of a series, 0 where it is missing."""
        text = httpx.get(f"{self.url}/metrics", timeout=20).text
        return next((float(row.rsplit(" ", 1)[1]) for row in text.splitlines() if row.startswith(line + " ")), 0.0)

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def stop(self) -> int:
        """End it at once; its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        status = self.process.wait(20)
        self._log.close()
        return status


class Redis:
    """A redis-server on a free port, with nothing on disk."""

    def __init__(self, port: int | None = None) -> None:
        self.port = port or free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        self._process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"],
            stdout=subprocess.DEVNULL,
        )
        wait_until(self._listening)

    def _listening(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def entries(self) -> int:
        """How many keys it holds."""
        with redis_client.Redis(port=self.port) as direct:
            return int(direct.dbsize())

    def freeze(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(10)


@contextlib.contextmanager
def closing(server: Server) -> Iterator[Server]:
    try:
        yield server
    finally:
        server.stop()


def field_of(response: httpx.Response) -> str | None:
    """The field that a problem names."""
    assert response.headers["content-type"] == "application/problem+json"
    problem = json.loads(response.content)
    assert problem["status"] == response.status_code
    assert problem["title"]
    assert problem["detail"]
    return problem["errors"][0]["field"] if "errors" in problem else None
