"""`genserve doctor`: what this machine has, and the mend for each fault. Changes nothing."""

import argparse
import contextlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import msgspec

from genserve.context import readable_repository, signing_key
from models import processor
from models.errors import GenserveError
from models.probing import probe
from models.runtime import (
    CPU_PROVIDER,
    CUDA_PROVIDER,
    DISTRIBUTIONS,
    available_cores,
    available_providers,
    cgroup_quota,
    check_runtime,
    default_providers,
    short_name,
)
from models.verify import verify
from serving.errors import SettingsError
from serving.settings import Settings, load_settings

LIBRARIES = (
    "litestar", "uvicorn", *(["uvloop"] if sys.platform != "win32" else []), "httptools", "pyzmq", "prometheus-client",
    "numpy", "scipy", "onnx", "msgspec", "redis", "pillow", "isal", "cryptography", "torch",
)  # fmt: skip
CUDA_LIBRARIES = ("nvidia-cuda-runtime", "nvidia-cublas", "nvidia-cudnn")  # and these with -cu13 and the like
NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")
LITTLE_MEMORY_BYTES = 512 * 1024 * 1024


class _Report(NamedTuple):
    """One line: what was looked at, what was found, whether that is a fault, and what mends it."""

    subject: str
    found: str
    fault: bool = False
    mend: str | None = None


def doctor(args: argparse.Namespace) -> int:
    """Print the report; 1 if anything is at fault."""
    looks = (_machine, _memory, _nvidia, _runtime, _providers, _libraries, _settings, _repository)
    faults = 0
    for look in looks:
        for report in look():
            print(f"{'FAULT' if report.fault else 'ok   '}  {report.subject}: {report.found}", flush=True)
            if report.mend is not None:
                print(f"       mend: {report.mend}")
            faults += report.fault
    return int(faults > 0)


def _machine() -> Iterator[_Report]:
    yield _Report("machine", f"{platform.system()} {platform.machine()}, Python {platform.python_version()}")
    yield _Report("processor", processor.model_name())
    yield _Report("instruction sets", ", ".join(processor.telling_features()) or "none that matter here")
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota = cgroup_quota()
    limit = "no control group's quota" if quota is None else f"control groups' least quota {quota:g}"
    yield _Report("cores", f"{available_cores()} usable (of {os.cpu_count()}; affinity {allowed}; {limit})")


def _memory() -> Iterator[_Report]:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free, total = (_kibibytes(lines, name) * 1024 for name in ("MemAvailable", "MemTotal"))
    except (OSError, StopIteration, ValueError):
        return
    scarce = free < LITTLE_MEMORY_BYTES
    mend = "GENSERVE_CACHE_BYTES=16777216, or more memory" if scarce else None
    yield _Report("memory", f"{free / 2**30:.1f} GiB free of {total / 2**30:.1f}", fault=scarce, mend=mend)


def _kibibytes(lines: list[str], name: str) -> int:
    return int(next(line.split()[1] for line in lines if line.startswith(f"{name}:")))


def _nvidia() -> Iterator[_Report]:
    """The driver, and whether this ONNX Runtime can use it."""
    found = _nvidia_devices()
    if found is None:
        yield _Report("NVIDIA driver", "none")
        return
    unused = "onnxruntime-gpu" not in _distributions()
    mend = "pip uninstall -y onnxruntime onnxruntime-openvino; pip install 'genserve[gpu]'" if unused else None
    yield _Report("NVIDIA driver", found + (", but ONNX Runtime is not built for it" if unused else ""), unused, mend)
    libraries = sorted(f"{one.name} {one.version}" for one in metadata.distributions() if _of_cuda(one.name))
    yield _Report("CUDA libraries", ", ".join(libraries) or "none from packages: the system's, if any")


def _of_cuda(name: str) -> bool:
    return name.startswith(CUDA_LIBRARIES)


def _nvidia_devices() -> str | None:
    """What the driver tells; None where there is none."""
    if command := shutil.which("nvidia-smi"):
        asked = [command, "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
        try:
            done = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=True)  # noqa: S603 no shell
            return "; ".join(done.stdout.strip().splitlines())
        except (OSError, subprocess.SubprocessError):
            pass  # a tool without its driver, as in many images
    try:
        return NVIDIA_DRIVER.read_text().splitlines()[0]
    except (OSError, IndexError):
        return None


def _distributions() -> list[str]:
    found = []
    for name in DISTRIBUTIONS:
        try:
            metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        found.append(name)
    return found


