"""From signals to verdicts: the rules on made-up runs, what is measured on made-up samples, and short real runs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from genserve.cli import main
from models.datasets import load_dataset
from models.extractors import resolve_extractor
from models.standardising import standardisation
from tests.trainer.conftest import SHAPE
from tests.trainer.test_runs import equal
from trainer import checkups, retraining, watching
from trainer.checkups import Examiner
from trainer.config import Config, make_config
from trainer.diagnosis import (
    COLLAPSE,
    DIVERGED,
    EQUILIBRIUM,
    MEMORISING,
    OSCILLATION,
    TOO_EARLY,
    TOO_STRONG,
    TOO_WEAK,
    TRAINING,
    diagnose,
)
from trainer.finite import Diverged, require_sane_samples
from trainer.loop import Trainer
from trainer.network_parts import Generator
from trainer.networks import make_generator
from trainer.progress import Meter
from trainer.recipes import recipe
from trainer.retraining import Reals, accuracy, retrained_accuracy
from trainer.run_dir import Run, RunDir
from trainer.run_records import RunRecord
from trainer.signals import Checkup, Score, Stats
from trainer.signatures import signature_of
from trainer.state import State
from trainer.watching import Watch

GOOD = Checkup(precision=0.8, recall=0.7, coverage=0.8, spread=1.0, duplicates=0.0, copies=0.01, copies_by_chance=0.01)


def a_run(
    tick: Callable[[int], dict[str, Any]] = lambda i: {},
    checkup: Callable[[int], dict[str, Any]] = lambda i: {},
    share: Callable[[int], float] = lambda i: 0.5 / (i + 1),
    snapshots: int = 8,
) -> list[Stats]:
    """Snapshots with five ticks before each, healthy but for what is said."""
    lines = []
    for i in range(snapshots):
        for j in range(5):
            values = {"d_loss": 1.0, "g_loss": 1.2, "d_real": 0.6, "d_fake": 0.4, "d_norm": 0.5, "g_norm": 0.3}
            values |= {"d_accuracy": 0.8, "d_accuracy_seen": 0.82, "pull": 0.6}
            lines.append(Stats(kimg=10.0 * i + 2 * j + 2, **{**values, **tick(5 * i + j)}))
        score = Score(fd=1.0, share=share(i), extractor="e@1")
        lines.append(Stats(kimg=10.0 * i + 10, score=score, checkup=msgspec.structs.replace(GOOD, **checkup(i))))
    return lines


def said(lines: list[Stats], loss: str = "non-saturating") -> list[str]:
    """The verdicts' names."""
    return [verdict.name for verdict in diagnose(lines, loss)]


# The rules.


def test_a_healthy_run_is_training() -> None:
    """And before two snapshots nothing can be said of it."""
    assert said(a_run()) == [TRAINING]
    assert said(a_run()[:6]) == [TOO_EARLY]
    assert said([]) == [TOO_EARLY]


