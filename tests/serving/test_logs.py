"""Log lines, as a process writes them."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FAIL = """
import structlog
from serving.logs import configure_logging
from serving.settings import Settings

def fail(settings):
    raise ValueError("what happened")

configure_logging(Settings(redis_url="redis://:s3cret@cache", log_format="{form}"))
try:
    fail(Settings(redis_url="redis://:s3cret@cache"))
except ValueError:
    structlog.get_logger("genserve.test").exception("it failed")
"""


@pytest.mark.parametrize("form", ["console", "json"])
def test_a_traceback_tells_where_and_no_secrets(form: str) -> None:
    """The values of local variables stay inside, and with them what settings hold."""
    code = FAIL.format(form=form)
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "it failed" in ran.stderr
    assert "what happened" in ran.stderr
    assert '"fail"' in ran.stderr if form == "json" else "in fail" in ran.stderr
    assert "s3cret" not in ran.stderr
