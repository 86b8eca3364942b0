"""Engines and batches follow the provider that is used."""

import pytest

from models.runtime import (
    CPU_PROVIDER,
    CUDA_PROVIDER,
    OPENVINO_PROVIDER,
    PROVIDERS,
    available_providers,
)
from serving import backend as module
from serving.app import create_app
from serving.backend import create_backend
from serving.schedule import Deadline, Ticket
from serving.settings import Settings
from tests.serving.kit import Gated


@pytest.fixture
def schedule(zoo, monkeypatch):
    """The schedule of a server: `used` is what the machine makes of its providers."""

    def made(*, used=None, **settings):
        if used is not None:
            monkeypatch.setattr(module, "used_provider", lambda providers: used)
        backend = create_backend(Settings(**settings), zoo)
        backend.sampler._batcher.close()
        return backend.sampler._batcher.schedule

    return made


@pytest.mark.skipif(CUDA_PROVIDER in available_providers(), reason="this ONNX Runtime has CUDA")
def test_a_fallback_to_the_processor_has_the_processor_s_batches(schedule):
    """As the chart asks for them on GPU nodes, on a machine without one."""
    assert schedule(providers=(CUDA_PROVIDER, CPU_PROVIDER)).max_batch_images == 8


@pytest.mark.parametrize(
    ("used", "images"),
    [(CPU_PROVIDER, 8), (OPENVINO_PROVIDER, 8), (CUDA_PROVIDER, 64), (PROVIDERS["tensorrt"], 64)],
)
def test_batches_are_as_large_as_the_device_wants_them(schedule, used, images):
    """OpenVINO is given the processor here; what a person set beats it all."""
    asked = (used, CPU_PROVIDER)
    assert schedule(used=used, providers=asked).max_batch_images == images
    assert schedule(used=used, providers=asked, max_batch_size=5).max_batch_images == 5


@pytest.mark.parametrize("used", [CUDA_PROVIDER, PROVIDERS["tensorrt"]])
def test_a_gpu_has_one_engine_and_what_waits_is_one_batch(schedule, monkeypatch, used):
    """On a machine with sixteen cores; it would run sixteen batches of four one after another."""
    monkeypatch.setattr(module, "available_cores", lambda: 16)
    alone = schedule(used=used)
    network = Gated()
    for _ in range(64):
        alone.add(Ticket(network, 1, Deadline(1e9)), 0.0)
    assert alone.engines == 1
    assert alone.take(0.0).images == 64


@pytest.mark.parametrize("used", [CPU_PROVIDER, OPENVINO_PROVIDER])
def test_a_processor_has_an_engine_for_each_core(schedule, monkeypatch, used):
    """Each of them runs on its own."""
    monkeypatch.setattr(module, "available_cores", lambda: 16)
    assert schedule(used=used).engines == 16


def test_the_number_of_engines_that_a_person_sets_counts(schedule):
    """On any device."""
    assert {schedule(used=used, threads=3).engines for used in (CPU_PROVIDER, CUDA_PROVIDER)} == {3}


def test_encoders_are_as_many_as_cores_whatever_the_engines(zoo, monkeypatch):
    """One engine before a GPU leaves the cores to them."""
    monkeypatch.setattr(module, "used_provider", lambda providers: CUDA_PROVIDER)
    monkeypatch.setattr("serving.app.available_cores", lambda: 16)
    assert create_app(Settings(), zoo).service.encoders._threads == 16
