"""The start-up check: exactly one ONNX Runtime, and a mend where it is not; and which provider a session uses."""

import json
from importlib import metadata

import pytest

from models import runtime
from models.errors import Unavailable
from models.testkit import tiny_model


def _installed(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    def version(name: str) -> str:
        if name in names:
            return "1.31.1"
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(runtime.metadata, "version", version)


def test_none_installed_names_the_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    """pip install 'genserve[cpu]'."""
    _installed(monkeypatch)
    with pytest.raises(Unavailable, match=r"genserve\[cpu\]"):
        runtime.check_runtime()


def test_two_installed_names_the_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    """They share a folder: both must go before one comes back."""
    _installed(monkeypatch, "onnxruntime", "onnxruntime-gpu")
    with pytest.raises(Unavailable, match="pip uninstall -y onnxruntime onnxruntime-gpu"):
        runtime.make_session(tiny_model())


def test_one_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """By name and version."""
    _installed(monkeypatch, "onnxruntime-gpu")
    assert runtime.check_runtime() == "onnxruntime-gpu 1.31.1"


def test_a_provider_that_is_not_there_is_refused() -> None:
    """And what there is, is listed; where another is usable, that one runs."""
    with pytest.raises(Unavailable, match="CPUExecutionProvider"):
        runtime.make_session(tiny_model(), providers=("NoSuchExecutionProvider",))
    session = runtime.make_session(tiny_model(), providers=("NoSuchExecutionProvider", runtime.CPU_PROVIDER))
    assert session.get_providers() == [runtime.CPU_PROVIDER]


def test_the_gpu_comes_first_where_the_runtime_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody asked for is not missed: a build for CPUs alone runs on the CPU."""
    monkeypatch.setattr(runtime, "available_providers", lambda: ["AzureExecutionProvider", runtime.CPU_PROVIDER])
    assert runtime.default_providers() == (runtime.CPU_PROVIDER,)
    built_for = ["TensorrtExecutionProvider", runtime.CUDA_PROVIDER, runtime.CPU_PROVIDER]
    monkeypatch.setattr(runtime, "available_providers", lambda: built_for)
    assert runtime.default_providers() == (runtime.CUDA_PROVIDER, runtime.CPU_PROVIDER)


def test_cores_follow_affinity_and_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container that may use half a core gets one thread, one with 1.5 of 8 too, never none."""
    monkeypatch.setattr(runtime.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    for quota, cores in ((None, 8), (0.5, 1), (1.5, 1), (3.0, 3), (64.0, 8)):
        monkeypatch.setattr(runtime, "cgroup_quota", lambda quota=quota: quota)
        assert runtime.available_cores() == cores


def test_openvino_comes_before_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever installed that distribution wants it."""
    built_for = [runtime.OPENVINO_PROVIDER, runtime.CPU_PROVIDER]
    monkeypatch.setattr(runtime, "available_providers", lambda: built_for)
    assert runtime.default_providers() == tuple(built_for)


def test_options_keep_float32_and_the_shape_s_history_out() -> None:
    """CUDA: no TF32 and no race between algorithms. OpenVINO: float32, and a one-thread stream for each core."""
    assert runtime.provider_options(runtime.CUDA_PROVIDER) == {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"}
    settings = json.loads(runtime.provider_options(runtime.OPENVINO_PROVIDER)["load_config"])["CPU"]
    assert settings["INFERENCE_PRECISION_HINT"] == "f32"
    assert settings["NUM_STREAMS"] == settings["INFERENCE_NUM_THREADS"] == str(runtime.available_cores())
    alone = json.loads(runtime.provider_options(runtime.OPENVINO_PROVIDER, threads=4, precision="bf16")["load_config"])
    assert alone["CPU"] == {"INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": "4", "NUM_STREAMS": "1"}
    assert runtime.provider_options(runtime.CPU_PROVIDER) == {}


class _FallenBack:
    """A session of a GPU build on a machine without a GPU: ONNX Runtime says nothing and takes the processor."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def get_providers(self) -> list[str]:
        return [runtime.CPU_PROVIDER]


def test_a_silent_fallback_is_refused_unless_it_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """cuda alone fails although the build has it; cuda, cpu runs on the processor."""
    monkeypatch.setattr(runtime, "available_providers", lambda: [runtime.CUDA_PROVIDER, runtime.CPU_PROVIDER])
    monkeypatch.setattr("onnxruntime.InferenceSession", _FallenBack)
    with pytest.raises(Unavailable, match="took CPUExecutionProvider: a device or library is missing"):
        runtime.make_session(tiny_model(), providers=(runtime.CUDA_PROVIDER,))
    session = runtime.make_session(tiny_model(), providers=(runtime.CUDA_PROVIDER, runtime.CPU_PROVIDER))
    assert session.get_providers() == [runtime.CPU_PROVIDER]
