"""Fixtures that several tests of models share."""

import shutil
from pathlib import Path

import pytest

from tests.models.signed import fill


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """See tests.models.signed; no test may change it."""
    return fill(tmp_path_factory.mktemp("signed"))


@pytest.fixture
def root(signed: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    shutil.copytree(signed, tmp_path / "models")
    return tmp_path / "models"
