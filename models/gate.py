"""Decides whether a generator may be promoted: a pure function of numbers. Knows no files, generators or extractors.

G0 parity, G1 absolute quality, G2 no worse than the champion and the best ever promoted, G3 precision, recall and
coverage against real data's own, G4 class shares (and classes asked for) or, of vectors, shares of regions, G5 replayed
training samples. A number that is missing where it is needed, or NaN, refuses.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import msgspec

from models.binomial import Share, share_of
from models.labels import distance
from models.measures import Comparison, Floor, Measures, Parity, WorstClass
from models.neighbours import Replay
from models.policy import Policy
from models.records import Number

CLASS_SHARE = "share of "  # begins the name of each class's share
REGION = "thinnest region"  # of vectors

Z_TWO_SIDED = 1.96  # standard errors to either side of a 95 % interval

DecisionName = Literal["pass", "fail", "insufficient"]


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One number, and how it was judged.

    Args:
        gate: "G0" .. "G5"; "" for a number that is reported only.
        name: of the measure, with its extractor: "FD_inf[fashion-cnn@1a2b]"; see models.labels for FID.
        value: measured.
        low: of its interval.
        high: of its interval; what is compared, where there is one and small is good.
        real: the same measure of real data in the candidate's place.
        threshold: what it was held against.
        passed: None where there is nothing to pass.
        reason: why it failed, in one sentence; "" otherwise.
    """

    gate: str
    name: str
    value: float
    low: float | None = None
    high: float | None = None
    real: float | None = None
    threshold: float | None = None
    passed: bool | None = None
    reason: str = ""


