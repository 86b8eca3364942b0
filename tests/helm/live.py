"""The running service with everything around it: models, Redis, traffic, and a Prometheus that scrapes it each second.

Knows nothing of the dashboard. All of it listens on 127.0.0.1 alone and ends with the `with` that started it.
"""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from models.repository import Repository
from models.testkit import promote_watched, publish_tiny
from tests.helm.chart import ROOT
from tests.helm.processes import program, running
from tests.ports import free_port
from tests.waiting import wait_until

SCRAPES = """
global: {{scrape_interval: 1s, scrape_timeout: 900ms}}
scrape_configs:
  - job_name: genserve
    static_configs:
      - targets: ["{target}"]
        labels: {{namespace: prod, pod: genserve-0}}
  - job_name: compose
    static_configs:
      - targets: ["{target}"]
"""


@dataclass(frozen=True, kw_only=True)
class Live:
    """Where things are.

    Args:
        service: URL of the service.
        metrics: URL of Prometheus.
        log: what the service has said.
        fd: the Frechet distance in the served version's verdict.
        client: what asks them.
    """

    service: str
    metrics: str
    log: Path
    fd: float
    client: httpx.Client

    def prometheus(self, path: str, parameters: dict[str, str]) -> Any:
        """What Prometheus answers; a query that it refuses fails the test with its words."""
        answer = self.client.get(self.metrics + path, params=parameters).json()
        assert answer["status"] == "success", answer
        return answer["data"]


@contextmanager
def live_service(folder: Path) -> Iterator[Live]:
    """Everything, up and with traffic on it, for the time of a `with`."""
    repository = Repository(folder / "models")
    promote_watched(repository)
    publish_tiny(repository, seed=1)  # a candidate
    with ExitStack() as stack:
        redis, service, metrics = free_port(), free_port(), free_port()
        stack.enter_context(running(_redis(redis, folder), folder / "redis.log"))
        environment = _environment(folder / "models", service, redis)
        stack.enter_context(running(_service(), folder / "service.log", environment))
        verdict = repository.passing(repository.resolve("tiny"))
        assert verdict is not None
        (fd,) = [number.value for name, number in verdict.numbers.items() if name.startswith("FD")]
        live = Live(
            service=f"http://127.0.0.1:{service}",
            metrics=f"http://127.0.0.1:{metrics}",
            log=folder / "service.log",
            fd=fd,
            client=stack.enter_context(httpx.Client(timeout=20)),
        )
        wait_until(lambda: _answers(live, live.service + "/health/ready"), 60)
        stack.enter_context(running(_prometheus(metrics, live.service, folder), folder / "prometheus.log"))
        stack.enter_context(_traffic(live.service))
        wait_until(lambda: _answers(live, live.metrics + "/-/ready"), 60)
        yield live


def _environment(models: Path, port: int, redis: int) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GENSERVE_")}
    return kept | {
        "PYTHONPATH": str(ROOT),
        "GENSERVE_MODELS": str(models),
        "GENSERVE_PORT": str(port),
        "GENSERVE_THREADS": "1",
        "GENSERVE_DRAIN_SECONDS": "0",
        "GENSERVE_MONITOR": "1",
        "GENSERVE_SHADOW_SHARE": "1",
        "GENSERVE_REDIS_URL": f"redis://127.0.0.1:{redis}/0",
        "GENSERVE_REDIS_TIMEOUT_SECONDS": "1",  # two cores may be busy with other tests
    }


def _service() -> list[str]:
    return [sys.executable, "-m", "genserve", "serve"]


def _redis(port: int, folder: Path) -> list[str]:
    options = {"--port": str(port), "--bind": "127.0.0.1", "--save": "", "--appendonly": "no", "--dir": str(folder)}
    return [program("redis-server"), *(word for option in options.items() for word in option)]


def _prometheus(port: int, service: str, folder: Path) -> list[str]:
    configuration = folder / "prometheus.yml"
    configuration.write_text(SCRAPES.format(target=service.removeprefix("http://")))
    return [
        program("prometheus"),
        f"--config.file={configuration}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]


@contextmanager
def _traffic(url: str) -> Iterator[None]:
    """Some requests a second: new seeds, old seeds, walks, single images, and a model that is not there."""
    enough = threading.Event()
    thread = threading.Thread(target=_send_until, args=(url, enough), daemon=True)
    thread.start()
    try:
        yield
    finally:
        enough.set()
        thread.join(timeout=20)


def _send_until(url: str, enough: threading.Event) -> None:
    walk = {"keyframes": [{"seed": 1}, {"seed": 2}], "frames": 3, "format": "npy"}
    with httpx.Client(base_url=url, timeout=20) as client:
        seed = 1000
        while not enough.wait(0.4):  # in between nobody asks for anything, so that the monitor has its turn
            seed += 4
            client.post("/sample", json={"num_images": 4, "seed": seed})
            client.post("/sample", json={"num_images": 4, "seed": 7})
            client.post("/interpolate", json=walk | {"keyframes": [{"seed": seed}, {"seed": 2}]})
            client.post("/sample", json={"model": "absent"})
            client.get("/models")


def _answers(live: Live, url: str) -> bool:
    try:
        return live.client.get(url, timeout=2).status_code == 200
    except httpx.TransportError:
        return False
