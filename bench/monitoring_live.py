"""How long a running server takes to find a fault that its memory suffered. Knows no statistics of the test.

The whole application runs, idle, with its own settings and all shipped models; after a few healthy blocks the network
of one model is exchanged in memory for a faulty one, and the clock runs until the alarm.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from models.generator import Generator
from models.repository import Repository
from serving.app import App, create_app
from serving.settings import Settings

HEALTHY_BLOCKS = 5
LOOK_SECONDS = 0.25
PATIENCE_SECONDS = 1800.0


def seconds_to_alarm(repository: Repository, name: str, faulty: bytes, *, block: int, share: float) -> dict[str, float]:
    """Of wall time, from the fault to the alarm, and the fresh samples that it took.

    Args:
        repository: with a champion of this name, whose verdict has a baseline.
        name: of the model.
        faulty: an ONNX file of the same form.
        block: samples of the model's blocks.
        share: of one core that the monitor may take while nothing is suspicious.
    """
    return asyncio.run(_found(repository, name, faulty, block, share))


async def _found(repository: Repository, name: str, faulty: bytes, block: int, share: float) -> dict[str, float]:
    app = create_app(Settings(monitor=share), repository)
    registry = app.service.metrics.registry

    def value(what: str) -> float:
        return registry.get_sample_value(f"genserve_monitor_{what}_total", {"model": name}) or 0.0

    async with _started(app):
        await _until(lambda: value("images") >= HEALTHY_BLOCKS * block)
        before, drawn, began = value("alarms"), value("images"), time.monotonic()
        served: Any = app.service.live.champion(name)
        served.generator._session = Generator.from_bytes(faulty)._session  # as a broken device would
        await _until(lambda: value("alarms") > before)
        return {"seconds": time.monotonic() - began, "samples": value("images") - drawn}


async def _until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not true():  # noqa: ASYNC110 a metric tells nobody that it changed
            await asyncio.sleep(LOOK_SECONDS)


@contextlib.asynccontextmanager
async def _started(app: App) -> AsyncIterator[None]:
    inbox: asyncio.Queue[Any] = asyncio.Queue()
    outbox: asyncio.Queue[Any] = asyncio.Queue()
    lifespan = asyncio.create_task(app({"type": "lifespan", "asgi": {}, "state": {}}, inbox.get, outbox.put))
    await inbox.put({"type": "lifespan.startup"})
    await outbox.get()
    try:
        yield
    finally:
        await inbox.put({"type": "lifespan.shutdown"})
        await outbox.get()
        await lifespan
