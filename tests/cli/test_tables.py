"""A real table goes the whole way with the commands that a person gives: trained, judged, promoted, served."""

from pathlib import Path

import httpx
import numpy as np
import pytest
from sklearn.datasets import load_diabetes

from genserve.cli import main
from tests.serving.kit import Server, closing

# Of 41 gate rows: real against real itself is at FD_inf / Tr .88, and shares near 1 / 41 have wide bounds.
POLICY = "[models.patients]\nallow_small = true\nmax_fd = 1.1\nmax_replay = 0.15\nmax_near_duplicates = 0.7\n"
FEWER = "num_fake = 5000\n"


def test_from_a_csv_to_a_served_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The 442 patients of Efron et al. 2004: what is served as npy and json is alike, in the columns' own units."""
    monkeypatch.setenv("GENSERVE_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("GENSERVE_DATA", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    table = load_diabetes(scaled=False)
    np.savetxt("diabetes.csv", table.data, delimiter=",", header=",".join(table.feature_names), comments="", fmt="%g")
    words = ["--kimg", "100", "--snapshot-kimg", "50", "--threads", "1", "--run-dir", "run", "--batch-size", "64"]
    assert main(["train", "diabetes.csv", *words]) == 0
    assert main(["export", "run"]) == 0
    assert main(["publish", "run", "--name", "patients"]) == 0
    policy = tmp_path / "models" / "policy.toml"
    policy.write_text(FEWER)
    assert main(["gate", "patients@1"]) == 1  # 41 rows cannot pass the default policy
    capsys.readouterr()
    policy.write_text(FEWER + POLICY)
    assert main(["gate", "patients@1"]) == 0, capsys.readouterr().out
    assert main(["promote", "patients@1"]) == 0
    with closing(Server(tmp_path / "models", tmp_path / "log", threads=1, drain_seconds=0, max_images=400)) as server:
        rows = np.load(_answer(server, tmp_path / "rows.npy"))
        told = server.sample(num_images=400, seed=3, format="json").json()["images"]
    assert (rows.shape, rows.dtype) == ((400, 10), np.float32)
    np.testing.assert_array_equal(np.array([row["values"] for row in told], np.float32), rows)
    assert np.abs((rows.mean(0) - table.data.mean(0)) / table.data.std(0)).max() < 0.3
    assert np.abs(np.log(rows.std(0) / table.data.std(0))).max() < 0.5


def _answer(server: Server, path: Path) -> Path:
    answer: httpx.Response = server.sample(num_images=400, seed=3, format="npy")
    assert answer.status_code == 200, answer.text
    path.write_bytes(answer.content)
    return path
