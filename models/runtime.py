"""Which ONNX Runtime is here, and sessions made the one way this project makes them. Knows nothing of generators.

ONNX Runtime's distributions share one import folder: installed together the last one wins, and uninstalling one breaks
the other. So exactly one may be installed, and a missing or doubled one is an error that names the mend.
"""

import json
import os
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from models.errors import Unavailable

DISTRIBUTIONS = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino")
EXTRAS = "pip install 'genserve[cpu]' (or 'genserve[gpu]', 'genserve[openvino]')"
CPU_PROVIDER = "CPUExecutionProvider"
CUDA_PROVIDER = "CUDAExecutionProvider"
OPENVINO_PROVIDER = "OpenVINOExecutionProvider"
PROVIDERS = {  # what people call them
    "cpu": CPU_PROVIDER,
    "cuda": CUDA_PROVIDER,
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": OPENVINO_PROVIDER,
}

# Which control groups this process is in, and where all of them are.
MEMBERSHIP = Path("/proc/self/cgroup")
GROUPS = Path("/sys/fs/cgroup")

Precision = Literal["f32", "bf16"]  # that a provider may compute float32 networks in; bf16 is OpenVINO's alone


def check_runtime() -> str:
    """The one installed ONNX Runtime distribution, as "onnxruntime 1.31.1".

    Raises:
        Unavailable: none is installed, or more than one.
    """
    found = []
    for name in DISTRIBUTIONS:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    if not found:
        raise Unavailable(f"no ONNX Runtime is installed. Mend: {EXTRAS}")
    if len(found) > 1:
        names = " ".join(entry.split()[0] for entry in found)
        raise Unavailable(
            f"{' and '.join(found)} are installed together and break each other. "
            f"Mend: pip uninstall -y {names}, then {EXTRAS}"
        )
    return found[0]


def available_cores() -> int:
    """Cores this process may use: its CPU affinity, cut by its control groups' quota, at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroup_quota()
    return max(1, min(cores, int(quota))) if quota is not None else cores


def cgroup_quota(membership: Path = MEMBERSHIP, mounted: Path = GROUPS) -> float | None:
    """Cores granted by the control groups that this process is in, and by those around them: the least of their quotas.

    Args:
        membership: lines like "0::/a.slice/b.service" (version 2) and "4:cpu,cpuacct:/a/b" (version 1).
        mounted: where the groups are.

    Returns:
        None where there is no limit.
    """
    quotas = [_quota(group) for group in _groups(membership, mounted)]
    return min((quota for quota in quotas if quota is not None), default=None)


def _groups(membership: Path, mounted: Path) -> Iterator[Path]:
    """Folders of a process's groups, from the root down. A container may see a part of them only, as its root."""
    try:
        lines = membership.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        lines = ["0::/", "1:cpu:/"]
    for _, controllers, path in (line.split(":", 2) for line in lines if line.count(":") >= 2):
        parts = [] if ".." in path.split("/") else path.strip("/").split("/")  # above a namespace's root
        tops = [mounted]
        if controllers:
            tops = [mounted / "cpu", mounted / controllers] if "cpu" in controllers.split(",") else []
        for top in tops:
            yield from (top.joinpath(*parts[:depth]) for depth in range(len(parts) + 1))


def _quota(group: Path) -> float | None:
    """Cores granted by one group, version 2 (cpu.max) or 1 (cpu.cfs_quota_us); None for no limit."""
    try:
        limit, period = (group / "cpu.max").read_text().split()
        return None if limit == "max" else int(limit) / int(period)
    except (OSError, ValueError):
        pass
    try:
        limit = (group / "cpu.cfs_quota_us").read_text()
        period = (group / "cpu.cfs_period_us").read_text()
        return None if int(limit) <= 0 else int(limit) / int(period)
    except (OSError, ValueError):
        return None


def available_providers() -> list[str]:
    """What this ONNX Runtime is built for, best first; a device that it needs may still be missing.

    Raises:
        Unavailable: no usable ONNX Runtime.
    """
    check_runtime()
    import onnxruntime

    found: list[str] = onnxruntime.get_available_providers()
    return found


def short_name(provider: str) -> str:
    """What people call a provider; its full name where there is nothing shorter."""
    return next((short for short, full in PROVIDERS.items() if full == provider), provider)


def on_processor(provider: str) -> bool:
    """Whether a provider computes on the processor: its own, and OpenVINO's with the device that it is given here."""
    return provider == CPU_PROVIDER or provider_options(provider).get("device_type") == "CPU"


def default_providers() -> tuple[str, ...]:
    """What this ONNX Runtime was installed for, the GPU or OpenVINO, and then the processor."""
    return tuple(name for name in (CUDA_PROVIDER, OPENVINO_PROVIDER, CPU_PROVIDER) if name in available_providers())


def provider_options(provider: str, *, threads: int = 1, precision: Precision = "f32") -> dict[str, str]:
    """What a provider is asked for, so that samples do not depend on a shape's history and fp32 means fp32.

    CUDA: algorithms by rule, not by a race that each new shape runs anew, and no TF32. OpenVINO: float32 unless a
    variant says otherwise (its own default is bf16 where the processor has it), and one stream for each caller:
    with one for all, callers on several threads wait for each other.

    Args:
        provider: its full name.
        threads: within one run.
        precision: of the computation.
    """
    if provider == CUDA_PROVIDER:
        return {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"}
    if provider == OPENVINO_PROVIDER:
        streams = available_cores() if threads == 1 else 1
        settings = {
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": str(threads * streams),
            "NUM_STREAMS": str(streams),
        }
        return {"device_type": "CPU", "load_config": json.dumps({"CPU": settings})}
    return {}


def make_session(
    model: bytes,
    *,
    providers: Sequence[str] = (CPU_PROVIDER,),
    threads: int = 1,
    precision: Precision = "f32",
    profile: Path | None = None,
) -> Any:  # noqa: ANN401 onnxruntime publishes no types
    """An InferenceSession that does not spin beside an event loop, on a provider that was asked for.

    Args:
        model: a serialised ONNX model without external data.
        providers: preference; a later one is a fallback that the caller allows, what is not named is never used.
        threads: intra-op threads.
        precision: of the computation.
        profile: how the file of a profile shall begin, for whoever wants to know what ran where; None for none.

    Raises:
        Unavailable: no usable ONNX Runtime, none of the providers is in it, or what they need is missing here.
    """
    available = available_providers()
    usable = [name for name in providers if name in available]
    if not usable:
        raise Unavailable(f"none of {', '.join(providers)} is in this ONNX Runtime (it has {', '.join(available)})")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors only: warnings on foreign graphs are about nodes we fold anyway
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    asked = [(name, provider_options(name, threads=threads, precision=precision)) for name in usable]
    session = onnxruntime.InferenceSession(model, options, providers=asked, enable_fallback=False)
    session._model_bytes = b""  # kept for that fallback alone: as much memory as the file once more
    if (used := session.get_providers()[0]) not in providers:  # ONNX Runtime falls back to the processor in silence
        raise Unavailable(f"asked for {', '.join(providers)}, ONNX Runtime took {used}: a device or library is missing")
    return session