CASES: dict[str, list[Stats]] = {
    DIVERGED: a_run(tick=lambda i: {"g_norm": 10.0 ** (i / 4), "g_loss": 10.0 ** (i / 4)}),
    TOO_STRONG: a_run(
        tick=lambda i: {"d_accuracy": 0.999, "pull": 1.0, "d_loss": 0.1},
        checkup=lambda i: {"precision": 0.0, "coverage": 0.0},
        share=lambda i: 2.0,
    ),
    TOO_WEAK: a_run(tick=lambda i: {"d_accuracy": 0.5}, checkup=lambda i: {"retrained": 0.97}),
    COLLAPSE: a_run(checkup=lambda i: {"precision": 0.7, "left_out": 0.45}, share=lambda i: 0.5),
    OSCILLATION: a_run(tick=lambda i: {"d_loss": 1.0 + 0.6 * (-1) ** (i // 2)}),
    MEMORISING: a_run(checkup=lambda i: {"copies": 0.8}),
    EQUILIBRIUM: a_run(tick=lambda i: {"d_accuracy": 0.5}, checkup=lambda i: {"retrained": 0.52}),
}


@pytest.mark.parametrize("name", CASES)
def test_each_state_has_its_name(name: str) -> None:
    """Once it lasts, and with its numbers as evidence; what is an alarm says what to try."""
    assert said(CASES[name]) == [name]
    (verdict,) = diagnose(CASES[name], "non-saturating")
    assert any(sign.isdigit() for sign in verdict.evidence)
    assert verdict.alarm == bool(verdict.advice) == (name != EQUILIBRIUM)


@pytest.mark.parametrize("name", sorted(set(CASES) - {DIVERGED}))
def test_what_passes_is_not_named(name: str) -> None:
    """The same signs at the beginning of a run that is healthy afterwards."""
    begun, later = CASES[name][:12], a_run()[12:]
    assert said([*begun, *later]) == [TRAINING]


def test_a_number_that_is_not_finite_is_the_only_verdict() -> None:
    """With the step and the tensor; a run that was resumed after it is judged by what came since."""
    fault = Stats(kimg=80.0, fault="step 15: to_image.bias of G is not finite")
    lines = [*CASES[COLLAPSE], fault]
    (verdict,) = diagnose(lines, "hinge")
    assert (verdict.name, verdict.evidence) == (DIVERGED, "Step 15: to_image.bias of G is not finite.")
    assert said([*lines, *a_run()]) == [TRAINING]


def test_a_vanished_gradient_is_seen_before_any_score() -> None:
    """The minimax G gets sigmoid(l) of what D says of its fakes: nothing, once D is sure."""
    lines = a_run(tick=lambda i: {"d_accuracy": 0.99, "pull": 0.004, "d_loss": 0.1}, snapshots=2)
    (verdict,) = diagnose(lines, "minimax")
    assert verdict.name == TOO_STRONG
    assert "vanished" in verdict.evidence
    assert "non-saturating" in verdict.advice


def test_a_g_that_no_gradient_reaches_is_seen_before_any_score() -> None:
    """Its loss asks for the opposite with full force, and its outputs are so saturated that nothing of it arrives."""
    lines = a_run(tick=lambda i: {"d_accuracy": 1.0, "pull": 0.99, "d_loss": 0.005, "g_norm": 1e-9}, snapshots=2)
    (verdict,) = diagnose(lines, "relativistic")
    assert verdict.name == TOO_STRONG
    assert "no weight moves" in verdict.evidence
    small = a_run(tick=lambda i: {"d_accuracy": 1.0, "pull": 0.99, "d_loss": 0.005, "g_norm": 1e-4}, snapshots=2)
    assert said(small, "relativistic") == [TRAINING]


def test_a_strong_d_whose_g_still_learns_is_no_alarm() -> None:
    """Most good runs on images look so: D tells 99 %, and FD falls."""
    assert said(a_run(tick=lambda i: {"d_accuracy": 0.99, "d_loss": 0.1})) == [TRAINING]


def test_a_d_that_says_one_half_is_no_equilibrium() -> None:
    """Dead or not, only a fresh D can say: without one, or with one that tells them apart, it is not called so."""
    shown = {"d_accuracy": 0.5, "d_real": 0.5, "d_fake": 0.5, "pull": 0.5}
    assert said(a_run(tick=lambda i: shown)) == [TRAINING]
    assert said(a_run(tick=lambda i: shown, checkup=lambda i: {"retrained": 0.6})) == [TRAINING]
    assert said(a_run(tick=lambda i: shown, checkup=lambda i: {"retrained": 0.9})) == [TOO_WEAK]


@pytest.mark.parametrize("found", [{"precision": 0.018}, {"coverage": 0.044}])
def test_samples_that_are_elsewhere_are_no_equilibrium(found: dict[str, float]) -> None:
    """Whatever a fresh D says of them: in older runs it was as small, and so as blind, as the run's own."""
    assert said(a_run(lambda i: {"d_accuracy": 0.5}, lambda i: {"retrained": 0.527, **found})) == [TRAINING]


def test_poor_samples_are_no_collapse() -> None:
    """Early samples leave nearly all out because none looks real; and a G that still gains kinds has not lost them."""
    far = {"precision": 0.02, "coverage": 0.01, "recall": 0.0, "left_out": 0.9}
    assert said(a_run(checkup=lambda i: far, share=lambda i: 2.0)) == [TRAINING]
    assert said(a_run(checkup=lambda i: {"left_out": 0.9 - 0.05 * i}, share=lambda i: 0.7**i)) == [TRAINING]
    assert said(a_run(checkup=lambda i: {"left_out": 0.9 - 0.05 * i}, share=lambda i: 0.9**i)) == [COLLAPSE]


def test_a_few_poor_kinds_are_a_collapse_unless_d_is_sure() -> None:
    """Of little variance and unlike anything: a weak D lets G make them; from a sure one G learns nothing."""
    few = {"precision": 0.0, "coverage": 0.0, "left_out": 0.9, "spread": 0.1}
    runs = [a_run(lambda i, at=at: {"d_accuracy": at}, lambda i: few, lambda i: 2.0) for at in (0.3, 0.99)]  # type: ignore[misc]
    assert [said(run) for run in runs] == [[COLLAPSE], [TRAINING]]
    assert said(a_run(checkup=lambda i: {**few, "spread": 0.8}, share=lambda i: 2.0)) == [TRAINING]


def test_without_scores_a_collapse_is_told_by_what_is_left_out() -> None:
    """It stays, or it becomes less: data without an extractor of their own have no FD."""
    stays, falls = a_run(checkup=lambda i: {"left_out": 0.9 * 0.99**i}), a_run(checkup=lambda i: {"left_out": 0.8**i})
    stays, falls = ([msgspec.structs.replace(line, score=None) for line in run] for run in (stays, falls))
    assert said(stays) == [COLLAPSE]
    assert said(falls[: 6 * 5]) == [TRAINING]


def test_samples_that_are_all_alike_are_a_collapse_wherever_they_are() -> None:
    """Near-duplicates need not look real, nor does it help that FD falls."""
    assert said(a_run(checkup=lambda i: {"precision": 0.0, "duplicates": 0.9})) == [COLLAPSE]


def test_a_run_from_before_kinds_were_counted_is_judged_by_the_rest() -> None:
    """Its lines say nothing of them."""
    assert said(a_run(checkup=lambda i: {"precision": 0.7, "coverage": 0.1}, share=lambda i: 0.5)) == [TRAINING]


# What is measured.


def test_accuracy_knows_no_zero() -> None:
    """Half of all is called real: shifted outputs give the same, equal ones chance, swapped ones the complement."""
    real, fake = torch.tensor([1.0, 2.0, 3.0, 0.1]), torch.tensor([0.0, 0.2, 0.3, 2.5])
    assert accuracy(real, fake) == accuracy(real + 100, fake + 100) == 0.75
    assert accuracy(fake, real) == 0.25
    assert accuracy(torch.zeros(5), torch.zeros(5)) == 0.5


def test_copies_are_told_from_chance() -> None:
    """Slightly changed training samples are copies; new ones are so in 0.5^d of cases (1/4 in the plane)."""
    random = np.random.RandomState(0)
    for d, chance in ((2, 0.25), (30, 0.0)):
        train, new = (random.standard_normal((500, d)).astype(np.float32) for _ in range(2))
        noisy = train[:200] + 0.002 * new[:200]
        share = [checkups._copies(checkups._nearest_two(queries, train)) for queries in (noisy, new)]
        assert share[0] > 0.9
        assert share[1] == pytest.approx(chance, abs=0.06)
        among_themselves = checkups._nearest_two(train, train, apart_from_itself=True)
        assert checkups._copies(among_themselves) == pytest.approx(chance, abs=0.06)


def images(count: int, seed: int = 0) -> np.ndarray:
    """Bright squares at random places in 8 x 8 images."""
    random = np.random.RandomState(seed)
    made = random.randint(0, 30, (count, *SHAPE), dtype=np.uint8)
    for image, (y, x) in zip(made, random.randint(0, 5, (count, 2)), strict=True):
        image[y : y + 4, x : x + 4] += 200
    return made


@pytest.fixture
def examiner(blobs: Path) -> Examiner:
    """Of 400 training and 300 held-out images."""
    extractor = resolve_extractor(None, load_dataset(str(blobs)))
    return Examiner(Reals(images(400), None), Reals(images(300, 1), None), images(300, 1), extractor)


def test_what_samples_are_like(examiner: Examiner, tiny: Config) -> None:
    """New squares look real and cover the others; one square is all duplicates; training images are copies."""
    state = State(tiny, SHAPE)
    new, one, old = (
        examiner.examine(samples, state.G_ema, state, retrain=False)
        for samples in (images(300, 2), np.repeat(images(1), 300, 0), images(400)[:300])
    )
    assert new is not None
    assert one is not None
    assert old is not None
    assert min(new.precision, new.coverage) > 0.7
    assert new.spread == pytest.approx(1, abs=0.2)
    assert (new.duplicates, new.copies, new.retrained) == (0, 0, None)
    assert one.duplicates == 1
    assert one.coverage < 0.1
    assert new.left_out is not None
    assert one.left_out is not None
    assert new.left_out < 0.05
    assert one.left_out > 0.8
    assert old.copies == 1
    assert max(new.copies_by_chance, old.copies_by_chance) < 0.05


class Normal(Generator):
    """Samples that are z itself."""

    def __init__(self) -> None:
        super().__init__(2, 0)
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, z: torch.Tensor, class_idx: torch.Tensor | None = None) -> torch.Tensor:
        return z


def test_a_fresh_d_tells_only_what_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against samples of the very distribution it stays at chance; of one that is 1.5 wider it does not."""
    config = Config(data="x", preset="mlp", d_norm="none", z_dim=2, d_channels=32, d_hidden=6, precision="fp32")
    signature = signature_of(config, (2,))
    random = np.random.RandomState(0)
    for width, low, high in ((1.0, 0.45, 0.55), (2.5, 0.7, 1.0)):
        reals = [Reals((width * random.standard_normal((n, 2))).astype(np.float32), None) for n in (5000, 2000)]
        assert low <= retrained_accuracy(Normal(), config, signature, *reals) <= high


@pytest.mark.parametrize("loss", ["non-saturating", "hinge", "relativistic"])
def test_the_diagnosis_changes_no_bit(
    tmp_path: Path, tiny: Config, examiner: Examiner, monkeypatch: pytest.MonkeyPatch, loss: str
) -> None:
    """Probed at ticks and examined, with a fresh D, at snapshots: the run ends as one that nobody looked at."""
    monkeypatch.setattr(retraining, "STEPS", 4)
    monkeypatch.setattr(retraining, "EVALUATED_EVERY", 2)
    monkeypatch.setattr(watching, "DOUBTFUL", 1.0)
    config = msgspec.structs.replace(tiny, **{**recipe(None, loss), "loss": loss, "kimg": 0.32})
    ends = []
    for looked_at in (False, True):
        run_dir, state = RunDir(tmp_path / str(looked_at)), State(config, SHAPE)
        run_dir.create(Run(config=config, data_hash="0", licence=None, shape=SHAPE, code_version="test"))
        watch = Watch(state, examiner if looked_at else None)
        assert Trainer(state, images(100), None, run_dir, Meter(config.kimg), None, watch=watch).run()
        ends.append(run_dir.load_checkpoint())
    assert equal(*ends)
    told = RunRecord(tmp_path / "True").lines
    assert [line.checkup is not None for line in told] == [False, True]
    assert told[0].d_accuracy is not None
    assert told[1].checkup.retrained is not None
    assert all(line.verdicts == (TOO_EARLY,) for line in told)


def test_samples_beyond_measure_are_a_divergence() -> None:
    """Vectors so far from the data that no distance can be computed; pixels are always fine, and so is large data."""
    G = make_generator(make_config("ring", None, {}), (2,))
    for value in (1e20, np.inf, np.nan):
        with pytest.raises(Diverged, match="step 7: samples of G reach"):
            require_sane_samples(7, G.reach(np.full((4, 2), value, np.float32)))
    require_sane_samples(7, G.reach(np.full((4, 2), 1e9, np.float32)))
    G.adopt(standardisation(np.float32([[1.7e18, 0], [1.8e18, 1]])))
    require_sane_samples(7, G.reach(np.float32([[1.9e18, 2.0]])))
    require_sane_samples(7, make_generator(make_config("mnist", None, {}), SHAPE).reach(images(3)))


# Short runs, built to have what they are said to have: the short form of bench/diagnosis.py.


def trained(path: Path, data: str, capsys: pytest.CaptureFixture[str], **settings: object) -> list[str]:
    """The verdicts at the end of `genserve train`, which says them."""
    base = {"preset": "mlp", "g_channels": 32, "d_channels": 32, "batch_size": 128, "threads": 1, "snapshot_kimg": 15}
    words = [f"--{name.replace('_', '-')}={value}" for name, value in {**base, **settings}.items()]
    main(["train", data, "--run-dir", str(path), *words])
    record = RunRecord(path)
    names = [verdict.name for verdict in record.verdicts]
    assert record.lines[-1].verdicts == tuple(names)
    told = capsys.readouterr().err
    assert all(f"{verdict.name}: " in told and "Try: " in told for verdict in record.verdicts if verdict.alarm)
    return names


FREE = {"noise_max": 0, "r1_gamma": 0, "r2_gamma": 0}  # a game without regularisers


def test_a_dead_d_is_not_taken_for_the_equilibrium(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It says 1/2 for as long as it never learns; a fresh one tells nearly all."""
    assert trained(tmp_path / "r", "ring", capsys, d_lr=0, kimg=20) == [TOO_WEAK]


def test_an_explosion_that_stays_finite_is_seen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Learning rates of 1 on an unregularised game."""
    settings = {"loss": "non-saturating", "g_lr": 1.0, "d_lr": 1.0, "kimg": 20}
    assert trained(tmp_path / "r", "ring", capsys, **settings, **FREE) == [DIVERGED]


def test_a_vanishing_gradient_is_seen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The minimax game with two steps of a fast D for one of a slow G, unregularised, on narrow modes."""
    settings = {"loss": "minimax", "d_period": 2, "g_lr": 5e-4, "d_lr": 5e-3, "kimg": 40}
    assert TOO_STRONG in trained(tmp_path / "r", "ring", capsys, **settings, **FREE)
