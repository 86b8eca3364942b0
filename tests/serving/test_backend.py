"""Engines and batches follow the provider that is used."""

import pytest

from models.runtime import CPU_PROVIDER, CUDA_PROVIDER, OPENVINO_PROVIDER, PROVIDERS, available_providers
from serving import backend as module
from serving.backend import create_backend
from serving.settings import Settings


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
