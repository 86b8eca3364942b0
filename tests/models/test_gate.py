"""The gate refuses each known-bad measure by the check meant for it, and passes what is good."""

import math
import re

import msgspec
import pytest

from models.binomial import Share, share_of
from models.bins import BinTest
from models.bounds import Spread
from models.errors import Invalid
from models.gate import gate, report_checks
from models.inception_score import InceptionScore
from models.measures import Comparison, Floor, Measures, Parity, WorstClass
from models.neighbours import Replay, Scores
from models.overfitting import Overfitting
from models.policy import Policy, make_policy
from models.records import Number

LABEL = "fashion-cnn@1a2b"
GOOD = Measures(
    extractor=LABEL,
    num_fake=50_000,
    num_real=10_000,
    num_neighbours=10_000,
    fd=2.2,
    fd_inf=2.0,
    se=0.1,
    trace_real=100.0,
    kid=0.002,
    kid_se=0.0001,
    scores=Scores(0.85, 0.60, 0.95, 0.80),
    class_shares=(0.45, 0.55),
    replay=Replay(0.004, 0.005, 3.0),
    pixel_replay=Replay(0.003, 0.004, 900.0),
    duplicates=0.0,
)
REAL = msgspec.structs.replace(GOOD, fd_inf=0.01, scores=Scores(0.9, 0.9, 1.0, 0.96), replay=None, pixel_replay=None)
FLOOR = Floor(measures=REAL, class_names=("bag", "coat"), class_shares=(0.5, 0.5), class_accuracy=0.92)
PARITY = Parity(ok=True, detail="golden samples agree here")
EQUAL = Comparison(role="champion", version=1, digest="c" * 64, fd_inf=2.0, delta=0.0, se=0.05)


def decide(candidate=GOOD, comparisons=(EQUAL,), policy=None, parity=PARITY):
    return gate(candidate, FLOOR, comparisons, policy or Policy(), parity)


def test_a_good_candidate_passes_with_and_without_a_champion():
    """Nothing failed: pass, without reasons."""
    for comparisons in ((), (EQUAL,), (EQUAL, msgspec.structs.replace(EQUAL, role="best", version=2))):
        decision = decide(comparisons=comparisons)
        assert (decision.decision, decision.reasons) == ("pass", ())


@pytest.mark.parametrize(
    ("gate_name", "measure", "changed"),
    [
        ("G1", f"FD_inf/Tr[{LABEL}]", {"fd_inf": 5.1}),
        ("G1", f"FD_inf/Tr[{LABEL}]", {"fd_inf": 4.9, "se": 0.1}),  # the upper bound counts, not the estimate
        ("G1", f"FD_inf/Tr[{LABEL}]", {"fd_inf": math.nan}),
        ("G3", f"precision[{LABEL}]", {"scores": Scores(0.71, 0.60, 0.95, 0.80)}),
        ("G3", f"recall[{LABEL}]", {"scores": Scores(0.85, 0.40, 0.95, 0.80)}),
        ("G3", f"coverage[{LABEL}]", {"scores": Scores(0.85, 0.60, 0.95, 0.57)}),
        ("G3", f"precision[{LABEL}]", {"scores": Scores(math.nan, 0.60, 0.95, 0.80)}),
        ("G4", f"share of bag[{LABEL}]", {"class_shares": (0.14, 0.86)}),
        ("G4", f"class accuracy[{LABEL}]", {"conditional": True, "class_accuracy": 0.86}),
        ("G4", f"class accuracy[{LABEL}]", {"conditional": True, "class_accuracy": None}),
        ("G5", f"replay[{LABEL}]", {"replay": Replay(0.018, 0.021, 3.0)}),
        ("G5", "replay[samples]", {"pixel_replay": Replay(0.05, 0.055, 900.0)}),
        ("G5", f"replay[{LABEL}]", {"replay": None}),
    ],
)
def test_one_bad_measure_is_refused_by_the_check_meant_for_it(gate_name, measure, changed):
    """Exactly one check fails, and its reason names gate, measure and limit."""
    decision = decide(msgspec.structs.replace(GOOD, **changed))
    failed = [(check.gate, check.name) for check in decision.checks if check.passed is False]
    assert decision.decision == "fail"
    assert failed == [(gate_name, measure)]
    assert len(decision.reasons) == 1
    assert decision.reasons[0].startswith(f"{gate_name} {measure} ")


