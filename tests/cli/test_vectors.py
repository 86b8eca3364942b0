"""A generator of vectors goes the whole way: published, measured, judged, promoted, drawn from."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from genserve.cli import main
from models.generator import Generator
from models.judge import run_gate
from models.repository import Repository
from models.testkit import tiny_model, tiny_signature

SIGNATURE = tiny_signature(kind="vector", z_dim=2, shape=(2,))


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """An empty repository beside 24,000 rows of what the tiny generator of seed 0 makes, and two generators' files."""
    (tmp_path / "models").mkdir()
    monkeypatch.setenv("GENSERVE_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("GENSERVE_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    for seed in (0, 1):
        Path(f"{seed}.onnx").write_bytes(tiny_model(SIGNATURE, seed=seed))
    z = np.random.RandomState(9).standard_normal((24_000, 2)).astype(np.float32)
    rows = Generator.from_bytes(tiny_model(SIGNATURE)).generate(z)
    np.savetxt("rows.csv", rows, delimiter=",", header="width,height", comments="")
    return Repository(tmp_path / "models")


def test_from_a_csv_to_samples(house: Repository, capsys: pytest.CaptureFixture[str]) -> None:
    """The data's own generator passes and serves rows in the data's units; another is refused as unlike the data."""
    assert main(["publish", "0.onnx", "--name", "rows", "--data", "rows.csv"]) == 0
    assert main(["evaluate", "rows@1", "--num-fakes", "4000", "--json"]) == 0
    report = msgspec.json.decode(capsys.readouterr().out.removeprefix("rows@1\n"))
    assert report["extractor"].startswith("random-fourier@")
    assert report["measures"]["scores"][0] > 0.9
    verdict = run_gate(house, house.resolve("rows@1"), num_fake=4000)
    assert verdict.decision == "pass", verdict.reasons
    assert main(["promote", "rows@1"]) == 0
    assert main(["publish", "1.onnx", "--name", "rows"]) == 0
    refused = run_gate(house, house.resolve("rows@2"), num_fake=4000)
    assert refused.decision == "fail"
    assert any("FD_inf" in reason for reason in refused.reasons)
    assert main(["promote", "rows@2"]) == 1
    for file in ("a.npy", "a.json"):
        assert main(["sample", "rows", "--seed", "3", "-n", "5", "-o", file]) == 0
    drawn = np.load("a.npy")
    assert (drawn.shape, drawn.dtype) == ((5, 2), np.float32)
    told = msgspec.json.decode(Path("a.json").read_bytes())["images"]
    assert [sample["seed"] for sample in told] == [3, 4, 5, 6, 7]
    np.testing.assert_array_equal(np.array([sample["values"] for sample in told], np.float32), drawn)


def test_rows_of_another_length_are_refused(house: Repository, capsys: pytest.CaptureFixture[str]) -> None:
    """Judging against data that the generator does not make is refused when it is published."""
    Path("three.csv").write_text("1,2,3\n4,5,6\n")
    assert main(["publish", "0.onnx", "--name", "rows", "--data", "three.csv"]) == 1
    assert "makes vectors of 2, three.csv holds vectors of 3" in capsys.readouterr().err
