"""Fetches a public file: resumable, checked, atomic, with a progress bar. Knows nothing of what is in it.

A file arrives as NAME.part and is renamed once its checksum agrees, so a file under its own name is always whole.
The checksum is of the uncompressed content: mirrors and distributions compress the same data differently.
"""

import hashlib
import http.client
import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO

from models.errors import DataError, Unavailable
from models.idx import uncompressed
from models.progress import Progress

CHUNK_BYTES = 1 << 16
TIMEOUT_SECONDS = 30.0
ATTEMPTS = 3


def content_sha256(path: Path) -> str:
    """sha256 of a file's uncompressed bytes, in hexadecimal.

    Raises:
        DataError: the file cannot be read or its gzip stream is damaged.
    """
    return hashlib.sha256(uncompressed(path)).hexdigest()


def fetch(url: str, path: Path, *, sha256: str) -> Path:
    """Download `url` to `path` unless it is there already; an interrupted download goes on where it stopped.

    Args:
        url: http or https.
        path: where the file will be; its folder is made.
        sha256: of the uncompressed content.

    Raises:
        Unavailable: the network, the server or the disk failed, or what came is not what was expected.
    """
    if path.exists():
        return path
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(ATTEMPTS):
            if _receive(url, part) and _is_content(part, sha256):
                os.replace(part, path)  # noqa: PTH105 - the atomic one, by its own name
                return path
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable(f"{url}: {error}", field="data") from error
    raise Unavailable(f"{url}: {ATTEMPTS} attempts brought no file with the expected sha256 {sha256}", field="data")


def _is_content(part: Path, sha256: str) -> bool:
    """Whether the whole download is the expected file; removes it if not, since resuming cannot mend it."""
    try:
        expected = content_sha256(part) == sha256
    except DataError:
        expected = False
    if not expected:
        part.unlink()
    return expected


def _receive(url: str, part: Path) -> bool:
    """One request, for the bytes that are still missing; says whether the file is whole now."""
    have = part.stat().st_size if part.exists() else 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310 - addresses come from models/sources.py, not from input
            if answer.status != 206:
                have = 0  # the server ignores Range and sends everything
            length = answer.headers.get("Content-Length")
            total = have + int(length) if length is not None else None
            with part.open("r+b" if have else "wb") as out:
                out.seek(have)
                received = have + _copy(answer, out, Progress(part.stem, total, done=have, unit="MB", scale=1e6))
    except urllib.error.HTTPError as error:
        if error.code != 416:  # nothing is left to send: whole, or not ours
            raise
        return True
    return total is None or received == total


def _copy(source: IO[bytes], out: IO[bytes], progress: Progress) -> int:
    copied = 0
    while chunk := source.read(CHUNK_BYTES):
        out.write(chunk)
        copied += len(chunk)
        progress.advance(len(chunk))
    progress.end()
    return copied
