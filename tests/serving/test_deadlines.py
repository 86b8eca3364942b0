"""The whole of a request ends at its deadline: loading and encoding too, by every route that draws."""

import asyncio
import threading
import time

import pytest

from models.repository import Repository
from models.testkit import promote_tiny, tiny_signature
from serving.answers import encode_samples, encode_walk
from serving.app import create_app
from serving.loading import load
from serving.schedule import Deadline
from serving.settings import Settings
from tests.serving.kit import running

SHAPE = (32, 32, 3)  # 3 KB: a thread encodes its WebP
SHORT = {"x-request-timeout": "0.1"}


class Gate:
    """Lets calls through when told to; knows how many began."""

    def __init__(self):
        self.began = 0
        self._permits = threading.Semaphore(0)

    def around(self, work):
        def gated(*arguments, **options):
            self.began += 1
            assert self._permits.acquire(timeout=20)
            return work(*arguments, **options)

        return gated

    def release(self, calls=1):
        self._permits.release(calls)


@pytest.fixture
def gate():
    made = Gate()
    yield made
    made.release(1000)


@pytest.fixture
def repository(tmp_path):
    made = Repository(tmp_path)
    for seed in (0, 1):
        promote_tiny(made, signature=tiny_signature(shape=SHAPE), seed=seed)
    return made


def ask(client, route, *, version=2, seed=1, **options):
    """A request that draws one WebP by one of the routes."""
    if route == "image":
        work = client.get(f"/models/tiny/versions/{version}/images/{seed}.webp", **options)
    elif route == "sample":
        work = client.post("/sample", json={"model": f"tiny@{version}", "seed": seed, "format": "webp"}, **options)
    elif route == "latents":
        wish = {"model": f"tiny@{version}", "z": [[0.1 * seed] * 8], "format": "webp"}
        work = client.post("/sample", json=wish, **options)
    else:
        wish = {"model": f"tiny@{version}", "keyframes": [{"seed": seed}, {"seed": 9}], "frames": 2}
        work = client.post("/interpolate", json=wish, **options)
    return asyncio.create_task(work)


ROUTES = pytest.mark.parametrize("route", ["sample", "latents", "interpolate", "image"])


@ROUTES
async def test_an_encoding_is_left_at_the_deadline(repository, monkeypatch, gate, route):
    """504 while it still runs; one that waits behind it never begins."""
    monkeypatch.setattr("serving.service.encode_samples", gate.around(encode_samples))
    monkeypatch.setattr("serving.service.encode_walk", gate.around(encode_walk))
    async with running(create_app(Settings(threads=1, stock_images=0), repository)) as client:
        while not gate.began:  # a busy machine may take longer to draw it
            first = ask(client, route, headers={"x-request-timeout": "0.5"})
            assert (await first).status_code == 504
        second = ask(client, route, seed=2, headers=SHORT)
        assert (await second).status_code == 504
        gate.release()
        third = ask(client, route, seed=3)
        gate.release()
        assert (await third).status_code == 200
        assert gate.began == 2


@ROUTES
async def test_a_load_is_left_at_the_deadline_and_goes_on(repository, gate, route):
    """504 while it lasts; who asks later finds the version loaded."""
    loads = []

    def loader(version):
        if version.number == 1:
            loads.append(version)
            gate.around(load)(repository, version)
        return load(repository, version)

    async with running(create_app(Settings(threads=1, stock_images=0), repository, loader=loader)) as client:
        left = ask(client, route, version=1, headers=SHORT)
        assert (await left).status_code == 504
        gate.release()
        assert (await ask(client, route, version=1)).status_code == 200
        assert len(loads) == 1


@ROUTES
async def test_what_could_not_be_encoded_in_time_is_not_drawn(repository, route):
    """Ten seconds of encoding have places: 429 at once for who has five, and no image is made."""
    app = create_app(Settings(threads=1, stock_images=0), repository)
    encoders = app.service.encoders
    async with running(app) as client:
        with encoders.place("webp", 3072, Deadline(1e12)) as place:
            for _ in range(2):  # the first says nothing
                encoders.ended(place, time.monotonic() - 1)
        with encoders.place("webp", 30720, Deadline(1e12)):
            answer = await ask(client, route, headers={"x-request-timeout": "5"})
        metrics = app.service.metrics.exposition().decode()
        images = 3 if route == "interpolate" else 1
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) >= 5
        assert f'genserve_queue_rejected_images_total{{reason="wait"}} {images}.0' in metrics
        assert 'genserve_images_generated_total{model="tiny"}' not in metrics
        assert (await ask(client, route, headers={"x-request-timeout": "5"})).status_code == 200  # nothing waits
