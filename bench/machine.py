"""What a figure was measured on: processor, cores, versions. Names no host and no path."""

import platform
from importlib import metadata
from pathlib import Path

from models.runtime import available_cores, check_runtime

LIBRARIES = ("genserve", "numpy", "pillow", "litestar", "uvicorn")


def describe() -> str:
    """One line: processor, usable cores, Python, ONNX Runtime and the libraries that matter."""
    versions = []
    for name in LIBRARIES:
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    python = f"Python {platform.python_version()}"
    return f"{_processor()}, {available_cores()} cores; {', '.join([python, check_runtime(), *versions])}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    flags = next((line for line in lines if line.startswith("flags")), "")
    extensions = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if f" {name}" in flags]
    return f"{model} ({', '.join(extensions)})" if extensions else model
