"""history.jsonl as bytes: each line seals all that stands before it, and may be signed. Knows no files.

`previous` of a line is the sha256 of everything before it, so whoever signs a line signs the whole history up to it.
Lines that were written before there were seals have none, and are covered by the first one that has.
"""

import functools
import hashlib
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from models.errors import LoadError
from models.keys import SigningKey, verifies
from models.records import Event

CONTEXT = "genserve event 1"  # what a signature of a line is for, and the format of what is signed
PROMOTIONS = ("promoted", "rolled back")


class Line(NamedTuple):
    """A line of a history, checked.

    Args:
        event: what it says.
        fault: why it is not as it was written; None where nothing speaks against it.
        vouched: whether a trusted key signed it, or signed for all before itself later ("vouched").
    """

    event: Event
    fault: str | None
    vouched: bool


def seal(name: str, before: bytes, event: Event, key: SigningKey | None) -> Event:
    """An event as it goes into a history.

    Args:
        name: of the model.
        before: the history so far, with the end of its last line.
        event: what happened.
        key: that signs it; None leaves it unsigned.
    """
    sealed = msgspec.structs.replace(event, previous=hashlib.sha256(before).hexdigest())
    if key is None:
        return sealed
    sealed = msgspec.structs.replace(sealed, key=key.public)
    return msgspec.structs.replace(sealed, signature=key.sign(_message(name, sealed)))


def read_events(name: str, lines: Iterable[bytes]) -> list[Event]:
    """What the lines of a history say, unchecked.

    Raises:
        LoadError: a line is no event.
    """
    try:
        return [msgspec.json.decode(line, type=Event) for line in lines]
    except msgspec.DecodeError as error:
        raise LoadError(f"{name}/history.jsonl is damaged: {error}") from error


@functools.lru_cache(maxsize=256)  # servers look every few seconds at what rarely changes
def check_lines(name: str, lines: tuple[bytes, ...], trusted: frozenset[str] | None) -> tuple[Line, ...]:
    """Check a history's seals and signatures.

    A trusted key's event "vouched" makes good whatever stands before it, as it stands.

    Args:
        name: of the model.
        lines: without their ends.
        trusted: public keys; None for any.

    Raises:
        LoadError: a line is no event.
    """
    before, sealed = hashlib.sha256(), False
    checked: list[Line] = []
    for event, line in zip(read_events(name, lines), lines, strict=True):
        fault = _fault(name, event, line, before.hexdigest(), sealed)
        signed = fault is None and event.key is not None and (trusted is None or event.key in trusted)
        if signed and event.event == "vouched":
            checked = [Line(earlier.event, None, True) for earlier in checked]
        checked.append(Line(event, fault, signed))
        before.update(line + b"\n")
        sealed = event.previous is not None
    return tuple(checked)


def standing(lines: Iterable[Line]) -> list[Event]:
    """What counts for who trusts keys only: all events but promotions that none of them vouches for."""
    return [line.event for line in lines if line.vouched or line.event.event not in PROMOTIONS]


def first_fault(name: str, lines: Iterable[Line]) -> str | None:
    """The first line that is not as it was written; None where all are."""
    for number, line in enumerate(lines, 1):
        if line.fault is not None:
            return f"{name}/history.jsonl line {number}: {line.fault}"
    return None


def _fault(name: str, event: Event, line: bytes, before: str, sealed: bool) -> str | None:
    """What is wrong with a line, where `before` is the sha256 of all before it, of which the last is `sealed`."""
    if event.previous is None:
        if sealed or event.key is not None or event.signature is not None:
            return "it has no seal, though a line before it has one"
        return None
    if event.previous != before:
        return "what stands before it was changed"
    if msgspec.json.encode(event) != line:
        return "it is not as it was written"
    if event.key is None and event.signature is None:
        return None
    unsigned = msgspec.structs.replace(event, signature=None)
    if (
        event.key is None
        or event.signature is None
        or not verifies(event.key, event.signature, _message(name, unsigned))
    ):
        return "its signature does not hold"
    return None


def _message(name: str, event: Event) -> bytes:
    """What is signed: the line without its signature, and whose it is."""
    return f"{CONTEXT}\n{name}\n".encode() + msgspec.json.encode(event)
