"""A model card says what the repository's records hold, to everybody or to those who work with it."""

from pathlib import Path

import msgspec
import pytest

from genserve.cli import main
from models.card import Card, Code, Paragraph, Picture, Section, Table, build_card
from models.card_text import to_html, to_markdown
from models.keys import make_key
from models.repository import Repository
from models.testkit import add_tiny_variant, fake_verdict, promoted_repository, publish_tiny
from models.vouching import vouch

NASTY = "<script>alert('|')</script>"


def words(card: Card) -> str:
    """Everything that a card says, one fact a line."""
    lines = [card.title, card.summary]
    for section in card.sections:
        lines.append(section.title)
        for block in section.blocks:
            match block:
                case Paragraph(text) | Code(text):
                    lines.append(text)
                case Table(head, rows):
                    lines += [" | ".join(row) for row in (head, *rows)]
    return "\n".join(lines)


def test_a_champions_card_tells_its_role_its_verdict_and_its_past(tmp_path: Path) -> None:
    """Every number of the verdict stands in the table; the history says when and why."""
    repository = promoted_repository(tmp_path)
    version = repository.resolve("tiny")
    told = words(build_card(repository, version, public=False))
    verdict = repository.passing(version)
    assert verdict is not None
    assert version.manifest().digest in told
    assert "It is the champion" in told
    assert "PASS" in told
    assert verdict.policy_hash[:12] in told
    assert all(name in told for name in verdict.numbers if not name.startswith("real "))
    assert " | promoted | " in told
    assert repository.history("tiny")[0].by in told


def test_a_card_tells_who_signed(tmp_path: Path) -> None:
    """The public key, or that nobody did, or what speaks against it."""
    version = promoted_repository(tmp_path).resolve("tiny")
    assert "unsigned" in words(build_card(Repository(tmp_path), version, public=True))
    key = make_key()
    vouch(Repository(tmp_path, key=key), "tiny")
    assert key.public in words(build_card(Repository(tmp_path), version, public=True))
    version.samples_path.write_bytes(version.samples_path.read_bytes() + b"\0")
    assert "samples.png is not as it was signed" in words(build_card(Repository(tmp_path), version, public=True))


def test_a_public_card_names_no_person_and_no_place(tmp_path: Path) -> None:
    """Who did what is left out, and so is a path of data, in the settings too."""
    repository = promoted_repository(tmp_path)
    version = repository.resolve("tiny")
    manifest = version.manifest()
    made = msgspec.structs.replace(
        manifest.provenance, source="trained", data="/home/ann/faces", kimg=5.0,
        configuration={"data": "/home/ann/faces", "kimg": 5.0},
    )  # fmt: skip
    changed = msgspec.structs.replace(manifest, provenance=made)
    (version.path / "manifest.json").write_bytes(msgspec.json.encode(changed))
    private, public = (words(build_card(repository, version, public=flag)) for flag in (False, True))
    assert "/home/ann/faces" in private
    assert "--checkpoint 5 " in private
    assert "ann" not in public
    assert repository.history("tiny")[0].by not in public


def test_an_unjudged_candidate_and_a_failed_one_say_so(tmp_path: Path) -> None:
    """What was never judged has no numbers; what failed gives its reasons."""
    repository = Repository(tmp_path)
    version = publish_tiny(repository)
    told = words(build_card(repository, version, public=True))
    assert "It was never judged." in told
    assert "It is the candidate." in told
    assert "published without data" in told
    repository.add_verdict(version, fake_verdict(version, version.manifest(), passed=False))
    assert "FAIL" in words(build_card(repository, version, public=True))


def test_variants_are_listed_damaged_ones_too(tmp_path: Path) -> None:
    """One that cannot be read does not hide the card."""
    repository = promoted_repository(tmp_path)
    version = repository.resolve("tiny")
    variant = add_tiny_variant(repository, version)
    assert f"{variant.name} | " in words(build_card(repository, version, public=True))
    (variant.path / "manifest.json").write_text("{")
    assert "damaged" in words(build_card(repository, version, public=True))


def test_what_people_wrote_is_no_mark_up() -> None:
    """In HTML nothing of it is an element, in Markdown nothing of it breaks a table."""
    picture = Picture("p.png", NASTY, b"png")
    blocks = [Paragraph(NASTY), Table(("a", "b"), [(NASTY, "x")]), picture, Code(NASTY)]
    card = Card(NASTY, NASTY, [Section(NASTY, blocks)])
    assert "<script" not in to_html(card)
    text = to_markdown(card, lambda found: f"pictures/{found.name}")
    row = next(line for line in text.splitlines() if line.endswith("| x |"))
    assert row.replace("\\|", "").count("|") == 3
    assert "](pictures/p.png)" in text


def test_the_command_writes_a_page_and_its_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """card.html needs no other file; card.md names the pictures beside it."""
    promoted_repository(tmp_path / "repository")
    monkeypatch.setenv("GENSERVE_MODELS", str(tmp_path / "repository"))
    folder = tmp_path / "card"
    assert main(["card", "tiny", "-o", str(folder)]) == 0
    assert capsys.readouterr().out.strip() == str(folder / "card.html")
    page, text = (folder / "card.html").read_text(), (folder / "card.md").read_text()
    assert 'src="data:image/png;base64,' in page
    assert "](samples.png)" in text
    assert (folder / "samples.png").read_bytes().startswith(b"\x89PNG")
    assert main(["card", "nobody"]) == 2
