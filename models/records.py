"""The records that a model repository keeps as JSON: aliases, events, references, verdicts. Knows no files.

aliases.json is always the fold of history.jsonl, so a crash between the two is mended by folding again.
"""

from collections.abc import Iterable
from typing import Literal

import msgspec

from models.inventory import MAX_SKIPPED_SHARE


class Aliases(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which version each alias means; None where it means none.

    Args:
        champion: what serves.
        candidate: what was published last, until it is promoted.
        variants: which variant of the champion serves each provider, by the provider's full name; left out where
            there is none, so that such files are what they were before there were variants.
    """

    champion: int | None = None
    candidate: int | None = None
    variants: dict[str, str] | msgspec.UnsetType = msgspec.UNSET


class Event(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One line of history.jsonl.

    Args:
        event: what happened; "retired": the version's files were removed; "vouched": whoever signed this line answers
            for all lines before it.
        version: the version it happened to; for a promotion or rollback, the new champion.
        when: ISO 8601, UTC.
        by: who did it: user@host.
        why: a person's reason, or the decision of a verdict.
        replaced: the champion before a promotion or rollback.
        verdict: number of the verdict that was written or relied on.
        variants: of a promotion or rollback: which variant serves each provider, by the provider's full name.
        verdict_keys: public keys whose signatures of that verdict held when a promotion or rollback relied on it.
        previous: sha256 of history.jsonl before this line; see models.history.
        key: public key of whoever signed this line.
        signature: of the line without itself.
    """

    event: Literal["published", "judged", "promoted", "rolled back", "retired", "vouched"]
    version: int
    when: str
    by: str
    why: str | None = None
    replaced: int | None = None
    verdict: int | None = None
    variants: dict[str, str] = {}
    verdict_keys: tuple[str, ...] = ()
    previous: str | None = None
    key: str | None = None
    signature: str | None = None


class Reference(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a name is judged against.

    Args:
        data: the data set as it was named at publishing, for instance "fashion-mnist" or a folder.
        data_hash: sha256 of its content; the gate refuses data with another one.
        splits: number of samples in each split.
        extractor: name or path of the feature extractor.
        extractor_digest: sha256 of its ONNX file.
        policy: thresholds that differ from the gate's defaults, by name.
        resolution: that a folder of images is read at, in pixels; None lets the images decide.
        max_skipped: the largest share of a folder's images that may be broken, and are then left out.
    """

    data: str
    data_hash: str
    splits: dict[str, int]
    extractor: str
    extractor_digest: str
    policy: dict[str, float | int | bool | str | None] = {}
    resolution: int | None = None
    max_skipped: float = MAX_SKIPPED_SHARE


class Number(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A measured value with its interval, the threshold that it was held against and the outcome."""

    value: float
    low: float | None = None
    high: float | None = None
    threshold: float | None = None
    passed: bool | None = None


class Verdict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One judgement of one version: verdicts/NNN.json, append-only.

    Args:
        version: the version judged.
        digest: of the model.onnx judged.
        decision: "pass", "fail", or "insufficient" (too little data to say).
        reasons: for a person to read; every failed test says value and threshold.
        numbers: by name, each with its extractor where it has one: "FD_inf[fashion-cnn@1a2b]".
        policy: every threshold used.
        policy_hash: sha256 of the canonical policy.
        champion: the champion compared with; None when there was none.
        champion_digest: of its model.onnx.
        reference: sha256 of data and extractor.
        extractor: its label, name@digest.
        created: ISO 8601, UTC.
        code_version: of genserve.
        baseline: sha256 of the NNN.baseline.npz beside it, which servers hold fresh samples against; None for none.
        format: of this file.
    """

    version: int
    digest: str
    decision: Literal["pass", "fail", "insufficient"]
    reasons: tuple[str, ...]
    numbers: dict[str, Number]
    policy: dict[str, float | int | bool | str | None]
    policy_hash: str
    champion: int | None
    champion_digest: str | None
    reference: str
    extractor: str
    created: str
    code_version: str
    baseline: str | None = None
    format: int = 1


def fold(history: Iterable[Event]) -> Aliases:
    """The aliases that a history means: publishing makes a candidate, promotion and rollback make a champion, and a
    version that retires is no candidate.
    """
    champion: int | None = None
    candidate: int | None = None
    variants: dict[str, str] = {}
    for event in history:
        if event.event == "published":
            candidate = event.version
        elif event.event == "retired":
            candidate = None if candidate == event.version else candidate
        elif event.event in ("promoted", "rolled back"):
            champion, variants = event.version, event.variants
            candidate = None if candidate == champion else candidate
    return Aliases(champion=champion, candidate=candidate, variants=variants or msgspec.UNSET)


def retired(history: Iterable[Event]) -> frozenset[int]:
    """The versions whose files were removed."""
    return frozenset(event.version for event in history if event.event == "retired")


def promised_variants(history: Iterable[Event], version: int) -> dict[str, str]:
    """Which variant of a version serves each provider, by its last promotion; {} for a version never promoted."""
    found: dict[str, str] = {}
    for event in history:
        if event.version == version and event.event in ("promoted", "rolled back"):
            found = event.variants
    return found
