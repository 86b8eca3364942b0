"""policy.toml: which thresholds count, and that promotions obey those of now."""

import json
from pathlib import Path

import pytest

from genserve.cli import main
from models.errors import Invalid, Refused
from models.policies import FILE_NAME, effective_policy, read_policies
from models.policy import Policy
from models.promotion import promote, rollback
from models.repository import Repository
from models.testkit import fake_verdict, promote_tiny, publish_tiny

FILE = """
max_fd = 0.04
min_recall = 0.5
[image]
max_fd = 0.03
[vector]
max_fd = 0.01
[models.tiny]
min_recall = 0.6
"""


def test_the_nearest_table_counts(tmp_path: Path) -> None:
    """Defaults, the file's top, the kind, what was published, the model's own table, in this order."""
    assert read_policies(tmp_path).policy("tiny", "image", {}) == Policy()
    (tmp_path / FILE_NAME).write_text(FILE)
    policies = read_policies(tmp_path)
    found = {
        (name, kind): policies.policy(name, kind, {}) for name in ("tiny", "other") for kind in ("image", "vector")
    }
    assert {key: (policy.max_fd, policy.min_recall) for key, policy in found.items()} == {
        ("tiny", "image"): (0.03, 0.6),
        ("tiny", "vector"): (0.01, 0.6),
        ("other", "image"): (0.03, 0.5),
        ("other", "vector"): (0.01, 0.5),
    }
    assert policies.policy("other", "image", {"max_fd": 0.2, "min_recall": 0.7}).max_fd == 0.2
    assert policies.policy("tiny", "image", {"min_recall": 0.7}).min_recall == 0.6


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("max_fdd = 1", r"policy\.toml, its top: .*max_fdd"),
        ("[vector]\nmax_fd = -1", r"policy\.toml, \[vector\]: -1.* must be finite and not negative"),
        ("[models.a]\nnum_fake = 5", r"policy\.toml, \[models\.a\]: 5 is below 100"),
        ("[models.a]\nmax_fd = 'x'", r"policy\.toml, \[models\.a\]: .*max_fd"),
        ("max_fd = ", r"policy\.toml: "),
        ("models = 3", r"policy\.toml: "),
    ],
)
def test_what_is_no_threshold_is_named(tmp_path: Path, text: str, complaint: str) -> None:
    """The error says the file and the table, whichever model is asked for."""
    (tmp_path / FILE_NAME).write_text(text)
    with pytest.raises(Invalid, match=complaint):
        read_policies(tmp_path)


def test_a_verdict_under_another_policy_promotes_nothing(tmp_path: Path) -> None:
    """Tightened thresholds need a new verdict; going back to a former champion does not."""
    repository = Repository(tmp_path)
    promote_tiny(repository)
    promote_tiny(repository, seed=1)
    version = publish_tiny(repository, seed=2)
    repository.add_verdict(version, fake_verdict(version, version.manifest(), champion=2))
    (tmp_path / FILE_NAME).write_text("[image]\nmax_fd = 0.03\nmin_recall = 0.5")
    with pytest.raises(Refused, match=r"another policy \(max_fd was 0\.05, is 0\.03; min_recall was 0\.45, is 0\.5\)"):
        promote(repository, version)
    assert repository.aliases("tiny").champion == 2
    assert rollback(repository, "tiny").version == 1
    (tmp_path / FILE_NAME).write_text("num_fake = 1000")
    repository.add_verdict(version, fake_verdict(version, version.manifest(), champion=1))
    assert promote(repository, version).version == 3


def test_the_command_says_where_each_threshold_comes_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the hash that a verdict would carry."""
    repository = Repository(tmp_path)
    promote_tiny(repository)
    (tmp_path / FILE_NAME).write_text(FILE)
    monkeypatch.setenv("GENSERVE_MODELS", str(tmp_path))
    assert main(["policy", "tiny", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    rows = {row["threshold"]: (row["value"], row["from"]) for row in told["thresholds"]}
    assert rows["max_fd"] == (0.03, "policy.toml [image]")
    assert rows["min_recall"] == (0.6, "policy.toml [models.tiny]")
    assert rows["max_replay"] == (0.02, "default")
    assert told["hash"] == effective_policy(repository, "tiny", "image").hash
    assert main(["policy", "tiny"]) == 0
    assert f"hash {told['hash']}" in capsys.readouterr().out
