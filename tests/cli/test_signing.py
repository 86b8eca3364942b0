"""Keys, signatures and the history on the command line, as an operator would use them."""

import json
import re
from pathlib import Path

import pytest

from genserve.cli import main
from models.keys import read_key
from models.repository import Repository
from models.testkit import fake_verdict, promoted_repository, publish_tiny


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """An unsigned repository with a champion, which GENSERVE_MODELS points to."""
    repository = promoted_repository(tmp_path / "models")
    monkeypatch.setenv("GENSERVE_MODELS", str(repository.root))
    monkeypatch.chdir(tmp_path)
    return repository


@pytest.fixture
def public(repository: Repository, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """The public half of a key that commands sign with."""
    assert main(["key", "new", "k.key"]) == 0
    monkeypatch.setenv("GENSERVE_SIGNING_KEY", "k.key")
    return capsys.readouterr().out.strip()


def test_a_new_key_prints_its_public_half_alone(
    repository: Repository, public: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """On stdout, for scripts; `key show` prints the same, and the private half is printed nowhere."""
    assert public == read_key(Path("k.key")).public
    assert main(["key", "show", "k.key"]) == 0
    assert capsys.readouterr().out == f"{public}\n"
    assert main(["key", "new", "k.key"]) == 2
    assert "never overwritten" in capsys.readouterr().err


def test_a_key_does_not_belong_into_the_repository(repository: Repository, capsys: pytest.CaptureFixture[str]) -> None:
    """Others read that folder."""
    assert main(["key", "new", str(repository.root / "k.key")]) == 1
    assert "keep the key elsewhere" in capsys.readouterr().err
    assert not (repository.root / "k.key").exists()


def test_a_key_that_cannot_be_used_is_named_with_its_setting(
    repository: Repository, public: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 2, before anything is written."""
    Path("k.key").chmod(0o644)
    before = (repository.root / "tiny" / "history.jsonl").read_bytes()
    assert main(["sign", "tiny"]) == 2
    assert re.search(r"GENSERVE_SIGNING_KEY: .*chmod 600", capsys.readouterr().err)
    assert (repository.root / "tiny" / "history.jsonl").read_bytes() == before


def test_an_unsigned_repository_says_so_and_can_be_signed(
    repository: Repository, public: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """verify without keys, verify with the key before and after `genserve sign`."""
    assert main(["verify"]) == 0
    assert "ok     tiny@1 (unsigned)\n" in capsys.readouterr().out
    assert main(["verify", "--key", public]) == 1
    told = capsys.readouterr().out
    assert "FAULT  tiny@1: verdicts/001.json is not signed. Mend: genserve sign tiny@1" in told
    assert "FAULT  tiny: aliases and history: no trusted key signed the promotion of tiny@1" in told
    assert main(["sign", "tiny", "--why", "checked"]) == 0
    assert "signed tiny@1/verdicts/001.json" in capsys.readouterr().out
    Path("trusted").write_text(f"{public} ours\n")
    assert main(["verify", "--key", "trusted"]) == 0
    assert f"ok     tiny@1 (signed by {public[:12]}...)" in capsys.readouterr().out


def test_the_history_answers_who_promoted_what_when_why_and_in_place_of_what(
    repository: Repository, public: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the verdict that it rested on, and by whom verdict and line are signed."""
    version = publish_tiny(repository, seed=2)
    Repository(repository.root, key=read_key(Path("k.key"))).add_verdict(
        version, fake_verdict(version, version.manifest(), champion=1)
    )
    assert main(["promote", "tiny@2", "--why", "sharper laces"]) == 0
    assert main(["rollback", "tiny", "--why", "laces too sharp"]) == 0
    capsys.readouterr()
    assert main(["history", "tiny", "--promotions"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    first, promoted, back = (re.split(r" {2,}", row.strip()) for row in rows)
    assert re.split(r" {2,}", head)[1:4] == ["event", "version", "replacing"]
    assert first[1:3] == ["promoted", "tiny@1"]
    short = f"{public[:12]}..."
    assert promoted[1:] == ["promoted", "tiny@2", "tiny@1", "001", short, short, promoted[-2], "sharper laces"]
    assert back[1:] == ["rolled back", "tiny@1", "tiny@2", "001", short, promoted[-2], "laces too sharp"]
    assert re.fullmatch(r"\S+@\S+", promoted[-2])


def test_the_history_as_json_says_what_speaks_against_each_line(
    repository: Repository, public: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """1 where a line is not as it was written."""
    assert main(["history", "tiny", "--json"]) == 0
    events = json.loads(capsys.readouterr().out)
    assert [(event["line"], event["event"], event["fault"]) for event in events] == [
        (1, "published", None), (2, "judged", None), (3, "promoted", None),
    ]  # fmt: skip
    path = repository.root / "tiny" / "history.jsonl"
    path.write_bytes(path.read_bytes().replace(b"test kit", b"test kid", 1))
    assert main(["history", "tiny"]) == 1
    assert "FAULT  line 2: what stands before it was changed" in capsys.readouterr().out
    assert main(["history", "nobody"]) == 2


def test_where_keys_are_trusted_commands_do_not_write_what_servers_would_not_follow(
    repository: Repository, public: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the private key, status 1 and what to set."""
    assert main(["sign", "tiny"]) == 0
    monkeypatch.setenv("GENSERVE_TRUSTED_KEYS", public)
    monkeypatch.delenv("GENSERVE_SIGNING_KEY")
    for command in (["promote", "tiny@1"], ["rollback", "tiny"]):
        assert main(command) == 1
        assert "GENSERVE_SIGNING_KEY" in capsys.readouterr().err
    assert main(["sign", "tiny"]) == 1
    assert "nothing to sign with" in capsys.readouterr().err


def test_the_doctor_tells_who_is_trusted_and_who_signs(
    repository: Repository, public: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And finds a signing key that nobody here trusts, and models that nobody signed."""
    assert main(["doctor"]) == 0
    told = capsys.readouterr().out
    assert "ok     trusted keys: any model with a passing verdict" in told
    assert f"ok     signing key: {public}\n" in told
    assert main(["key", "new", "other.key"]) == 0
    monkeypatch.setenv("GENSERVE_TRUSTED_KEYS", capsys.readouterr().out.strip())
    assert main(["doctor"]) == 1
    told = capsys.readouterr().out
    assert f"FAULT  signing key: {public}, which is not trusted here" in told
    assert "FAULT  tiny@1: verdicts/001.json is not signed" in told
    assert "mend: genserve sign tiny@1" in told
