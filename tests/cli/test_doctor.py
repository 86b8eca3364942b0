"""The doctor names each fault with what mends it."""

from pathlib import Path

import pytest

from genserve import doctor
from genserve.cli import main
from models import runtime
from models.probing import Probe
from models.testkit import promoted_repository


@pytest.fixture(autouse=True)
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENSERVE_MODELS", str(promoted_repository(tmp_path / "models").root))
    monkeypatch.chdir(tmp_path)


def faults(capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["doctor"]) == 1
    lines = capsys.readouterr().out.splitlines()
    return "\n".join(" ".join(lines[i : i + 2]) for i, line in enumerate(lines) if line.startswith("FAULT"))


def test_all_well_is_zero(capsys: pytest.CaptureFixture[str]) -> None:
    """Cores, instruction sets, memory, settings and the repository are told."""
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    for subject in ("processor", "instruction sets", "cores", "memory", "provider cpu", "settings", "tiny@1"):
        assert f"ok     {subject}: " in shown


def test_cores_are_told_with_their_quota(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The quota that decides is the one that is told."""
    for module in (doctor, runtime):
        monkeypatch.setattr(module, "cgroup_quota", lambda: 1.5)
    assert main(["doctor"]) == 0
    told = next(line for line in capsys.readouterr().out.splitlines() if " cores: " in line)
    assert " cores: 1 usable" in told
    assert "control groups' least quota 1.5" in told


def test_a_misspelt_setting_is_a_fault(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Once, though the repository cannot be looked for either."""
    monkeypatch.setenv("GENSERVE_MODELL", "x")
    told = faults(capsys)
    assert told.count("FAULT") == 1
    assert "FAULT  settings: GENSERVE_MODELL: unknown setting" in told
    assert "mend: unset or correct it" in told


def test_a_provider_that_is_not_here_is_a_fault_unless_a_fallback_is_allowed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a server would see it."""
    if runtime.CUDA_PROVIDER in runtime.available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    monkeypatch.setenv("GENSERVE_PROVIDERS", "cuda")
    assert "FAULT  GENSERVE_PROVIDERS: cuda is not in this ONNX Runtime" in faults(capsys)
    monkeypatch.setenv("GENSERVE_PROVIDERS", "cuda,cpu")
    assert main(["doctor"]) == 0
    assert "add cpu at its end" in capsys.readouterr().out


def test_a_provider_that_only_settings_ask_for_is_tried_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """TensorRT is built into the GPU wheel, and its libraries are not: a server would find out at its start."""
    built_in = [runtime.PROVIDERS["tensorrt"], runtime.CPU_PROVIDER]
    monkeypatch.setattr(doctor, "available_providers", lambda: built_in)
    monkeypatch.setattr(doctor, "probe", lambda name: Probe(name, {}, None if "CPU" in name else "no libnvinfer"))
    assert main(["doctor"]) == 0
    assert "provider tensorrt: built in, not tried" in capsys.readouterr().out
    monkeypatch.setenv("GENSERVE_PROVIDERS", "tensorrt")
    assert "FAULT  provider tensorrt: no libnvinfer" in faults(capsys)


def test_two_runtimes_are_a_fault(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """With the commands that mend it."""
    monkeypatch.setattr(runtime.metadata, "version", lambda name: "1.0")
    monkeypatch.setenv("GENSERVE_PROVIDERS", "cpu")  # which cannot be looked for
    told = faults(capsys)
    assert "onnxruntime 1.0 and onnxruntime-gpu 1.0" in told
    assert "mend: pip uninstall -y onnxruntime onnxruntime-gpu onnxruntime-openvino, then pip install" in told


def test_a_provider_that_does_not_run_is_a_fault(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is tried, not believed."""
    monkeypatch.setattr(doctor, "probe", lambda name: Probe(name, {}, "no such device"))
    assert "FAULT  provider cpu: no such device" in faults(capsys)


def test_a_gpu_without_its_runtime_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The driver is here, the wheel is the processor's."""
    driver = tmp_path / "version"
    driver.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.1\n")
    monkeypatch.setattr(doctor, "NVIDIA_DRIVER", driver)
    monkeypatch.setattr(doctor.shutil, "which", lambda _: None)
    monkeypatch.setattr(doctor, "_distributions", lambda: ["onnxruntime"])
    told = faults(capsys)
    assert "FAULT  NVIDIA driver: NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.1, but ONNX Runtime" in told
    assert "pip install 'genserve[gpu]'" in told
