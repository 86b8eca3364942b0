"""`genserve report` and `genserve runs`: what a run's folder is made to tell."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from genserve.cli import main
from models.closest import NUM_SHOWN
from models.datasets import load_dataset
from models.errors import Invalid, NotFound
from models.flips import mirrored
from tests.trainer.conftest import SHAPE
from trainer import report_samples
from trainer.config import Config
from trainer.objectives import OBJECTIVES
from trainer.report import gather, render
from trainer.report_curves import Plot, Scale, scale_of, thinned
from trainer.report_pictures import frames
from trainer.report_theory import equilibrium, relations
from trainer.run_dir import RunDir
from trainer.run_records import RunRecord
from trainer.signals import Score, Stats

NASTY = '<script>alert("&")</script>'


@pytest.fixture(scope="module")
def trained(blobs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two snapshots, exported."""
    path = tmp_path_factory.mktemp("report") / "run"
    settings = {"batch-size": 16, "g-channels": 4, "d-channels": 4, "z-dim": 4, "threads": 1, "kimg": 0.64}
    words = [f"--{name}={value}" for name, value in settings.items()]
    assert main(["train", str(blobs), "--run-dir", str(path), "--snapshot-kimg", "0.32", *words]) == 0
    assert main(["export", str(path), "--checkpoint", "0.32", "--reason", NASTY]) == 0
    return path


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Path:
    """The run again, to be spoilt."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def write_run(path: Path, stats: list[dict[str, object]], **config: object) -> None:
    """A run's folder without networks."""
    path.mkdir(parents=True)
    settings = {"data": "fashion-mnist", "kimg": 10.0, **config}
    (path / "config.json").write_bytes(msgspec.json.encode({"config": settings, "shape": [28, 28, 1]}))
    (path / "stats.jsonl").write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in stats))


def outside(page: str) -> list[str]:
    """Whatever in a page makes a browser fetch something."""
    links = re.findall(r"""\b(?:src|href|action)=["']?([^"'\s>]+)""", page)
    return [link for link in links if not link.startswith("data:")] + re.findall(r"@import|url\(|https?://", page)


# The page.


