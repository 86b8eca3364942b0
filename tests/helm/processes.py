"""Programs that a test runs beside itself, on free loopback ports, and ends by their own handles."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest


def program(name: str) -> str:
    """The path of a program; without it the test is skipped on a person's machine, and fails in CI."""
    path = shutil.which(name)
    if path is None:
        missing = f"{name} is not installed (make test installs it where apt-get is there)"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    return path


@contextmanager
def running(command: Sequence[str], log: Path, environment: dict[str, str] | None = None) -> Iterator[subprocess.Popen]:
    """A process for the time of a `with`; what it says goes to `log`. It is asked to end, then made to."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
