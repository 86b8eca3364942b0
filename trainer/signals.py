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
        left_out: share of real ones of kinds (k-means clusters) that samples have less than a fifth of; None where that
            was not measured.
        retrained: held-out accuracy of a fresh D against the frozen G; None where none was trained.
        compared: samples behind these shares, and real ones; 0 where that was not kept.
    """

    precision: float
    recall: float
    coverage: float
    spread: float
    duplicates: float
    copies: float
    copies_by_chance: float
    left_out: float | None = None
    retrained: float | None = None
    compared: int = 0


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """How near a snapshot's samples are to the validation split.

    Args:
        fd: Frechet distance in the extractor's features.
        share: fd divided by the trace of the real features' covariance.
        extractor: its label, name@digest.
    """

    fd: float
    share: float
    extractor: str


class Stats(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of stats.jsonl; the means are over the steps since the line before.

    Args:
        kimg: thousands of real images shown so far.
        d_loss: of D, without a regulariser.
        g_loss: of G.
        d_real: D(x), as the objective shows it (trainer.objectives.Objective.shown).
        d_fake: D(G(z)), likewise.
        d_norm: |grad| of D's objective by all its weights.
        g_norm: of G's.
        images_per_second: real images shown.
        score: of the snapshot at this kimg; only on a snapshot's line.
        snapshot_seconds: that the snapshot took; likewise.
        d_accuracy: of D on held-out samples, at the end of the tick (Probe).
        d_accuracy_seen: on training samples, likewise.
        pull: of D on G, likewise.
        checkup: of the snapshot's samples.
        verdicts: on the run so far, by their names.
        fault: why training ended here: what is not finite, and at which step.
    """

    kimg: float
    d_loss: float | None = None
    g_loss: float | None = None
    d_real: float | None = None
    d_fake: float | None = None
    d_norm: float | None = None
    g_norm: float | None = None
    images_per_second: float | None = None
    score: Score | None = None
    snapshot_seconds: float | None = None
    d_accuracy: float | None = None
    d_accuracy_seen: float | None = None
    pull: float | None = None
    checkup: Checkup | None = None
    verdicts: tuple[str, ...] = ()
    fault: str | None = None
