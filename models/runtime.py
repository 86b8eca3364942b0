"""Which ONNX Runtime is here, and sessions made the one way this project makes them. Knows nothing of generators.

`onnxruntime` and `onnxruntime-gpu` share one import folder: installed together the last one wins, and uninstalling one
breaks the other. So exactly one may be installed, and a missing or doubled one is an error that names the mend.
"""

import os
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from models.errors import Unavailable

DISTRIBUTIONS = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino")
CPU_PROVIDER = "CPUExecutionProvider"
CUDA_PROVIDER = "CUDAExecutionProvider"


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
        raise Unavailable("no ONNX Runtime is installed. Mend: pip install 'genserve[cpu]' (or 'genserve[gpu]')")
    if len(found) > 1:
        names = " ".join(entry.split()[0] for entry in found)
        raise Unavailable(
            f"{' and '.join(found)} are installed together and break each other. "
            f"Mend: pip uninstall -y {names}, then pip install 'genserve[cpu]' (or 'genserve[gpu]')"
        )
    return found[0]


def available_cores() -> int:
    """Cores this process may use: its CPU affinity, cut by the control group's quota, at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup_quota()
    return max(1, min(cores, int(quota))) if quota is not None else cores


def _cgroup_quota() -> float | None:
    """Cores granted by control group v2 (cpu.max) or v1 (cpu.cfs_quota_us); None where there is no limit."""
    try:
        limit, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return None if limit == "max" else int(limit) / int(period)
    except (OSError, ValueError):
        pass
    try:
        limit = Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us").read_text()
        period = Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us").read_text()
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


def default_providers() -> tuple[str, ...]:
    """The GPU first where this ONNX Runtime is built for one, and the processor."""
    return tuple(name for name in (CUDA_PROVIDER, CPU_PROVIDER) if name in available_providers())


def make_session(model: bytes, *, providers: Sequence[str] = (CPU_PROVIDER,), threads: int = 1) -> Any:  # noqa: ANN401 onnxruntime publishes no types
    """An InferenceSession that does not spin beside an event loop.

    Args:
        model: a serialised ONNX model without external data.
        providers: preference; those that this ONNX Runtime lacks are left out, so compare session.get_providers().
        threads: intra-op threads.

    Raises:
        Unavailable: no usable ONNX Runtime, or none of the providers is in it.
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
    return onnxruntime.InferenceSession(model, options, providers=usable)
