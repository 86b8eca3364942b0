"""An image's bytes depend on what it is, and on nothing else: the promise of every answer, by random mixes of requests.

Whatever was asked at the same time, of how many engines, in which batches, with or without caches and stock, by this
server or by one that was started before: each image is, byte for byte, what the network makes of it alone.
"""

import asyncio
import collections
import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from bench import reference_models
from models.latents import draw
from models.pictures import grid
from models.publish import publish
from models.repository import Repository
from models.testkit import promote_tiny, promote_unmeasured, tiny_signature
from serving.app import create_app
from serving.encoders import png
from serving.loading import load
from serving.settings import Settings
from serving.speed import Speed
from tests.serving.kit import Server, closing, running

SEEDS = 48  # so that requests overlap
CLASSES = 4
MIXES = 2000


@st.composite
def wishes(draw_):
    """One request: convolutions without classes, or a tiny network with them; one image, some, or a large grid."""
    wish = {"model": draw_(st.sampled_from(("convolutions", "convolutions", "classes")))}
    wish["format"] = draw_(st.sampled_from(("npy", "npy", "png")))
    count = draw_(st.one_of(st.just(1), st.just(1), st.integers(1, 8), st.integers(9, 40)))
    given_ = draw_(st.sampled_from(("seed", "seed", "seeds", "nothing")))
    if given_ == "seeds":
        wish["seeds"] = draw_(st.lists(st.integers(0, SEEDS - 1), min_size=count, max_size=count))
    else:
        wish["num_images"] = count
    if given_ == "seed":
        wish["seed"] = draw_(st.integers(0, SEEDS - 1))
    if wish["model"] == "classes" and draw_(st.booleans()):
        wish["class_idx"] = draw_(st.lists(st.integers(0, CLASSES - 1), min_size=count, max_size=count))
    if draw_(st.integers(0, 3)) == 0:
        wish["truncation"] = draw_(st.sampled_from((0.5, 0.9)))
    return wish


servers = st.fixed_dictionaries(
    {
        "threads": st.integers(1, 3),
        "max_batch_size": st.integers(1, 64),
        "cache_bytes": st.sampled_from((0, 50_000, 128 * 1024 * 1024)),
        "stock_images": st.sampled_from((0, 6)),
        "restarted": st.sampled_from((False, False, False, True)),  # with sessions of its own
    }
)
speeds = st.builds(Speed, st.sampled_from((0.0, 0.002)), st.sampled_from((0.0001, 0.001)))


class Watched:
    """A network that remembers which batches it was given."""

    def __init__(self, network, mixes):
        self._network, self._mixes = network, mixes

    def __getattr__(self, name):
        return getattr(self._network, name)

    def generate(self, z, class_idx=None):
        if len(z) > 1:
            self._mixes.add((z.tobytes(), None if class_idx is None else class_idx.tobytes()))
        return self._network.generate(z, class_idx)


class Alone:
    """What the networks make of single images, without any server; made once each."""

    def __init__(self, repository):
        self.models = {name: load(repository, repository.resolve(name)) for name in ("convolutions", "classes")}
        self._samples = {}
        self.bodies = {}  # of PNGs that answer alone, by what they are
        self.seen = collections.Counter()
        self.mixes = set()  # batches of more than one image that servers ran, by their latents and classes

    def sample(self, name, seed, class_idx, truncation):
        key = (name, seed, class_idx, truncation)
        if key not in self._samples:
            latents = draw(self.models[name].manifest.signature, [seed], class_idx=class_idx, truncation=truncation)
            self._samples[key] = self.models[name].generate(*latents)[0]
        self.seen[key] += 1
        return self._samples[key]


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    made = Repository(tmp_path_factory.mktemp("determinism"))
    promote_tiny(made, "classes", signature=tiny_signature(classes=CLASSES, shape=(8, 6, 3)))
    version = publish(made, "convolutions", reference_models.build("small"), prior="normal", why="tests")
    promote_unmeasured(made, version)
    return made


@pytest.fixture(scope="module")
def alone(repository):
    return Alone(repository)


def test_an_images_bytes_depend_on_nothing_else(repository, alone):
    """Thousands of batches, none the same, of waves of concurrent requests, the later over what the earlier cached."""

    @settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
    @given(servers, speeds, st.lists(st.lists(wishes(), min_size=6, max_size=20), min_size=3, max_size=6))
    def check_mixes(server, speed, waves):
        asyncio.run(_check(repository, alone, server, speed, waves))

    for _ in range(10):  # how many batches a wave makes is the machine's affair
        check_mixes()
        if len(alone.mixes) >= MIXES:
            break
    assert len(alone.mixes) >= MIXES
    assert sum(count > 1 for count in alone.seen.values()) >= 100


def test_workers_restarts_and_a_shared_cache_change_no_byte(repository, alone, redis, tmp_path):
    """The same promise of processes: two workers, then others, which find in Redis what the first ones made."""
    options = {"default_model": "convolutions", "workers": 2, "cache_bytes": 50_000, "redis_url": redis.url}

    @settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(wishes(), min_size=6, max_size=20))
    def check_mixes(wave):
        with httpx.Client(base_url=server.url, timeout=20) as client, ThreadPoolExecutor(8) as pool:
            for wish, answer in zip(wave, pool.map(lambda one: client.post("/sample", json=one), wave), strict=True):
                assert answer.status_code == 200, answer.text
                _compare(alone, wish, answer)

    for start in range(2):
        with closing(Server(repository.root, tmp_path / f"log-{start}", **options)) as server:
            check_mixes()
            found = server.metric('genserve_cache_requests_total{result="hit",tier="redis"}')
    assert found


async def _check(repository, alone, server, speed, waves):
    options = {name: value for name, value in server.items() if name != "restarted"}
    made = Settings(**options, default_model="convolutions", max_images=64, max_queue_images=4096)

    def loader(version):  # with another idea of the engines' speed, other batches are made
        model = load(repository, version) if server["restarted"] else alone.models[version.name]
        return replace(model, speed=speed, generator=Watched(model.generator, alone.mixes))

    async with running(create_app(made, repository, loader=loader)) as client:
        for wave in waves:
            answers = await asyncio.gather(*(client.post("/sample", json=wish) for wish in wave))
            for wish, answer in zip(wave, answers, strict=True):
                assert answer.status_code == 200, answer.text
                _compare(alone, wish, answer)


def _compare(alone, wish, answer):
    name, truncation = wish["model"], wish.get("truncation")
    count = len(wish.get("seeds", ())) or wish["num_images"]
    first = int(answer.headers["x-seed"])
    seeds = wish.get("seeds") or [(first + i) % 2**32 for i in range(count)]
    assert seeds[0] == first == wish.get("seed", first)
    classes = wish.get("class_idx") or [None] * count
    expected = np.stack([alone.sample(name, seeds[i], classes[i], truncation) for i in range(count)])
    if wish["format"] == "npy":
        assert np.load(io.BytesIO(answer.content)).tobytes() == expected.tobytes()
    elif count > 1:
        assert answer.content == png(grid(expected))
    else:
        pixels = np.asarray(Image.open(io.BytesIO(answer.content)))
        assert pixels.tobytes() == expected.tobytes()
        assert alone.bodies.setdefault((name, first, classes[0], truncation), answer.content) == answer.content
