"""The house stands as drawn: which room may import which."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_imports_run_one_way() -> None:
    """trainer -> models <- serving, torch only in trainer, no HTTP in models: import-linter's contracts hold."""
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()", "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_help_is_light() -> None:
    """`genserve --help` imports neither numpy nor torch nor a web framework."""
    heavy = "{'numpy', 'torch', 'litestar', 'onnx', 'onnxruntime', 'scipy', 'PIL', 'msgspec'}"
    code = f"import sys; from genserve.cli import build_parser; build_parser(); print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_server_loads_no_statistics_and_no_data() -> None:
    """Each costs memory in every replica: scipy.stats alone 42 MB."""
    heavy = "{'scipy.stats', 'scipy.sparse', 'scipy.spatial', 'models.datasets', 'pandas', 'torch'}"
    code = f"import sys, serving.server; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
