"""Fixtures of the serving tests: a repository of tiny models, a client, a Redis."""

import shutil

import pytest

from models.repository import Repository
from models.testkit import promote_tiny, tiny_signature
from serving.app import create_app
from serving.settings import Settings
from tests.serving.kit import Redis, running


@pytest.fixture(scope="session")
def zoo(tmp_path_factory):
    """Four promoted models that no test may change: grey, colour with classes, uniform, vector."""
    repository = Repository(tmp_path_factory.mktemp("zoo"))
    promote_tiny(repository, "tiny", seed=1)
    promote_tiny(repository, "tiny", seed=0)
    promote_tiny(repository, "classes", signature=tiny_signature(classes=4, shape=(8, 6, 3)))
    promote_tiny(repository, "uniform", signature=tiny_signature(prior="uniform"))
    promote_tiny(repository, "vector", signature=tiny_signature(kind="vector"))
    return repository


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """A version that is loaded on demand may take its time."""
    monkeypatch.setattr("serving.live.PATIENCE_SECONDS", 20.0)


@pytest.fixture
def settings():
    return Settings(default_model="tiny", threads=2, max_images=64, max_queue_images=128, stock_images=0)


@pytest.fixture
async def app(zoo, settings):
    return create_app(settings, zoo)


@pytest.fixture
async def client(app):
    async with running(app) as client:
        yield client


@pytest.fixture(scope="session")
def redis_binary():
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")


@pytest.fixture
def redis(redis_binary):
    server = Redis()
    yield server
    server.thaw()
    server.kill()