def test_a_page_tells_the_whole_run(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every section is there, the chosen snapshot with its reason, and the commands that export others."""
    output = tmp_path / "new" / "page.html"
    assert main(["report", str(trained), "-o", str(output)]) == 0
    assert f"{output}: 0." in capsys.readouterr().out
    page = output.read_text()
    sections = re.findall(r'<section (?:class="\w+" )?id="(\w+)"', page)
    assert sections == ["diagnosis", "samples", "game", "neighbours", "walks", "pick", "data", "configuration", "speed"]
    assert "Exported is the snapshot at 0.32 kimg, picked by a person" in page
    assert f"genserve export {trained} --checkpoint 0.64 --reason" in page
    assert "<code>g_channels</code></th><td>4</td><td>64</td>" in page
    assert re.search(r"splits: \d+ to train on, \d+ to choose a checkpoint by", page)
    assert page.count('class="card"') == 2
    assert page.count('class="column"') == NUM_SHOWN


def test_a_page_needs_nothing_from_elsewhere(trained: Path) -> None:
    """No reference leaves the file, and its policy forbids the browser to follow any."""
    page = render(gather(RunRecord(trained)))
    assert outside(page) == []
    assert "default-src 'none'; img-src data:;" in page
    assert outside('<img src="x.png"><a href=https://a.b>') == ["x.png", "https://a.b", "https://"]


def test_what_comes_from_files_is_escaped(copy: Path) -> None:
    """A reason, a class name, a setting or a path that looks like HTML is shown as it is written."""
    file = msgspec.json.decode((copy / "config.json").read_bytes())
    file["config"][NASTY] = NASTY
    file["licence"] = file["code_version"] = NASTY
    file["classes"] = {"names": [NASTY], "frequencies": [1.0]}
    (copy / "config.json").write_bytes(msgspec.json.encode(file))
    nasty = copy.rename(copy.with_name("<script>'"))
    page = render(gather(RunRecord(nasty), quick=True))
    assert page.count("<script") == 2  # the page's own: numbers, and what reads them
    assert page.count("&lt;script&gt;alert") >= 5


def test_losses_verdicts_and_shares_are_shown(tmp_path: Path) -> None:
    """Of a run of six scored snapshots that ended in a NaN: levels, correlations, the alarm with advice, intervals."""
    checkup = {"precision": 0.9, "recall": 0.7, "coverage": 0.8, "spread": 1.0, "duplicates": 0.0, "copies": 0.01}
    checkup |= {"copies_by_chance": 0.02, "retrained": 0.625, "compared": 500, "left_out": 0.125}
    stats: list[dict[str, object]] = []
    for i in range(1, 7):
        stats.append({"kimg": float(i), "d_loss": 1.3, "g_loss": 0.7 + 0.1 * i, "d_real": 0.6, "d_fake": 0.4})
        score = {"fd": 1.0 / i, "share": 0.1 / i, "extractor": "fashion-cnn@a244"}
        stats.append({"kimg": float(i), "score": score, "checkup": checkup})
    stats.append({"kimg": 6.5, "fault": "step 812: a gradient of G, layers.0.weight, is not finite"})
    write_run(tmp_path / "run", stats, loss="non-saturating")
    page = render(gather(RunRecord(tmp_path / "run"), quick=True))
    assert "s, if D = ½" in page
    assert "Do the losses tell quality?" in page
    assert "<th>G's loss</th><td>-1.00</td>" in page
    alarm = page[page.index('class="verdict alarm"') :]
    assert "<h3>diverged</h3>" in alarm
    assert "layers.0.weight" in alarm
    assert "<b>Try</b>" in alarm
    assert "<th>coverage</th><td>0.800</td><td>0.762 to 0.834</td>" in page  # Clopper & Pearson, 400 of 500
    assert "right in 62.5% of unseen cases" in page
    assert "12.5% of real samples are of kinds that generated ones leave out" in page
    assert page.count('class="bar fd"') == 6


def test_an_old_run_makes_a_page(tmp_path: Path) -> None:
    """Statistics without norms, speeds or shown outputs, a configuration of few settings: what is there is told."""
    write_run(
        tmp_path / "old", [{"kimg": 2.0, "d_loss": 1.3, "g_loss": 0.7}, {"kimg": 4.0, "d_loss": 1.2, "g_loss": 0.8}]
    )
    page = render(gather(RunRecord(tmp_path / "old")))
    assert "stopped after 4 of 10 thousand real images" in page
    assert "There is no snapshot yet." in page
    assert "<b>Losses</b>" in page
    assert "<b>Gradients</b>" not in page
    assert 'id="speed"' not in page


def test_a_newer_run_makes_a_page(copy: Path) -> None:
    """Fields that this version does not know are passed over; what needs them all says why it is not there."""
    file = msgspec.json.decode((copy / "config.json").read_bytes())
    file["config"]["from_the_future"] = 1
    (copy / "config.json").write_bytes(msgspec.json.encode(file))
    with (copy / "stats.jsonl").open("a") as stats:
        stats.write('{"kimg": 0.64, "verdict": {"name": "healthy"}}\n')
    page = render(gather(RunRecord(copy)))
    assert "from_the_future" in page
    assert re.search(r'id="walks">.*Not here: .*from_the_future', page)


def test_missing_data_leaves_its_reason(copy: Path) -> None:
    """A run whose data is gone still shows a walk, and says what could not be compared."""
    file = msgspec.json.decode((copy / "config.json").read_bytes())
    file["config"]["data"] = str(copy / "gone.npz")
    (copy / "config.json").write_bytes(msgspec.json.encode(file))
    told = gather(RunRecord(copy))
    assert told.walks is not None
    assert told.neighbours is None
    assert "Not here: &#x27;" in render(told)


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [("config.json", "{", "config.json"), ("stats.jsonl", '{"kimg": 1}\n{"kimg"\n', "damaged in line 2")],
)
def test_a_broken_run_is_explained(copy: Path, name: str, text: str, complaint: str) -> None:
    """Which file, and which line."""
    (copy / name).write_text(text)
    with pytest.raises(Invalid, match=complaint):
        RunRecord(copy)


def test_what_is_no_run_is_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An empty folder, a run before its first statistics, an output that is a folder: exit status 2 and the reason."""
    write_run(tmp_path / "new", [])
    write_run(tmp_path / "run", [{"kimg": 2.0, "d_loss": 1.3}])
    for words, reason in [
        ((tmp_path,), "holds no run"),
        ((tmp_path / "new",), "no statistics yet"),
        ((tmp_path / "run", "-o", tmp_path), "is a folder"),
    ]:
        assert main(["report", *map(str, words)]) == 2
        assert reason in capsys.readouterr().err


# What it is made of.


def test_records_keep_up_with_the_trainer(tiny: Config, tmp_path: Path) -> None:
    """Whatever a run writes of these fields is read back, line by line."""
    write_run(tmp_path / "run", [], **msgspec.structs.asdict(tiny))
    run_dir = RunDir(tmp_path / "run")
    run_dir.append_stats(Stats(kimg=0.5, d_loss=1.0, images_per_second=100.0))
    run_dir.append_stats(Stats(kimg=0.64, score=Score(fd=2.0, share=0.5, extractor="a@1"), snapshot_seconds=3.0))
    record = RunRecord(tmp_path / "run")
    assert (record.best, record.kimg, record.state, record.seconds) == (0.64, 0.64, "done", 8.0)


def test_scores_of_another_extractor_do_not_compare(tmp_path: Path) -> None:
    """The best is the lowest of those that the last extractor scored, the later of equals."""
    shares = [(1, "old", 0.1), (2, "new", 0.3), (3, "new", 0.2), (4, "new", 0.2)]
    write_run(tmp_path / "r", [{"kimg": k, "score": {"fd": 1, "share": s, "extractor": e}} for k, e, s in shares])
    record = RunRecord(tmp_path / "r")
    assert list(record.scores) == [2, 3, 4]
    assert record.best == 4


@pytest.mark.parametrize(("loss", "d_loss", "g_loss"), [("minimax", 1.386, -0.693), ("least-squares", 0.25, 0.125)])
def test_losses_at_the_equilibrium(loss: str, d_loss: float, g_loss: float) -> None:
    """2 ln 2 and -ln 2 for the minimax game; 1/4 and 1/8 for least squares."""
    at = equilibrium(loss)
    assert at is not None
    assert (at.shown, at.d_loss, at.g_loss) == (0.5, pytest.approx(d_loss, abs=1e-3), pytest.approx(g_loss, abs=1e-3))


def test_every_objective_with_an_equilibrium_is_known() -> None:
    """And those without one have none."""
    for name, kind in OBJECTIVES.items():
        assert (equilibrium(name) is None) == (kind.equilibrium is None)
    assert equilibrium("unheard of") is None


def test_relations_tell_drift_from_telling(tmp_path: Path) -> None:
    """A loss that falls as FD does has +1 over the run; whether its changes go with FD's is another number."""
    stats: list[dict[str, Any]] = []
    for i, wobble in enumerate([0, 1, 0, 1, 0, 1, 0, 1]):
        stats.append({"kimg": i + 0.5, "d_loss": 10 - i + 0.1 * wobble, "g_loss": float(i)})
        score = {"fd": 1.0, "share": 10 - i - 0.1 * wobble, "extractor": "a"}
        stats.append({"kimg": i + 1.0, "score": score})
    write_run(tmp_path / "r", stats)
    d, g = relations(RunRecord(tmp_path / "r"))
    assert (d.player, d.levels, g.levels, g.changes) == ("D", pytest.approx(1), pytest.approx(-1), 0.0)
    assert d.changes == pytest.approx(-1, abs=0.15)
    write_run(tmp_path / "short", stats[:6])
    assert relations(RunRecord(tmp_path / "short")) == []


def test_the_nearest_training_image_is_found(blobs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples that are training images are at distance 0, over themselves; the replay share says so."""
    data = load_dataset(str(blobs))
    train = data.split("train").samples
    monkeypatch.setattr(report_samples, "sample", lambda G, signature, seeds: train[: len(seeds)])
    found = report_samples.neighbours(None, None, data, flip=False)  # type: ignore[arg-type]
    assert found.replay.share == 1.0
    assert all(neighbour.distance == 0 for neighbour in found.shown)
    height = SHAPE[0]
    for neighbour in found.shown:
        assert (neighbour.column[:height] == neighbour.column[height : 2 * height]).all()
        assert (neighbour.column[:height] == train[neighbour.number]).all()


def test_of_a_run_with_flips_mirrored_training_images_count(blobs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sample that is a training image mirrored is replayed only where training showed it so."""
    data = load_dataset(str(blobs))
    turned = mirrored(np.asarray(data.split("train").samples, np.uint8))
    monkeypatch.setattr(report_samples, "sample", lambda G, signature, seeds: turned[: len(seeds)])
    plain = report_samples.neighbours(None, None, data, flip=False)  # type: ignore[arg-type]
    flipped = report_samples.neighbours(None, None, data, flip=True)  # type: ignore[arg-type]
    assert flipped.replay.share == 1.0
    assert plain.median > flipped.median == 0


def test_frames_fit_their_budget(copy: Path) -> None:
    """Of many large grids as many are kept as fit, both ends and the chosen one among them."""
    from PIL import Image

    random = np.random.RandomState(0)
    for k in range(10):
        noise = random.randint(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).save(copy / "samples" / f"{k:06d}.000.png")
    (copy / "samples" / "broken.png").write_bytes(b"no picture")
    whole = frames(copy / "samples", None)
    assert [frame.kimg for frame in whole] == [0, 0.32, 0.64, *range(1, 10)]
    few = frames(copy / "samples", 4.0, budget=9000)
    assert 3 <= len(few) < 12
    assert {0.0, 4.0, 9.0} <= {frame.kimg for frame in few}


def test_axes_have_round_numbers() -> None:
    """Linear ones in steps of 1, 2 or 5, logarithmic ones by decade; everything is within 0 .. 1."""
    assert Scale(0, 1050).ticks(5) == [0, 500, 1000]
    assert Scale(0.009, 0.07, log=True).ticks() == pytest.approx([0.01, 0.02, 0.05])
    for values in ([3.0], [0.0, 0.0], [-2.0, 5.0]):
        scale = scale_of(values)
        assert all(0 <= scale.share(value) <= 1 for value in values)
        assert scale.ticks()


def test_a_long_line_is_thinned_to_means() -> None:
    """Never more points than a screen shows, and a constant stays what it is."""
    assert thinned(range(8), most=4) == [0.5, 2.5, 4.5, 6.5]
    assert len(thinned([1.0] * 100_001)) <= 400
    plot = Plot(Scale(0, 10), Scale(0, 1), "kimg")
    plot.line([0, 10], [0.5, 0.5], "d", "D")
    plot.line([0, 10], [0.5, 0.49], "g", "G")
    tops = [float(top) for top in re.findall(r'class="end \w" style="top:([\d.]+)%', plot.html())]
    assert tops[1] - tops[0] >= 7.9  # labels do not lie on one another


# The table of runs.


def test_runs_are_listed_best_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On the same data, with what tells them apart; a damaged one is a row and exit status 1."""
    for name, gamma, share in [("a", 0.1, 0.4), ("b", 1.0, 0.2)]:
        score = {"fd": 1.0, "share": share, "extractor": "e@1"}
        stats: list[dict[str, object]] = [{"kimg": 10.0, "d_loss": 1.0, "images_per_second": 50.0}]
        write_run(tmp_path / name, [*stats, {"kimg": 10.0, "score": score}], r1_gamma=gamma, d_norm="none")
    assert main(["runs", str(tmp_path)]) == 0
    header, first, second = capsys.readouterr().out.splitlines()
    assert header.split()[:3] == ["run", "state", "kimg"]
    assert re.search(r"/b +done +10 +10 +fashion-mnist .* 0\.2000 +10 +e@1 +50 +not enough seen yet", first)
    assert first.endswith("r1_gamma=1.0")
    assert second.endswith("r1_gamma=0.1")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "config.json").write_text("{")
    assert main(["runs", str(tmp_path), "--json"]) == 1
    rows = json.loads(capsys.readouterr().out)
    assert [(row["run"][-1], row["state"]) for row in rows] == [("b", "done"), ("a", "done"), ("c", "damaged")]


def test_no_runs_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An empty folder has none; a folder that is not there is an error."""
    assert main(["runs", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"no runs in {tmp_path}\n"
    assert main(["runs", str(tmp_path / "nowhere")]) == 2
    with pytest.raises(NotFound):
        RunRecord(tmp_path)


def test_a_run_in_training_is_seen_as_such(copy: Path) -> None:
    """While a process holds the run, and no longer."""
    file = msgspec.json.decode((copy / "config.json").read_bytes())
    file["config"]["kimg"] = 100.0
    (copy / "config.json").write_bytes(msgspec.json.encode(file))
    with RunDir(copy).held():
        assert RunRecord(copy).state == "training"
    assert RunRecord(copy).state == "stopped"


def test_listing_runs_imports_no_torch() -> None:
    """The table comes at once."""
    code = "import sys, genserve.runs; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
