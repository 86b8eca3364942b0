"""Writes that survive being killed: whole or not at all. Knows nothing of what the files mean.

Every write of the model repository goes through this file.
"""

import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec


def replace_file(path: Path, data: bytes) -> None:
    """Put data at path atomically: a reader sees the old content or the new, never a part.

    Raises:
        OSError: it could not be written; the old content is still there, and nothing else.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    with _naming(path):
        try:
            write_file(temporary, data)
            os.replace(temporary, path)  # noqa: PTH105 the syscall's own name says what it promises
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def write_file(path: Path, data: bytes) -> None:
    """Write a file and wait until it is on disk. Not atomic: for files that no reader can see yet."""
    with _naming(path):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            _write_all(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def append_line(path: Path, line: bytes) -> None:
    """Append one line, first cutting off a line that a killed writer left unfinished. Call it under `lock`."""
    with _naming(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            content = _read_all(descriptor)
            whole = content.rfind(b"\n") + 1
            if whole != len(content):
                os.ftruncate(descriptor, whole)
            os.lseek(descriptor, whole, os.SEEK_SET)
            _write_all(descriptor, line + b"\n")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        sync_folder(path.parent)


def read_lines(path: Path) -> list[bytes]:
    """The whole lines of an append-only file; a last line without its end was never written. [] where no file is."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    return content.split(b"\n")[:-1]


def publish_folder(staging: Path, final: Path) -> None:
    """Rename a finished folder into place, atomically; what is in it must be on disk already.

    Raises:
        FileExistsError: something lies at the final place.
    """
    sync_folder(staging)
    if final.exists():
        raise FileExistsError(final)
    os.rename(staging, final)  # noqa: PTH104 as above
    sync_folder(final.parent)


def remove_folder(folder: Path) -> None:
    """Remove a folder, for readers at once; what a killed writer leaves of it, `clear_leftovers` removes."""
    doomed = folder.with_name(f".staging-{secrets.token_hex(8)}")
    os.rename(folder, doomed)  # noqa: PTH104 as above
    sync_folder(folder.parent)
    shutil.rmtree(doomed)


def sync_folder(folder: Path) -> None:
    """Wait until a folder's entries are on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def pretty_json(value: object) -> bytes:
    """A file's worth of JSON that a person can read: a struct, or what msgspec encodes otherwise."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold the one writer's lock of a folder; the kernel lets go of it when its holder dies."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def clear_leftovers(folder: Path) -> None:
    """Remove what killed writers left half done in a folder. Call it under `lock`."""
    for entry in folder.iterdir():
        if entry.name.startswith(".staging-"):
            shutil.rmtree(entry)
        elif entry.name.startswith(".") and entry.name.endswith(".tmp"):
            entry.unlink()


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Whatever fails is told of this file: a descriptor's error names none, and a temporary's name says nothing."""
    try:
        yield
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _read_all(descriptor: int) -> bytes:
    parts = []
    while part := os.read(descriptor, 1 << 20):
        parts.append(part)
    return b"".join(parts)
