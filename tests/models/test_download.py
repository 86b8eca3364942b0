"""Downloads, against a real HTTP server on this machine."""

import gzip
import hashlib
import http.server
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from models.datasets import load_dataset
from models.download import fetch
from models.errors import DataError, Unavailable
from models.sources import IDX_FILES, SOURCES, Source, locate

CONTENT = bytes(np.random.RandomState(0).randint(0, 256, 300_000, dtype=np.uint8))
PACKED = gzip.compress(CONTENT, mtime=0)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Behaviour:
    """How the server answers, and what it was asked."""

    files: dict[str, bytes] = field(default_factory=dict)
    cut_after: list[int] = field(default_factory=list)  # bytes of the next answers' bodies, then whole ones
    knows_ranges: bool = True
    ranges: list[str | None] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[tuple[str, Behaviour]]:
    behaviour = Behaviour(files={"/data.gz": PACKED})

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            behaviour.ranges.append(asked)
            if self.path not in behaviour.files:
                self.send_error(404)
                return
            body = behaviour.files[self.path]
            start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and behaviour.knows_ranges else 0
            if start and start >= len(body):
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body) - start))
            self.end_headers()
            part = body[start:]
            self.wfile.write(part[: behaviour.cut_after.pop(0)] if behaviour.cut_after else part)

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}", behaviour
        httpd.shutdown()
        thread.join()


def test_a_file_arrives_whole_under_its_name_alone(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    """A download ends as the file under its own name, in a folder made for it, and nothing beside it."""
    path = fetch(f"{server[0]}/data.gz", tmp_path / "new" / "data.gz", sha256=SHA256)
    assert path.read_bytes() == PACKED
    assert list(path.parent.iterdir()) == [path]


def test_what_is_there_is_not_fetched_again(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    """A second fetch asks the server for nothing."""
    for _ in range(2):
        fetch(f"{server[0]}/data.gz", tmp_path / "data.gz", sha256=SHA256)
    assert len(server[1].ranges) == 1


def test_a_cut_connection_is_resumed_where_it_stopped(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    """After 100,000 bytes the rest is asked for with Range, not the whole again."""
    server[1].cut_after = [100_000]
    path = fetch(f"{server[0]}/data.gz", tmp_path / "data.gz", sha256=SHA256)
    assert server[1].ranges == [None, "bytes=100000-"]
    assert path.read_bytes() == PACKED


def test_an_interrupted_download_goes_on_in_the_next_call(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    """When every attempt is cut short the part is kept, and a later call asks only for what is missing."""
    server[1].cut_after = [1000, 1000, 1000]
    with pytest.raises(Unavailable, match="attempts"):
        fetch(f"{server[0]}/data.gz", tmp_path / "data.gz", sha256=SHA256)
    assert not (tmp_path / "data.gz").exists()
    assert fetch(f"{server[0]}/data.gz", tmp_path / "data.gz", sha256=SHA256).read_bytes() == PACKED
    assert server[1].ranges[-1] == "bytes=3000-"


def test_a_server_without_ranges_sends_everything_again(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    """A server that answers a Range with 200 does not leave two beginnings in the file."""
    server[1].cut_after, server[1].knows_ranges = [1000], False
    assert fetch(f"{server[0]}/data.gz", tmp_path / "data.gz", sha256=SHA256).read_bytes() == PACKED


def test_a_whole_part_left_behind_is_used(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    """Killed between the last byte and the rename, the next call needs no byte more."""
    (tmp_path / "data.gz.part").write_bytes(PACKED)
    assert fetch(f"{server[0]}/data.gz", tmp_path / "data.gz", sha256=SHA256).read_bytes() == PACKED


def test_a_foreign_part_is_thrown_away(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    """A damaged part makes the checksum fail once; then the file is fetched from the beginning."""
    (tmp_path / "data.gz.part").write_bytes(b"not the beginning of this file")
    assert fetch(f"{server[0]}/data.gz", tmp_path / "data.gz", sha256=SHA256).read_bytes() == PACKED


def test_a_wrong_checksum_leaves_nothing(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    """Content that is not what was published is refused, and neither the file nor a part stays."""
    server[1].files["/data.gz"] = gzip.compress(b"something else")
    with pytest.raises(Unavailable, match="sha256"):
        fetch(f"{server[0]}/data.gz", tmp_path / "data.gz", sha256=SHA256)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_file_names_its_address(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    """A 404 is an error that names the address."""
    with pytest.raises(Unavailable, match=r"gone\.gz.*404"):
        fetch(f"{server[0]}/gone.gz", tmp_path / "gone.gz", sha256=SHA256)


# Named data sets.


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


def contents() -> list[bytes]:
    r = np.random.RandomState(1)
    train, test = 60_000, 10_000
    return [
        idx(r.randint(0, 256, (train, 2, 2), dtype=np.uint8)), idx(r.randint(0, 10, train, dtype=np.uint8)),
        idx(r.randint(0, 256, (test, 2, 2), dtype=np.uint8)), idx(r.randint(0, 10, test, dtype=np.uint8)),
    ]  # fmt: skip


def source(base_url: str, files: list[bytes]) -> Source:
    hashes = [hashlib.sha256(file).hexdigest() for file in files]
    return replace(SOURCES["mnist"], base_url=base_url, sha256=(hashes[0], hashes[1], hashes[2], hashes[3]))


def test_a_named_data_set_is_downloaded_into_genserve_data(
    server: tuple[str, Behaviour], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first load fetches four files into GENSERVE_DATA/<name>, the second none; the splits are the field's."""
    monkeypatch.setenv("GENSERVE_DATA", str(tmp_path))
    files = contents()
    server[1].files = {f"/{n}.gz": gzip.compress(f, 1) for n, f in zip(IDX_FILES, files, strict=True)}
    sources = {"mnist": source(f"{server[0]}/", files)}
    first, second = (load_dataset("mnist", sources=sources) for _ in range(2))
    assert len(server[1].ranges) == 4
    assert sorted(p.name for p in (tmp_path / "mnist").iterdir()) == sorted(f"{n}.gz" for n in IDX_FILES)
    assert first.content_hash == second.content_hash
    assert first.split("validation").indices.tolist() == list(range(55_000, 60_000))
    assert first.split("gate").indices.tolist() == list(range(60_000, 70_000))


def test_offline_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a network the error names the package and the folder where the files can be put."""
    monkeypatch.setenv("GENSERVE_DATA", str(tmp_path))
    nowhere = replace(SOURCES["fashion-mnist"], base_url="http://127.0.0.1:9/", local=())
    with pytest.raises(Unavailable) as caught:
        locate("fashion-mnist", nowhere)
    assert "apt install dataset-fashion-mnist" in caught.value.detail
    assert str(tmp_path / "fashion-mnist") in caught.value.detail
    assert caught.value.exit_status == 3


def test_a_damaged_local_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file in GENSERVE_DATA with other content is refused by name rather than trained on."""
    monkeypatch.setenv("GENSERVE_DATA", str(tmp_path))
    damaged = tmp_path / "mnist" / f"{IDX_FILES[0]}.gz"
    damaged.parent.mkdir()
    damaged.write_bytes(gzip.compress(b"other content"))
    with pytest.raises(DataError, match=IDX_FILES[0]):
        locate("mnist", SOURCES["mnist"])
