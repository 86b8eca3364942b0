"""A history's lines seal what stands before them; a trusted key vouches for promotions, or for everything so far."""

import msgspec
import pytest

from models.errors import LoadError
from models.history import check_lines, first_fault, read_events, seal, standing
from models.keys import SigningKey, make_key
from models.records import Event

KEY, OTHER = make_key(), make_key()
TRUSTED = frozenset({KEY.public})


def event(kind: str, version: int = 1, **more: object) -> Event:
    return Event(event=kind, version=version, when="2027-01-01T00:00:00+00:00", by="a@b", **more)  # type: ignore[arg-type]


def written(*events: tuple[Event, SigningKey | None], legacy: tuple[Event, ...] = ()) -> list[bytes]:
    lines = [msgspec.json.encode(old) for old in legacy]
    for happened, key in events:
        lines.append(msgspec.json.encode(seal("tiny", b"".join(line + b"\n" for line in lines), happened, key)))
    return lines


def faults(lines: list[bytes], trusted: frozenset[str] | None = TRUSTED, name: str = "tiny") -> list[str | None]:
    return [line.fault for line in check_lines(name, tuple(lines), trusted)]


def champions(lines: list[bytes]) -> list[int]:
    return [e.version for e in standing(check_lines("tiny", tuple(lines), TRUSTED)) if e.event == "promoted"]


def test_every_byte_of_a_signed_history_counts() -> None:
    """Another value in any byte: the line is no event any more, or a line from there on is at fault."""
    lines = written((event("published"), KEY), (event("promoted", why="x"), KEY))
    assert faults(lines) == [None, None]
    for number, line in enumerate(lines):
        for place in range(len(line)):
            changed = [*lines]
            changed[number] = line[:place] + bytes([line[place] ^ 1]) + line[place + 1 :]
            try:
                assert any(faults(changed)[number:]), (number, place)
            except LoadError:
                continue


def test_a_line_of_another_models_history_is_none() -> None:
    """The name is signed with it."""
    lines = written((event("promoted"), KEY))
    assert faults(lines, name="other") == ["its signature does not hold"]


def test_lines_cannot_be_left_out_or_swapped() -> None:
    """Each knows what stands before it; the error names the line."""
    lines = written((event("published"), KEY), (event("judged"), KEY), (event("promoted"), KEY))
    assert faults([lines[0], lines[2]]) == [None, "what stands before it was changed"]
    swapped = [lines[1], lines[0], lines[2]]
    told = first_fault("tiny", check_lines("tiny", tuple(swapped), TRUSTED))
    assert told == "tiny/history.jsonl line 1: what stands before it was changed"


def test_lines_from_before_there_were_seals_are_covered_by_the_first_that_has_one() -> None:
    """And none without a seal may follow it."""
    lines = written((event("promoted"), KEY), legacy=(event("published"),))
    assert faults(lines) == [None, None]
    assert faults([lines[0].replace(b"a@b", b"c@d"), lines[1]])[1] == "what stands before it was changed"
    assert faults([*lines, msgspec.json.encode(event("promoted", 2))])[2] is not None


def test_promotions_count_where_a_trusted_key_signed_them() -> None:
    """Unsigned ones and those by another key are passed over, though the lines are as they were written."""
    lines = written((event("promoted", 1), KEY), (event("promoted", 2), None), (event("promoted", 3), OTHER))
    assert faults(lines) == [None, None, None]
    assert champions(lines) == [1]
    more = written((event("promoted", 1), KEY), (event("promoted", 2), None), (event("judged", 2), KEY))
    assert champions(more) == [1]  # signing what comes later is no word on what came before


def test_a_trusted_key_can_vouch_for_everything_so_far() -> None:
    """Unsigned and damaged lines before it are good as they stand; another key's word is not taken."""
    before = ((event("promoted", 1), None), (event("promoted", 2), OTHER))
    assert champions(written(*before, (event("vouched", 2), KEY))) == [1, 2]
    assert champions(written(*before, (event("vouched", 2), OTHER))) == []
    assert champions(written(*before, (event("vouched", 2), None))) == []
    damaged = [line.replace(b"a@b", b"c@d") for line in written(*before)]
    assert any(faults(damaged))
    sealed = seal("tiny", b"".join(line + b"\n" for line in damaged), event("vouched", 2), KEY)
    assert faults([*damaged, msgspec.json.encode(sealed)]) == [None, None, None]


def test_a_signature_without_a_key_is_a_fault() -> None:
    """And so is a key without a signature."""
    signed = seal("tiny", b"", event("promoted"), KEY)
    for lacking in ("key", "signature"):
        line = msgspec.json.encode(msgspec.structs.replace(signed, **{lacking: None}))
        assert faults([line]) == ["its signature does not hold"]


def test_a_line_that_is_no_event_is_named() -> None:
    """With its file."""
    with pytest.raises(LoadError, match=r"tiny/history\.jsonl is damaged"):
        read_events("tiny", [b"{"])
