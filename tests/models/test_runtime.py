"""The start-up check: exactly one ONNX Runtime, and a mend where it is not; and which provider a session uses."""

import json
from importlib import metadata
from pathlib import Path

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


def _groups(tmp_path: Path, membership: str, files: dict[str, str]) -> float | None:
    """The quota of a process in a made-up tree of control groups."""
    (tmp_path / "membership").write_text(membership)
    for name, text in files.items():
        file = tmp_path / "mounted" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return runtime.cgroup_quota(tmp_path / "membership", tmp_path / "mounted")


V2 = {
    "cpu.max": "max 100000\n",
    "a.slice/cpu.max": "300000 100000\n",
    "a.slice/b.service/cpu.max": "max 100000\n",
    "a.slice/c.service/cpu.max": "25000 50000\n",
    "d.slice/cpu.max": "100000 100000\n",
}
V1 = {
    "cpu/cpu.cfs_quota_us": "-1\n",
    "cpu/cpu.cfs_period_us": "100000\n",
    "cpu/pods/cpu.cfs_quota_us": "400000\n",
    "cpu/pods/cpu.cfs_period_us": "100000\n",
    "cpu/pods/one/cpu.cfs_quota_us": "75000\n",
    "cpu/pods/one/cpu.cfs_period_us": "50000\n",
    "cpuset/pods/one/cpu.cfs_quota_us": "1\n",
    "cpuset/pods/one/cpu.cfs_period_us": "1\n",
}


@pytest.mark.parametrize(
    ("membership", "files", "quota"),
    [
        ("0::/a.slice/b.service\n", V2, 3.0),
        ("0::/a.slice/c.service\n", V2, 0.5),
        ("0::/a.slice/c.service/inner\n", V2, 0.5),
        ("0::/e.slice\n", V2, None),
        ("0::/\n", V2, None),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/kubepods/pod7\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/../d.slice\n", {**V2, "cpu.max": "200000 100000\n"}, 2.0),
        ("11:cpuset:/pods/one\n4:cpu,cpuacct:/pods/one\n0::/x\n", V1, 1.5),
        ("4:cpu,cpuacct:/pods/two:2\n", V1, 4.0),
        ("4:cpuacct,cpu:/\n", {"cpuacct,cpu/cpu.cfs_quota_us": "50000", "cpuacct,cpu/cpu.cfs_period_us": "50000"}, 1.0),
        ("4:cpu:/\n", V1, None),
        ("\n", {}, None),
    ],
    ids=[
        "a slice around it",
        "its own is less",
        "without files of its own",
        "no limit",
        "the root",
        "a namespace",
        "a container that sees its own group as the root",
        "above a namespace's root",
        "version 1 beside an empty version 2",
        "version 1, around it",
        "version 1, mounted by another name",
        "version 1, the root",
        "no groups",
    ],
)
def test_the_least_quota_of_a_process_s_groups_counts(
    tmp_path: Path, membership: str, files: dict[str, str], quota: float | None
) -> None:
    """Its own and those around it, up to the root; others' never."""
    assert _groups(tmp_path, membership, files) == quota


def test_without_a_list_of_groups_the_root_s_quota_counts(tmp_path: Path) -> None:
    """As in a container that hides /proc."""
    (tmp_path / "cpu.max").write_text("200000 100000\n")
    assert runtime.cgroup_quota(tmp_path / "missing", tmp_path) == 2.0


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
