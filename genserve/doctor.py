"""`genserve doctor`: what this machine has, and the mend for each fault. Changes nothing."""

import argparse
import os
import platform
from collections.abc import Iterator
from importlib import metadata
from typing import NamedTuple

from genserve.context import readable_repository
from models.errors import GenserveError
from models.runtime import available_cores, available_providers, check_runtime
from models.verify import verify

LIBRARIES = ("litestar", "uvicorn", "numpy", "onnx", "redis", "pillow", "torch")


class _Report(NamedTuple):
    """One line: what was looked at, what was found, and whether that is a fault."""

    subject: str
    found: str
    fault: bool = False


def doctor(args: argparse.Namespace) -> int:
    """Print the report; 1 if anything is at fault."""
    reports = [report for look in (_machine, _runtime, _libraries, _repository) for report in look()]
    for report in reports:
        print(f"{'FAULT' if report.fault else 'ok   '}  {report.subject}: {report.found}")
    return int(any(report.fault for report in reports))


def _machine() -> Iterator[_Report]:
    yield _Report("machine", f"{platform.system()} {platform.machine()}, Python {platform.python_version()}")
    yield _Report("cores", f"{available_cores()} usable of {os.cpu_count()}")


def _runtime() -> Iterator[_Report]:
    try:
        yield _Report("ONNX Runtime", check_runtime())
    except GenserveError as error:
        yield _Report("ONNX Runtime", error.detail, fault=True)
        return
    yield _Report("providers", ", ".join(available_providers()))


def _libraries() -> Iterator[_Report]:
    found = []
    for name in LIBRARIES:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            found.append(f"{name} not installed" + (" (training needs 'genserve[train]')" if name == "torch" else ""))
    yield _Report("libraries", ", ".join(found))


def _repository() -> Iterator[_Report]:
    repository = readable_repository()
    yield _Report("repository", f"{repository.root} ({', '.join(repository.names()) or 'no models'})")
    try:
        for finding in verify(repository):
            yield _Report(finding.subject, finding.fault or "verified", fault=finding.fault is not None)
    except GenserveError as error:
        yield _Report("repository", error.detail, fault=True)
