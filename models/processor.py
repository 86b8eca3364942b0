"""What this machine's processor is called, and which instruction sets it has. Knows nothing of who uses them."""

import functools
import platform
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
TELLING = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8")


@functools.cache
def features() -> frozenset[str]:
    """The instruction sets by Linux's names; none where the kernel does not say."""
    return frozenset((_field("flags") or _field("Features") or "").split())


def telling_features() -> tuple[str, ...]:
    """Those of them that decide how fast networks run."""
    return tuple(name for name in TELLING if name in features())


def model_name() -> str:
    """What the processor calls itself."""
    return _field("model name") or platform.processor() or platform.machine()


def _field(name: str) -> str | None:
    """The first value of a field of /proc/cpuinfo."""
    try:
        lines = CPUINFO.read_text().splitlines()
    except OSError:
        return None
    return next((line.split(":", 1)[1].strip() for line in lines if line.split(":")[0].strip() == name), None)
