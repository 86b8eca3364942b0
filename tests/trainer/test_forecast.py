"""The forecast of a long run, on a clock that the test turns."""

import io
import re
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest

from tests.trainer.conftest import SHAPE
from tests.trainer.test_parts import noise
from tests.trainer.test_runs import run
from trainer.config import Config
from trainer.forecast import WARM_UP_STEPS, Forecast, bytes_to_come, disk_bytes
from trainer.progress import Meter
from trainer.run_dir import RunDir
from trainer.schedule import turn
from trainer.state import State


def lines(config: Config, seconds_a_step: float, rounds: int, folder: Path, num_images: int = 0) -> list[str | None]:
    """What a run says after each of its steps of D and G in turn, and after two snapshots of 7 s."""
    now = [0.0]
    state = State(config, SHAPE)
    state.num_images, state.step = num_images, 2 * num_images // config.batch_size
    forecast = Forecast(state, 1, 1, folder, clock=lambda: now[0])
    said = []
    for i in range(2 * rounds):
        now[0] += seconds_a_step
        if i % 2:
            state.train_g(noise())
        else:
            state.train_d(noise(), i // 2)
        said.append(forecast.after_step())
    return [*said, forecast.after_snapshot(7.0), forecast.after_snapshot(7.0)]


def steps(
    config: Config, d_steps: int, g_steps: int, seconds: dict[str, float], count: int, folder: Path
) -> dict[int, str]:
    """What a run says after which of its first steps, which take so long and change nothing."""
    now, state, said = [0.0], State(config, SHAPE), {}
    forecast = Forecast(state, d_steps, g_steps, folder, clock=lambda: now[0])
    for step in range(1, count + 1):
        player = turn(step - 1, d_steps, g_steps)
        now[0] += seconds[player]
        state.step = step
        state.num_images += config.batch_size * (player == "D")
        if text := forecast.after_step():
            said[step] = text
    return said


def test_a_long_run_is_forecast_and_again_after_its_first_snapshot(tmp_path: Path, tiny: Config) -> None:
    """A run of 16,000 images ends with D's 1000th step, after 1,999 s, less the first 10; then what a snapshot took."""
    config = msgspec.structs.replace(tiny, kimg=16.0, snapshot_kimg=4.0)
    said = lines(config, 1.0, WARM_UP_STEPS + 6, tmp_path)
    first, again = [line for line in said if line is not None]
    assert said.index(first) == 2 * (WARM_UP_STEPS + 3) - 1  # the third round after warming up: 6 s seen
    assert said.index(again) == len(said) - 2
    assert first.startswith("forecast: 33m 09s of training and 4 snapshots, ")
    assert again.startswith("forecast: 33m 03s of training and 4 snapshots of 7s each, ")
    assert "GB of memory so far" in first
    assert first.endswith("MB on disk")


def test_long_periods_are_forecast_before_they_are_over(tmp_path: Path, tiny: Config) -> None:
    """D's 1000 steps of 1 s and G's 500 of 2 s: D's alone at once, and all early in G's first turn; D has the last."""
    config = msgspec.structs.replace(tiny, kimg=80.0, snapshot_kimg=16.0)
    said = steps(config, 1000, 500, {"D": 1.0, "G": 2.0}, 1020, tmp_path)
    alone, both = said
    assert alone == WARM_UP_STEPS + 5
    assert said[alone].startswith("forecast: at least 1h 23m of training for D's steps alone and 5 snapshots, ")
    assert both == 1000 + WARM_UP_STEPS + 3
    assert said[both].startswith("forecast: 2h 13m of training and 4 snapshots, ")  # 4,000 s of D, 3,990 of G


def test_a_long_turn_of_g_is_forecast_too(tmp_path: Path, tiny: Config) -> None:
    """G's alone where D's first steps, that count for nothing, were all that D had; else both."""
    config = msgspec.structs.replace(tiny, kimg=0.8, snapshot_kimg=0.4)
    said = steps(config, 1, 500, {"D": 1.0, "G": 1.0}, 510, tmp_path)
    assert [(step, "G's steps alone" in line) for step, line in said.items()] == [(1 + WARM_UP_STEPS + 5, True)]
    said = steps(config, 4, 500, {"D": 1.0, "G": 1.0}, 510, tmp_path)
    assert [(step, "alone" in line) for step, line in said.items()] == [(4 + WARM_UP_STEPS + 5, False)]


def test_a_turn_that_is_soon_over_says_nothing_alone(tmp_path: Path, tiny: Config) -> None:
    """With five steps of D for one of G, of 10 s each, G is waited for."""
    config = msgspec.structs.replace(tiny, kimg=16.0, snapshot_kimg=4.0)
    said = steps(config, 5, 1, {"D": 10.0, "G": 10.0}, 40, tmp_path)
    assert [(step, "alone" in line) for step, line in said.items()] == [(18, False)]


def test_a_disk_that_is_too_small_is_told(tmp_path: Path, tiny: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the run has filled it."""
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1_000))
    config = msgspec.structs.replace(tiny, kimg=16.0, snapshot_kimg=4.0)
    said = [line for line in lines(config, 1.0, WARM_UP_STEPS + 6, tmp_path) if line]
    assert all(re.search(r"MB on disk, where \d+ MB are still needed and 0 MB are free$", line) for line in said)


def test_only_what_is_still_to_be_written_needs_room(
    tmp_path: Path, tiny: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run resumed before its last snapshot needs that one and a second checkpoint, for the time of its writing."""
    config = msgspec.structs.replace(tiny, kimg=160.0, snapshot_kimg=4.0)
    state = State(config, SHAPE)
    checkpoint = bytes_to_come(state, kept=False) - bytes_to_come(state, kept=True)  # a new run keeps its first, too
    needed = checkpoint + (disk_bytes(state) - checkpoint) // 40
    (tmp_path / "checkpoint.pt").touch()
    for free in (needed - 1, needed):
        monkeypatch.setattr("shutil.disk_usage", lambda _, free=free: SimpleNamespace(free=free))
        told = [line for line in lines(config, 1.0, WARM_UP_STEPS + 6, tmp_path, num_images=156_000) if line]
        assert [line.endswith("are free") for line in told] == [free < needed] * 2


def test_a_short_run_is_not_forecast(tmp_path: Path, tiny: Config) -> None:
    """Under a minute nothing is said."""
    assert not any(lines(msgspec.structs.replace(tiny, kimg=0.3), 1.0, WARM_UP_STEPS + 6, tmp_path))


def test_the_disk_is_what_a_run_uses(tmp_path: Path, tiny: Config) -> None:
    """Within 25 % of the files of a finished run, for networks that are larger than what torch writes around them."""
    config = msgspec.structs.replace(tiny, g_channels=64, d_channels=64, kimg=0.064, snapshot_kimg=0.032)
    run(config, np.random.RandomState(0).randint(0, 256, (64, *SHAPE), dtype=np.uint8), tmp_path / "run")
    used = sum(path.stat().st_size for path in (tmp_path / "run").rglob("*") if path.is_file())
    assert 0.75 * used < disk_bytes(State(config, SHAPE)) < 1.25 * used


def test_what_snapshots_took_is_kept_and_said(tmp_path: Path, tiny: Config, capsys: pytest.CaptureFixture[str]) -> None:
    """Each snapshot's line has its seconds, and the end of a run says their share."""
    run(tiny, np.random.RandomState(0).randint(0, 256, (64, *SHAPE), dtype=np.uint8), tmp_path / "run")
    seconds = [line.snapshot_seconds for line in RunDir(tmp_path / "run").stats() if line.snapshot_seconds is not None]
    assert len(seconds) == 2
    assert all(value > 0 for value in seconds)
    assert "of them for snapshots, scores and the diagnosis" in capsys.readouterr().err


def test_a_line_of_its_own_ends_the_live_one() -> None:
    """Where no terminal is, it is a plain line."""
    out = io.StringIO()
    Meter(1.0, out=out).say("forecast: 5m")
    assert out.getvalue() == "forecast: 5m\n"