def test_a_reason_can_be_acted_on():
    """It says the value, the rule and the threshold."""
    decision = decide(msgspec.structs.replace(GOOD, scores=Scores(0.41, 0.60, 0.95, 0.80)))
    assert decision.reasons == (f"G3 precision[{LABEL}] 0.410 < 0.80 x real 0.900 = 0.720",)


def test_broken_parity_is_refused():
    """G0: whatever the numbers say, a file that does not make its golden samples fails."""
    decision = decide(parity=Parity(ok=False, detail="only 31.00% of the values agree"))
    assert decision.reasons == ("G0 parity: only 31.00% of the values agree",)


@pytest.mark.parametrize(
    ("delta", "se", "fd_inf", "passes"),
    [
        (0.15, 0.02, 2.0, True),  # margin: max(10 % of 2.0, 0.002 x 100) = 0.2
        (0.15, 0.05, 2.0, False),  # not sure enough
        (0.25, 0.01, 2.0, False),
        (0.25, 0.01, 3.0, True),  # margin 0.3
        (0.15, 0.01, 0.5, True),  # the absolute margin holds where the champion is very good
        (-1.0, 0.05, 2.0, True),
        (math.nan, 0.05, 2.0, False),
    ],
)
def test_non_inferiority(delta, se, fd_inf, passes):
    """G2: delta + 1.645 SE must not exceed the margin."""
    other = msgspec.structs.replace(EQUAL, delta=delta, se=se, fd_inf=fd_inf)
    decision = decide(comparisons=(other,))
    assert (decision.decision == "pass") is passes
    assert passes or decision.reasons[0].startswith("G2 ")


def test_drifting_down_is_refused_by_the_best_ever_promoted():
    """5 % worse than the champion passes it, but not the best ever promoted that it has drifted from."""
    champion = msgspec.structs.replace(EQUAL, delta=0.1)
    best = msgspec.structs.replace(EQUAL, role="best", version=2, delta=0.4)
    assert decide(comparisons=(champion,)).decision == "pass"
    assert "best @2" in decide(comparisons=(champion, best)).reasons[0]


def test_too_few_reals_are_insufficient_unless_allowed():
    """Below 2,000 gate samples nothing passes without allow_small; a failure is still a failure."""
    small = msgspec.structs.replace(GOOD, num_real=1999)
    assert decide(small).decision == "insufficient"
    assert decide(small, policy=Policy(allow_small=True)).decision == "pass"
    assert decide(msgspec.structs.replace(small, fd_inf=9.0)).decision == "fail"
    assert decide(msgspec.structs.replace(GOOD, num_real=2000)).decision == "pass"


def test_without_classes_the_class_check_does_not_apply():
    """An extractor that knows no classes leaves G4 out and refuses nothing for it."""
    candidate = msgspec.structs.replace(GOOD, class_shares=None)
    floor = Floor(measures=REAL)
    decision = gate(candidate, floor, (), Policy(), PARITY)
    assert decision.decision == "pass"
    assert not any(check.gate == "G4" for check in decision.checks)
    assert decide(candidate).decision == "fail"  # missing where the reals have it


def test_numbers_keep_real_against_real_beside_them():
    """A verdict's numbers carry the extractor's label, the outcome and real data's value; NaN is left out."""
    numbers = decide(msgspec.structs.replace(GOOD, kid=math.nan)).numbers
    assert numbers[f"precision[{LABEL}]"].threshold == pytest.approx(0.72)
    assert numbers[f"precision[{LABEL}]"].passed is True
    assert numbers[f"real precision[{LABEL}]"].value == 0.9
    assert f"KID[{LABEL}]" not in numbers
    assert msgspec.json.decode(msgspec.json.encode(numbers), type=dict[str, Number]) == numbers


def test_numbers_that_are_not_finite_are_left_out_wherever_they_stand():
    """JSON would keep them as null, and the verdict could not be read again."""
    broken = msgspec.structs.replace(REAL, fd_inf=math.nan, kid=math.inf)
    floor = msgspec.structs.replace(FLOOR, measures=broken)
    numbers = gate(msgspec.structs.replace(GOOD, se=math.nan), floor, (), Policy(), PARITY).numbers
    assert numbers[f"FD_inf[{LABEL}]"] == Number(value=2.0)
    assert f"real FD_inf[{LABEL}]" not in numbers
    assert f"real KID[{LABEL}]" not in numbers
    assert msgspec.json.decode(msgspec.json.encode(numbers), type=dict[str, Number]) == numbers


def test_an_unconditional_generator_is_asked_for_no_class():
    """Its class accuracy is neither measured nor missed."""
    assert not any(check.name.startswith("class accuracy") for check in decide().checks)


