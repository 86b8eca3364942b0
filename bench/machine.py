"""What a figure was measured on: processor, cores, versions. Names no host and no path."""

import platform
from importlib import metadata
from pathlib import Path

from models.runtime import available_cores, check_runtime

LIBRARIES = ("genserve", "numpy", "pillow", "isal", "litestar", "uvicorn", "uvloop", "httptools", "msgspec")


def describe() -> str:
    """One line: processor, usable cores, Python and the libraries that matter."""
    known = ", ".join(f"{name} {version}" for name, version in versions().items())
    return f"{_processor()}, {available_cores()} cores; {known}"


def versions() -> dict[str, str]:
    """Of Python, ONNX Runtime and the libraries that matter, as far as they are installed."""
    runtime, version = check_runtime().split()
    found = {"Python": platform.python_version(), runtime: version}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    flags = next((line for line in lines if line.startswith("flags")), "")
    extensions = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if f" {name}" in flags]
    return f"{model} ({', '.join(extensions)})" if extensions else model