def _runtime() -> Iterator[_Report]:
    try:
        yield _Report("ONNX Runtime", check_runtime())
    except GenserveError as error:
        found, _, mend = error.detail.partition(" Mend: ")
        yield _Report("ONNX Runtime", found, fault=True, mend=mend or None)


def _providers() -> Iterator[_Report]:
    """Each provider that this ONNX Runtime is built for and a server here would use, tried with a tiny network."""
    try:
        built_in, wanted = available_providers(), default_providers()
    except (GenserveError, ImportError):
        return  # _runtime told of it
    with contextlib.suppress(GenserveError):  # _settings tells of it
        wanted += load_settings().providers
    for name in built_in:
        if name not in wanted:
            yield _Report(f"provider {short_name(name)}", "built in, not tried: used only where it is asked for")
            continue
        found = probe(name)
        if found.fault is None:
            nodes = ", ".join(f"{count} on {short_name(ran)}" for ran, count in found.nodes.items())
            yield _Report(f"provider {short_name(name)}", f"works; the nodes of a tiny network ran: {nodes}")
        else:
            yield _Report(f"provider {short_name(name)}", found.fault, fault=True, mend=_provider_mend(name))


def _provider_mend(name: str) -> str:
    if name == CPU_PROVIDER:
        return "pip install --force-reinstall onnxruntime"
    if name == CUDA_PROVIDER:
        return "an NVIDIA driver for CUDA 13, and pip install 'genserve[gpu]'; or GENSERVE_PROVIDERS=cpu to do without"
    return f"pip install --force-reinstall onnxruntime-{short_name(name)}; or GENSERVE_PROVIDERS=cpu to do without"


def _libraries() -> Iterator[_Report]:
    found = []
    for name in LIBRARIES:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            if name == "torch":
                found.append("torch not installed (training needs 'genserve[train]')")
            else:
                yield _Report(name, "not installed", fault=True, mend=f"pip install {name}")
    yield _Report("libraries", ", ".join(found))


def _settings() -> Iterator[_Report]:
    """Whether a server started here would accept its settings."""
    try:
        settings = load_settings()
    except GenserveError as error:
        mend = "unset or correct it, in the environment or in genserve.toml"
        yield _Report("settings", str(error), fault=True, mend=mend)
        return
    defaults = msgspec.structs.asdict(Settings())
    given = [name for name, value in msgspec.structs.asdict(settings).items() if value != defaults[name]]
    yield _Report("settings", f"valid; not at their defaults: {', '.join(given) or 'none'}")
    yield from _missing_providers(settings)
    yield from _keys(settings)


def _missing_providers(settings: Settings) -> Iterator[_Report]:
    """Those asked for that this ONNX Runtime is not built for."""
    try:
        built_in = set(available_providers())
    except (GenserveError, ImportError):
        return  # _runtime told of it
    for name in settings.providers:
        if name not in built_in:
            mend = "set GENSERVE_PROVIDERS to what works here, or add cpu at its end to allow a fallback"
            alone = not set(settings.providers) & built_in
            yield _Report("GENSERVE_PROVIDERS", f"{short_name(name)} is not in this ONNX Runtime", alone, mend)


def _keys(settings: Settings) -> Iterator[_Report]:
    """Who is trusted, and who signs."""
    trusted = ", ".join(settings.trusted_keys) or "any model with a passing verdict, whoever signed it"
    yield _Report("trusted keys", trusted)
    try:
        key = signing_key(settings)
    except GenserveError as error:
        found, _, mend = str(error).partition(" Mend: ")
        yield _Report("signing key", found, fault=True, mend=mend or "genserve key new FILE makes one")
        return
    if key is None:
        yield _Report("signing key", "none: what is judged and promoted here is unsigned")
        return
    if settings.trusted_keys and key.public not in settings.trusted_keys:
        mend = f"add {key.public} to GENSERVE_TRUSTED_KEYS"
        yield _Report("signing key", f"{key.public}, which is not trusted here", fault=True, mend=mend)
    else:
        yield _Report("signing key", key.public)


def _repository() -> Iterator[_Report]:
    try:
        repository = readable_repository()
    except SettingsError:
        return  # _settings told of it
    try:
        yield _Report("repository", f"{repository.root} ({', '.join(repository.names()) or 'no models'})")
        for finding in verify(repository):
            if finding.fault is None:
                yield _Report(finding.subject, f"verified, {finding.note}" if finding.note else "verified")
                continue
            found, _, mend = finding.fault.partition(" Mend: ")
            usual = "genserve rollback, or publish it again; see docs/operations.md"
            yield _Report(finding.subject, found, fault=True, mend=mend or usual)
    except GenserveError as error:
        yield _Report("repository", str(error), fault=True)