def test_what_is_reported_only_stands_beside_real_data():
    """Bins, IS, C_T and AuthPct have names and intervals, and refuse nothing."""
    collapsed = msgspec.structs.replace(
        GOOD,
        bins=BinTest(Share(0.9, 0.82, 0.95), 0.0, 100),
        twins=Share(0.05, 0.04, 0.06),
        inception_score=InceptionScore(1.5, 1.4, 1.6),
        worst_class=WorstClass("bag", 10.0, 1.0),
        overfitting=Overfitting(-30.0, Share(0.2, 0.19, 0.21), Share(0.1, 0.09, 0.11)),
    )
    real = msgspec.structs.replace(
        REAL, bins=BinTest(Share(0.05, 0.02, 0.1), 0.4, 100), twins=Share(0.004, 0.003, 0.006)
    )
    floor = msgspec.structs.replace(FLOOR, measures=real)
    decision = gate(collapsed, floor, (EQUAL,), Policy(), PARITY)
    numbers = decision.numbers
    assert decision.decision == "pass"
    assert (numbers[f"NDB/K[{LABEL}]"].value, numbers[f"real NDB/K[{LABEL}]"].value) == (0.9, 0.05)
    assert (numbers[f"near-duplicates[{LABEL}]"].high, numbers[f"real near-duplicates[{LABEL}]"].value) == (0.06, 0.004)
    assert numbers[f"IS[{LABEL}]"] == Number(value=1.5, low=1.4, high=1.6)
    assert numbers[f"worst class FD_inf/Tr[{LABEL}]"].value == pytest.approx(0.1)
    share = numbers[f"share of bag[{LABEL}]"]
    assert (share.low, share.high) == pytest.approx(share_of(22_500, 50_000)[1:])
    assert [numbers[f"{name}[{LABEL}]"].value for name in ("C_T", "C_T's AUC", "AuthPct")] == [-30.0, 0.2, 0.1]


def test_collapse_is_refused_by_near_duplicates_and_by_the_worst_class():
    """Upper bounds are held against the limits; the class at fault is named, and one all but missing refuses too."""
    for changed, reason in (
        ({"twins": Share(0.095, 0.09, 0.101)}, rf"G4 near-duplicates\[{LABEL}\] 0\.095, upper bound 0\.101 > 0\.1"),
        ({"worst_class": WorstClass("bag", 14.0, 1.0)}, r"G4 worst class .* > 0\.15 \(bag\)"),
        ({"worst_class": WorstClass("bag", float("nan"), float("nan"))}, r"G4 worst class .* \(bag\)"),
    ):
        decision = gate(msgspec.structs.replace(GOOD, **changed), FLOOR, (EQUAL,), Policy(), PARITY)
        assert decision.decision == "fail"
        (told,) = decision.reasons
        assert re.match(reason, told), told


def test_bounds_near_zero_are_not_the_standard_errors():
    """Where a measure brings its spread, intervals and G1 go by that."""
    candidate = msgspec.structs.replace(GOOD, fd_spread=Spread(2.0, 0.01, 5.0), kid_spread=Spread(0.002, 1e-8, 0.0))
    numbers = decide(candidate).numbers
    assert numbers[f"FD_inf/Tr[{LABEL}]"].high == pytest.approx(Spread(2.0, 0.01, 5.0).bound(1.645) / 100)
    assert numbers[f"FD_inf/Tr[{LABEL}]"].passed is False
    assert numbers[f"KID[{LABEL}]"].low == pytest.approx(0.002 - 1.96e-4)


def test_a_report_decides_nothing():
    """The same numbers without thresholds or outcomes."""
    checks = report_checks(GOOD, FLOOR)
    assert {check.name for check in checks} >= {f"FD_inf[{LABEL}]", f"recall[{LABEL}]", f"replay[{LABEL}]"}
    assert all((check.threshold, check.passed) == (None, None) for check in checks)


def test_policies_hash_by_their_content():
    """Equal policies have equal hashes, any changed threshold another; unknown and impossible ones are refused."""
    assert make_policy({"max_fd": 0.05}).hash == Policy().hash
    assert make_policy({"max_fd": 0.06}).hash != Policy().hash
    for changed, field in (({"max_fdd": 1}, "policy"), ({"max_fd": -1.0}, "max_fd"), ({"num_fake": 5}, "num_fake")):
        with pytest.raises(Invalid, match=field):
            make_policy(changed)
