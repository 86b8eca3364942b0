"""What a provider really does here is found by running something on it."""

import pytest

from models import probing
from models.errors import Unavailable
from models.runtime import CPU_PROVIDER, CUDA_PROVIDER, available_providers


def test_the_processor_runs_all_nodes() -> None:
    """The profile says who ran them."""
    found = probing.probe(CPU_PROVIDER)
    assert found.fault is None
    assert found.nodes[CPU_PROVIDER] >= 3
    assert len(found.nodes) == 1


@pytest.mark.skipif(CUDA_PROVIDER in available_providers(), reason="this ONNX Runtime has CUDA")
def test_a_provider_that_is_missing_says_so() -> None:
    """Alone it is no provider at all; with the processor behind it, that is what is used."""
    assert "none of CUDAExecutionProvider" in (probing.probe(CUDA_PROVIDER).fault or "")
    with pytest.raises(Unavailable):
        probing.used_provider((CUDA_PROVIDER,))
    assert probing.used_provider((CUDA_PROVIDER, CPU_PROVIDER)) == CPU_PROVIDER


def test_a_file_that_the_runtime_refuses_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever ONNX Runtime raises, it is told in one line."""
    monkeypatch.setattr(probing, "tiny_model", lambda: b"junk")
    assert "Invalid" in (probing.probe(CPU_PROVIDER).fault or "") or "Fail" in (probing.probe(CPU_PROVIDER).fault or "")
    probing.used_provider.cache_clear()
    with pytest.raises(Unavailable, match="CPUExecutionProvider"):
        probing.used_provider((CPU_PROVIDER,))
    probing.used_provider.cache_clear()
