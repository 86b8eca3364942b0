"""Starts and ends a genserve server for a benchmark, on a free port of 127.0.0.1. Knows nothing of loads."""

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

START_SECONDS = 60.0


@contextlib.contextmanager
def running(repository: Path, settings: Mapping[str, str]) -> Iterator[int]:
    """A server over a repository, ready when the block begins and ended with it; yields its port."""
    port = _free_port()
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GENSERVE_")}
    environment |= {
        "GENSERVE_DRAIN_SECONDS": "0",
        "GENSERVE_MODELS": str(repository),
        "GENSERVE_PORT": str(port),
        "GENSERVE_LOG_LEVEL": "error",
    }
    process = subprocess.Popen([sys.executable, "-m", "genserve", "serve"], env={**environment, **settings})
    try:
        _wait_until_ready(process, port)
        yield port
    finally:
        process.terminate()
        process.wait(30)


def counter(port: int, name: str) -> float:
    """The sum over all series of a metric."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{name}{{", f"{name} ")))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_ready(process: "subprocess.Popen[bytes]", port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with status {process.returncode} before it was ready")
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready", timeout=5).close()
            return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.05)
    raise RuntimeError(f"the server was not ready within {START_SECONDS:.0f} s")
