"""A training that was stopped too early ends at the gate, by the commands that everybody uses."""

from pathlib import Path

import numpy as np
import pytest

from genserve.cli import main
from models.datasets import load_dataset
from models.errors import Unavailable
from models.repository import Repository

SNAPSHOTS = (0.512, 1.024, 2.048)  # kimg
SMALL = ["--g-channels=16", "--d-channels=16", "--batch-size=32", "--threads=1", "--snapshot-kimg=0.512"]


def test_half_trained_generators_are_refused_for_their_quality(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Snapshots after 500 to 2,000 images: G1 refuses each, and nothing is promoted."""
    try:
        data = load_dataset("fashion-mnist")
    except Unavailable as error:
        pytest.skip(error.detail)
    monkeypatch.setenv("GENSERVE_MODELS", str(tmp_path / "repository"))
    monkeypatch.setenv("GENSERVE_DATA", str(tmp_path / "cache"))
    np.savez(tmp_path / "some.npz", images=data.samples[:3000], labels=np.asarray(data.labels)[:3000])
    run_dir = str(tmp_path / "run")
    assert main(["train", str(tmp_path / "some.npz"), *SMALL, "--kimg=2.048", "--run-dir", run_dir]) == 0
    (tmp_path / "repository").mkdir()
    (tmp_path / "repository" / "policy.toml").write_text("num_fake = 1000\nnum_neighbours = 500\n")
    for number, kimg in enumerate(SNAPSHOTS, 1):
        assert main(["export", run_dir, "--checkpoint", str(kimg), "--reason", "too early"]) == 0
        assert main(["publish", run_dir, "--name", "early", "--extractor", "fashion-cnn"]) == 0
        assert main(["gate", f"early@{number}"]) == 1
        assert main(["promote", f"early@{number}"]) == 1
    repository = Repository(tmp_path / "repository")
    for number in range(1, len(SNAPSHOTS) + 1):
        (verdict,) = repository.verdicts(repository.resolve(f"early@{number}"))
        assert verdict.decision == "fail"
        assert any(reason.startswith("G1 ") for reason in verdict.reasons)
    assert repository.aliases("early").champion is None
    assert "FAIL" in capsys.readouterr().out
