"""Starts and ends a server for a benchmark, and reads what it costs. Knows no loads.

Time and memory are those of the server's process and its descendants; counts are read from its /metrics.
"""

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from bench import processes

START_SECONDS = 90.0
GENSERVE = ("-m", "genserve", "serve")
SAMPLE_SECONDS = 0.1  # between two looks at the memory
SETTLE_SECONDS = 5.0


class Server:
    """A server that runs.

    Args:
        port: on 127.0.0.1.
        pid: of its first process.
    """

    def __init__(self, port: int, pid: int) -> None:
        self.port = port
        self.pid = pid

    def counter(self, name: str) -> float:
        """The sum over all series of a metric."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{name}{{", f"{name} ")))

    def settled(self, name: str, expected: float) -> float:
        """A metric as soon as it is what is expected, or what it is after a while."""
        end = time.monotonic() + SETTLE_SECONDS
        while (value := self.counter(name)) != expected and time.monotonic() < end:
            time.sleep(0.05)
        return value

    def cpu_seconds(self) -> float:
        """User and system time so far."""
        return processes.cpu_seconds(self.pid)

    @contextlib.contextmanager
    def watched_memory(self) -> Iterator[list[int]]:
        """The list ends up holding the most resident bytes seen while the block ran, looked at ten times a second."""
        peak, over = [0], threading.Event()

        def look() -> None:
            while not over.wait(SAMPLE_SECONDS):
                peak[0] = max(peak[0], processes.resident_bytes(self.pid))

        watcher = threading.Thread(target=look, daemon=True)
        watcher.start()
        try:
            yield peak
        finally:
            over.set()
            watcher.join()


@contextlib.contextmanager
def running(repository: Path, settings: Mapping[str, str], command: Sequence[str] = GENSERVE) -> Iterator[Server]:
    """A server over a repository, ready when the block begins and ended with it.

    Args:
        repository: of models.
        settings: by environment variable.
        command: of Python, which listens on GENSERVE_PORT and answers /health/ready.
    """
    port = _free_port()
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GENSERVE_")}
    environment |= {
        "GENSERVE_DRAIN_SECONDS": "0",
        "GENSERVE_MODELS": str(repository),
        "GENSERVE_PORT": str(port),
        "GENSERVE_LOG_LEVEL": "error",
    }
    process = subprocess.Popen([sys.executable, *command], env={**environment, **settings})
    try:
        _wait_until_ready(process, port)
        yield Server(port, process.pid)
    finally:
        process.terminate()
        process.wait(30)


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
        except OSError:  # refused, reset, too late, or not ready yet
            time.sleep(0.05)
    raise RuntimeError(f"the server was not ready within {START_SECONDS:.0f} s")
