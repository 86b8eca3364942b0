"""The processor as Linux tells of it."""

from pathlib import Path

import pytest

from models import processor

CPUINFO = """processor\t: 0
model name\t: Example(R) CPU @ 2.00GHz
flags\t\t: fpu avx2 avx512f avx512_vnni
processor\t: 1
model name\t: Another
flags\t\t: fpu
"""


@pytest.fixture
def cpuinfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "cpuinfo"
    path.write_text(CPUINFO)
    monkeypatch.setattr(processor, "CPUINFO", path)
    processor.features.cache_clear()
    monkeypatch.setattr(processor, "features", processor.features.__wrapped__)
    return path


def test_name_and_features_are_read(cpuinfo: Path) -> None:
    """Of the first processor."""
    assert processor.model_name() == "Example(R) CPU @ 2.00GHz"
    assert processor.features() == {"fpu", "avx2", "avx512f", "avx512_vnni"}
    assert processor.telling_features() == ("avx2", "avx512f", "avx512_vnni")


def test_where_nothing_is_told_nothing_is_claimed(cpuinfo: Path) -> None:
    """Other systems have no such file."""
    cpuinfo.unlink()
    assert processor.features() == frozenset()
    assert processor.model_name()