class Thinnest(NamedTuple):
    """The region of the data that fakes most surely leave out.

    Args:
        region: its number.
        share: of the fakes in it, over that of the reals.
        upper: bound of that.
    """

    region: int
    share: float
    upper: float


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What the gate says.

    Args:
        decision: "pass", "fail", or "insufficient" where nothing failed but the reals are too few to say.
        reasons: each failed check's, and each thing that could not be checked; for a person.
        checks: all numbers, in the order of the gates.
    """

    decision: DecisionName
    reasons: tuple[str, ...]
    checks: tuple[Check, ...]

    @property
    def numbers(self) -> dict[str, Number]:
        """The checks as a verdict keeps them."""
        return numbers(self.checks)


def gate(
    candidate: Measures, floor: Floor, comparisons: Sequence[Comparison], policy: Policy, parity: Parity
) -> Decision:
    """Judge a candidate.

    Args:
        candidate: measured on the gate split.
        floor: real data in its place, on the same split.
        comparisons: with the champion and the best version ever promoted; none for a first version.
        policy: the thresholds.
        parity: of the published file on this machine.

    Returns:
        The decision; it is a pass only if no check failed and there were reals enough.
    """
    checks = (
        _parity(parity),
        *_quality(candidate, floor, policy),
        *_no_worse(candidate, comparisons, policy),
        *_floors(candidate, floor, policy),
        *_collapse(candidate, floor, policy),
        *_classes(candidate, floor, policy),
        *_regions(candidate, floor, policy),
        *_replay(candidate, policy),
    )
    failed = tuple(check.reason for check in checks if check.passed is False)
    if failed:
        return Decision(decision="fail", reasons=failed, checks=checks)
    if candidate.num_real < policy.min_gate_samples and not policy.allow_small:
        reason = f"the gate split has {candidate.num_real} samples, {policy.min_gate_samples} are needed to say"
        return Decision(decision="insufficient", reasons=(reason,), checks=checks)
    return Decision(decision="pass", reasons=(), checks=checks)


def report_checks(candidate: Measures, floor: Floor) -> tuple[Check, ...]:
    """The same numbers without thresholds: for an evaluation, which decides nothing."""
    policy = Policy()
    checks = (
        *_quality(candidate, floor, policy),
        *_floors(candidate, floor, policy),
        *_collapse(candidate, floor, policy),
        *_classes(candidate, floor, policy),
        *_regions(candidate, floor, policy),
        *_replay(candidate, policy),
    )
    return tuple(msgspec.structs.replace(check, gate="", threshold=None, passed=None, reason="") for check in checks)


def numbers(checks: Sequence[Check]) -> dict[str, Number]:
    """Checks by name as a verdict keeps them, each followed by real against real under "real NAME".

    What is not finite is left out, since JSON cannot say it; the reasons name it.
    """
    kept = {}
    for check in checks:
        if not math.isfinite(check.value):
            continue
        kept[check.name] = Number(
            value=check.value,
            low=_finite(check.low),
            high=_finite(check.high),
            threshold=_finite(check.threshold),
            passed=check.passed,
        )
        if (real := _finite(check.real)) is not None:
            kept[f"real {check.name}"] = Number(value=real)
    return kept


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


# The gates. Each yields its checks; comparisons are written so that NaN fails.


def _parity(parity: Parity) -> Check:
    reason = "" if parity.ok else f"G0 parity: {parity.detail}"
    return Check(gate="G0", name="parity", value=float(parity.ok), threshold=1.0, passed=parity.ok, reason=reason)


def _quality(candidate: Measures, floor: Floor, policy: Policy) -> Iterator[Check]:
    """G1: the upper bound of FD_inf / Tr S_real, FD_inf + 1.645 SE away from 0."""
    label, real, scale = candidate.extractor, floor.measures, candidate.trace_real
    yield Check(gate="", name=distance("FD", label), value=candidate.fd, real=real.fd)
    yield Check(
        gate="", name=distance("FD_inf", label), value=candidate.fd_inf, real=real.fd_inf,
        low=candidate.fd_bound(-Z_TWO_SIDED), high=candidate.fd_bound(Z_TWO_SIDED),
    )  # fmt: skip
    upper = candidate.fd_bound(policy.z_one_sided) / scale
    yield _at_most(
        "G1", distance("FD_inf/Tr", label), candidate.fd_inf / scale, upper, policy.max_fd, real=real.fd_inf / scale
    )
    yield Check(
        gate="", name=f"KID[{label}]", value=candidate.kid, real=real.kid,
        low=candidate.kid_bound(-Z_TWO_SIDED), high=candidate.kid_bound(Z_TWO_SIDED),
    )  # fmt: skip
    if (score := candidate.inception_score) is not None:
        best = None if real.inception_score is None else real.inception_score.value
        yield Check(gate="", name=f"IS[{label}]", value=score.value, low=score.low, high=score.high, real=best)


def _no_worse(candidate: Measures, comparisons: Sequence[Comparison], policy: Policy) -> Iterator[Check]:
    """G2: delta + 1.645 SE_delta against max(10 % of the other's FD_inf, 0.002 Tr S_real)."""
    for other in comparisons:
        margin = max(policy.margin_relative * other.fd_inf, policy.margin_absolute * candidate.trace_real)
        upper = other.delta + policy.z_one_sided * other.se
        name = f"{distance('FD_inf', candidate.extractor)} - {other.role} @{other.version}'s"
        yield _at_most("G2", name, other.delta, upper, margin)


def _floors(candidate: Measures, floor: Floor, policy: Policy) -> Iterator[Check]:
    """G3: precision, recall and coverage as shares of real against real's."""
    label, scores, real = candidate.extractor, candidate.scores, floor.measures.scores
    shares = (policy.min_precision, policy.min_recall, None, policy.min_coverage)
    for measure, value, best, share in zip(scores._fields, scores, real, shares, strict=True):
        name = f"{measure}[{label}]"
        if share is None:
            yield Check(gate="", name=name, value=value, real=best)
            continue
        yield _at_least("G3", name, value, best, share)


def _collapse(candidate: Measures, floor: Floor, policy: Policy) -> Iterator[Check]:
    """G4: near-duplicates among the fakes; reported, bins that hold another share of fakes than of reals (NDB / K).

    NDB has no value free of the number of samples: with many of them every bin differs, so that nothing is asked of it.
    """
    real = floor.measures
    if candidate.bins is not None:
        best = None if real.bins is None else real.bins.different
        yield _share(f"NDB/K[{candidate.extractor}]", candidate.bins.different, best)
    if (twins := candidate.twins) is not None:
        best_share = None if real.twins is None else real.twins.value
        name = f"near-duplicates[{candidate.extractor}]"
        yield _at_most("G4", name, twins.value, twins.high, policy.max_near_duplicates, real=best_share)


def _classes(candidate: Measures, floor: Floor, policy: Policy) -> Iterator[Check]:
    """G4: no class below half of its real share; classes asked for are recognised about as often as real ones."""
    if floor.class_shares is not None and floor.class_names is not None:
        shares = candidate.class_shares or (math.nan,) * len(floor.class_names)
        for name, value, real in zip(floor.class_names, shares, floor.class_shares, strict=True):
            named = f"{CLASS_SHARE}{name}[{candidate.extractor}]"
            yield _counted(_at_least("G4", named, value, real, policy.min_class_share), candidate.num_fake)
    if (worst := candidate.worst_class) is not None:
        yield _worst_class(candidate, worst, floor, policy)
    if candidate.conditional and floor.class_accuracy is not None:
        yield _class_accuracy(candidate, floor.class_accuracy, policy)


def _worst_class(candidate: Measures, worst: WorstClass, floor: Floor, policy: Policy) -> Check:
    """G4: its FD_inf as a share of the variance of all reals; NaN, which fails, where it is all but missing."""
    scale, real = candidate.trace_real, floor.measures.worst_class  # of real data it may be another class
    check = _at_most(
        "G4", f"worst class {distance('FD_inf/Tr', candidate.extractor)}", worst.fd_inf / scale,
        (worst.fd_inf + policy.z_one_sided * worst.se) / scale, policy.max_worst_class,
        real=None if real is None else real.fd_inf / scale,
    )  # fmt: skip
    return msgspec.structs.replace(check, reason=f"{check.reason} ({worst.name})") if check.reason else check


def _regions(candidate: Measures, floor: Floor, policy: Policy) -> Iterator[Check]:
    """G4 of vectors: no region of the data has surely less than 0.4 of its real share."""
    if floor.region_counts is None or floor.region_names is None:
        return
    found = thinnest(candidate.region_counts, floor.region_counts, policy.z_one_sided)
    best = thinnest(floor.measures.region_counts, floor.region_counts, policy.z_one_sided)
    passed, name, reason = found.upper >= policy.min_region_share, f"{REGION}[{candidate.extractor}]", ""
    if not passed:
        reason = (
            f"G4 {name}: the region {floor.region_names[found.region]} has {found.share:.2f} of its real share, upper "
            f"bound {found.upper:.2f} < {policy.min_region_share:.2f}"
        )
    yield Check(
        gate="G4", name=name, value=found.share, high=found.upper, real=best.share, threshold=policy.min_region_share,
        passed=passed, reason=reason,
    )  # fmt: skip


def thinnest(fakes: Sequence[int] | None, reals: Sequence[int], z: float) -> Thinnest:
    """The region with the lowest upper bound of the fakes' share over the reals'; NaN without counts of fakes.

    The bound is the normal one of the ratio's logarithm (Katz et al. 1978); no fakes count as half a one. Regions
    without reals say nothing.

    Args:
        fakes: in each region.
        reals: in each region.
        z: standard errors.
    """
    known = [i for i, count in enumerate(reals) if count]
    if fakes is None or not sum(fakes) or not known:
        return Thinnest(0, math.nan, math.nan)
    scale = sum(reals) / sum(fakes)

    def bound(i: int) -> Thinnest:
        count = max(fakes[i], 0.5)
        upper = scale * count / reals[i] * math.exp(z * math.sqrt(1 / count + 1 / reals[i]))
        return Thinnest(i, scale * fakes[i] / reals[i], upper)

    return min((bound(i) for i in known), key=lambda found: found.upper)


def _class_accuracy(candidate: Measures, real: float, policy: Policy) -> Check:
    """NaN, which fails, where the generator's classes are not the data's: nobody knows what it was asked for."""
    value = math.nan if candidate.class_accuracy is None else candidate.class_accuracy
    threshold = real - policy.max_class_accuracy_loss
    passed = value >= threshold
    name, reason = f"class accuracy[{candidate.extractor}]", ""
    if math.isnan(value):
        reason = f"G4 {name} cannot be measured: the generator's classes are not named as the data's"
    elif not passed:
        reason = f"G4 {name} {value:.3f} < {threshold:.3f} (real {real:.3f} and a margin)"
    check = Check(gate="G4", name=name, value=value, real=real, threshold=threshold, passed=passed, reason=reason)
    return _counted(check, candidate.num_fake)


def _counted(check: Check, total: int) -> Check:
    """The check of a share of so many samples with its interval."""
    if math.isnan(check.value):
        return check
    interval = share_of(round(check.value * total), total)
    return msgspec.structs.replace(check, low=interval.low, high=interval.high)


def _replay(candidate: Measures, policy: Policy) -> Iterator[Check]:
    """G5: the upper bound of the share of fakes that lie nearer to the training set than held-out samples do."""
    spaces: tuple[tuple[str, Replay | None], ...] = (
        (f"replay[{candidate.extractor}]", candidate.replay),
        ("replay[samples]", candidate.pixel_replay),
    )
    for name, found in spaces:
        value, upper = (found.share, found.upper) if found is not None else (math.nan, math.nan)
        yield _at_most("G5", name, value, upper, policy.max_replay)
    if candidate.duplicates is not None:
        yield Check(gate="", name="exact copies", value=candidate.duplicates)
    if (overfitting := candidate.overfitting) is not None:
        yield Check(gate="", name=f"C_T[{candidate.extractor}]", value=overfitting.c_t)
        yield _share(f"C_T's AUC[{candidate.extractor}]", overfitting.auc)
        yield _share(f"AuthPct[{candidate.extractor}]", overfitting.authentic)


def _share(name: str, share: Share, real: Share | None = None) -> Check:
    """A share with its interval, reported only."""
    return Check(
        gate="", name=name, value=share.value, low=share.low, high=share.high, real=None if real is None else real.value
    )


def _at_least(gate: str, name: str, value: float, real: float, share: float) -> Check:
    """A check that a value reaches a share of what real data has in its place."""
    threshold = share * real
    passed = value >= threshold
    reason = "" if passed else f"{gate} {name} {value:.3f} < {share:.2f} x real {real:.3f} = {threshold:.3f}"
    return Check(gate=gate, name=name, value=value, real=real, threshold=threshold, passed=passed, reason=reason)


def _at_most(gate: str, name: str, value: float, upper: float, limit: float, *, real: float | None = None) -> Check:
    """A check that the upper bound of a value does not exceed a limit."""
    passed = upper <= limit
    reason = "" if passed else f"{gate} {name} {value:.4g}, upper bound {upper:.4g} > {limit:.4g}"
    return Check(
        gate=gate, name=name, value=value, high=upper, real=real, threshold=limit, passed=passed, reason=reason
    )
