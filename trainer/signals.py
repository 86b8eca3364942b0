"""What is measured of a run so that it can be diagnosed, as plain values. Knows neither how nor what it means."""

from typing import NamedTuple

import msgspec


class Probe(NamedTuple):
    """D as it stands, against G as it stands.

    Args:
        d_accuracy: share of held-out real and generated samples that D tells rightly; 1/2 is chance.
        d_accuracy_seen: the same with training samples in the place of held-out ones.
        pull: mean of |d(G's loss) / d(D's output)| over the samples: what of D's judgement reaches G.
    """

    d_accuracy: float
    d_accuracy_seen: float
    pull: float


class Checkup(msgspec.Struct, frozen=True, kw_only=True):
    """What the samples of a snapshot are like, beside its score.

    Args:
        precision: share of samples that lie among real ones, in features (Kynkaanniemi et al. 2019).
        recall: share of real ones that lie among samples, likewise.
        coverage: share of real ones with a sample in their neighbourhood (Naeem et al. 2020).
        spread: total variance of the samples' features, over that of real ones.
        duplicates: share of samples that have a near-duplicate among the others.
        copies: share of samples far nearer to one training sample than to any other.
        copies_by_chance: the same share of training samples among the others.
        retrained: held-out accuracy of a fresh D against the frozen G; None where none was trained.
    """

    precision: float
    recall: float
    coverage: float
    spread: float
    duplicates: float
    copies: float
    copies_by_chance: float
    retrained: float | None = None


class ScoreRecord(msgspec.Struct, frozen=True):
    """Of a snapshot, as trainer.run_dir.Score is written: FD, and FD as a share of the real features' variance."""

    fd: float
    share: float
    extractor: str


class Line(msgspec.Struct, frozen=True):
    """Of stats.jsonl, as trainer.run_dir.Stats is written."""

    kimg: float
    d_loss: float | None = None
    g_loss: float | None = None
    d_real: float | None = None
    d_fake: float | None = None
    d_norm: float | None = None
    g_norm: float | None = None
    images_per_second: float | None = None
    score: ScoreRecord | None = None
    snapshot_seconds: float | None = None
    d_accuracy: float | None = None
    d_accuracy_seen: float | None = None
    pull: float | None = None
    checkup: Checkup | None = None
    verdicts: tuple[str, ...] = ()
    fault: str | None = None
