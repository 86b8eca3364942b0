"""The console script as scripts use it: what it prints, and its exit status."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from genserve.cli import main
from models.generator import Generator, Samples
from models.judge import describe_reference
from models.repository import Repository
from models.testkit import (
    add_tiny_variant,
    fake_verdict,
    promote_tiny,
    promoted_repository,
    publish_tiny,
    tiny_model,
    tiny_signature,
)
from models.version import code_version
from serving.app import create_app
from serving.settings import Settings
from tests.serving.kit import running


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """A repository with a promoted tiny generator, which GENSERVE_MODELS points to."""
    repository = promoted_repository(tmp_path / "models")
    monkeypatch.setenv("GENSERVE_MODELS", str(repository.root))
    monkeypatch.setenv("GENSERVE_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return repository


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """400 grey 8 x 8 images that look nothing like the tiny generator's."""
    path = tmp_path / "data.npz"
    images = np.random.RandomState(0).randint(0, 40, (400, 8, 8, 1)).astype(np.uint8)
    np.savez(path, images=images)
    return path


def test_every_subcommand_has_a_useful_help(capsys: pytest.CaptureFixture[str]) -> None:
    """Each says what it does and what it takes."""
    commands = (
        "train export publish evaluate gate optimize promote rollback history models verify sign "
        "sample interpolate serve doctor"
    )
    for command in [
        *commands.split(),
        "key new",
        "key show",
        *(f"extractor {name}" for name in ["train", "import-inception", "ladder", "list", "show"]),
    ]:
        with pytest.raises(SystemExit) as caught:
            main([*command.split(), "--help"])
        assert caught.value.code == 0
        shown = capsys.readouterr().out
        assert f"genserve {command}" in shown
        assert len(shown.splitlines()) > 4


def test_bad_usage_is_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    """As every argument parser has it."""
    for arguments in ([], ["dance"], ["publish", "x.onnx"], ["sample", "tiny"]):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2
    assert "usage: genserve" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "status", "complaint"),
    [
        (["promote", "nobody@1"], 2, "no model 'nobody'"),
        (["promote", "tiny@1"], 1, "champion already"),
        (["rollback", "tiny"], 1, "no earlier champion"),
        (["gate", "tiny"], 1, "tiny@1 is the champion: `genserve evaluate` measures it"),
        (["evaluate", "tiny@1"], 1, "without --data"),
        (["publish", "nothing.onnx", "--name", "x"], 2, "neither an ONNX file"),
        (["publish", "models", "--name", "x"], 2, "genserve export"),
        (["publish", "tiny.onnx", "--name", "No Name"], 2, "not a model name"),
        (["publish", "tiny.onnx", "--name", "x", "--prior", "uniform"], 2, "signature says normal"),
        (["publish", "tiny.onnx", "--name", "x", "--data", "nowhere"], 2, "nowhere"),
        (["sample", "tiny", "-o", "x.tiff"], 2, ".png"),
        (["sample", "tiny", "-o", "x.png", "--seed", "-1"], 2, "seed: Expected int >= 0"),
        (["sample", "tiny", "-o", "x.png", "-n", "0"], 2, "num_images"),
        (["sample", "wide", "-o", "x.webp", "-n", "3"], 2, "num_images: 3 images make a picture of 18000 x 2 pixels"),
        (["interpolate", "wide", "-o", "x.webp", "--seeds", "1", "2", "--frames", "20000"], 2, "in one request"),
        (["interpolate", "tiny", "-o", "x.gif", "--seeds", "1"], 2, "keyframes: Expected array of length >= 2"),
        (["interpolate", "tiny", "-o", "x.gif", "--seeds", "1", "2", "--frames", "0"], 2, "frames"),
        (["verify", "nobody"], 2, "no model 'nobody' (models here: tiny)"),
        (["models", "nobody"], 2, "no model 'nobody' (models here: tiny)"),
        (["rollback", "nobody"], 2, "no model 'nobody' (models here: tiny)"),
        (["sample", "tiny", "-o", "no/such/x.npy"], 3, "no/such/x.npy: No such file or directory"),
    ],
)
def test_what_is_refused_says_why(
    repository: Repository, capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, complaint: str
) -> None:
    """One line on stderr, naming the field or file; 1 for a refusal, 2 for bad input, 3 for what failed."""
    Path("tiny.onnx").write_bytes(tiny_model())
    if "wide" in arguments:
        promote_tiny(repository, "wide", signature=tiny_signature(shape=(1, 9000, 3)))
    assert main(arguments) == status
    shown = capsys.readouterr().err
    assert shown.startswith("genserve: ")
    assert complaint in shown
    assert shown.count("\n") == 1


def test_a_repository_that_cannot_be_written_is_named(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """GENSERVE_MODELS below a file: one line, status 3."""
    Path("tiny.onnx").write_bytes(tiny_model())
    monkeypatch.setenv("GENSERVE_MODELS", "tiny.onnx/models")
    assert main(["publish", "tiny.onnx", "--name", "tiny"]) == 3
    assert re.fullmatch(r"genserve: tiny\.onnx\S*: (File exists|Not a directory)\n", capsys.readouterr().err)


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """The one that manifests and verdicts record too."""
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"genserve {code_version()}\n"


def test_publish_prints_the_version(repository: Repository, capsys: pytest.CaptureFixture[str]) -> None:
    """And nothing else on stdout, so that a script can use it."""
    Path("tiny.onnx").write_bytes(tiny_model(seed=2))
    assert main(["publish", "tiny.onnx", "--name", "tiny", "--why", "brighter"]) == 0
    assert capsys.readouterr().out == "tiny@2\n"
    assert repository.history("tiny")[-1].why == "brighter"


def test_a_bad_generator_is_gated_refused_and_not_promoted(
    repository: Repository, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """publish --data, gate (1, with reasons), promote (1); the champion of another name is untouched."""
    Path("tiny.onnx").write_bytes(tiny_model())
    quick = describe_reference(str(data), policy={"num_fake": 200})
    repository.set_reference("bad", quick)
    assert main(["publish", "tiny.onnx", "--name", "other", "--data", str(data)]) == 0
    assert repository.reference("other") == describe_reference(str(data))
    publish_tiny(repository, "bad")
    assert main(["evaluate", "bad@candidate", "--num-fakes", "200", "--json"]) == 0
    capsys.readouterr()
    assert main(["gate", "bad@1"]) == 1
    shown = capsys.readouterr().out
    assert "G1" in shown
    assert "random-conv@" in shown
    assert main(["promote", "bad@1"]) == 1
    assert "'fail'" in capsys.readouterr().err
    assert repository.aliases("bad").champion is None


def test_data_of_a_resolution_are_judged_at_it(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of 12-pixel images suits an 8-pixel generator at --resolution 8, and is read once to say so."""
    Path("tiny.onnx").write_bytes(tiny_model())
    Path("images").mkdir()
    for i, image in enumerate(np.random.RandomState(0).randint(0, 256, (40, 12, 12), np.uint8)):
        Image.fromarray(image).save(f"images/{i}.png")
    publish = ["publish", "tiny.onnx", "--name", "small", "--data", "images"]
    assert main(publish) == 1
    assert main([*publish, "--resolution", "4"]) == 2
    with monkeypatch.context() as patch:
        patch.setattr("models.judge.load_dataset", None)
        assert main([*publish, "--resolution", "8"]) == 0
    reference = repository.reference("small")
    assert reference is not None
    assert reference.resolution == 8
    assert main(["evaluate", "small@candidate", "--num-fakes", "200"]) == 2
    assert main([*publish, "--name", "other", "--data", "nowhere", "--resolution", "8"]) == 2


def test_many_samples_are_drawn_in_batches(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    """No run of the network takes more than fits in memory; the samples are those of one run."""
    assert main(["sample", "tiny", "-n", "7", "-o", "whole.npy"]) == 0
    sizes = []
    generate = Generator.generate

    def noted(self: Generator, z: NDArray[np.float32], class_idx: NDArray[np.int64] | None = None) -> Samples:
        sizes.append(len(z))
        return generate(self, z, class_idx)

    monkeypatch.setattr(Generator, "generate", noted)
    monkeypatch.setattr("models.batches.MAX_BATCH_VALUES", 3 * 64)
    assert main(["sample", "tiny", "-n", "7", "-o", "parts.npy"]) == 0
    assert sizes[-3:] == [3, 3, 1]
    assert np.array_equal(np.load("whole.npy"), np.load("parts.npy"))


def test_promote_and_rollback(repository: Repository, capsys: pytest.CaptureFixture[str]) -> None:
    """Each is one command, told in one line and in the history."""
    version = publish_tiny(repository, seed=2)
    repository.add_verdict(version, fake_verdict(version, version.manifest(), champion=1))
    assert main(["promote", "tiny@candidate", "--why", "sharper"]) == 0
    assert "tiny@2 is the champion of tiny (was tiny@1)" in capsys.readouterr().out
    assert main(["rollback", "tiny", "--why", "too sharp"]) == 0
    assert main(["models", "tiny"]) == 0
    shown = capsys.readouterr().out
    assert "rolled back tiny@1 (replacing tiny@2)" in shown
    assert "too sharp" in shown


def test_variants_are_promoted_listed_verified_and_rolled_back(
    repository: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    """The champion is promoted again for its new variant; what each provider is served by is told each time."""
    version = repository.resolve("tiny")
    variant = add_tiny_variant(repository, version)
    add_tiny_variant(repository, version, "elsewhere", provider="OpenVINOExecutionProvider", passed=False)
    assert main(["promote", "tiny@1", "--variant", "cpu=none"]) == 1
    assert main(["promote", "tiny@1"]) == 0
    assert "cpu is served by its variant fast" in capsys.readouterr().out
    assert main(["models", "tiny"]) == 0
    shown = capsys.readouterr().out
    assert "promoted tiny@1 (replacing tiny@1), cpu by fast by" in shown
    assert re.search(r"tiny@1 fast +cpu +pass +2.00x +2.00x +0.5", shown)
    assert main(["models", "tiny", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["variants"]
    assert [(row["variant"], row["verdict"]) for row in rows] == [("tiny@1 elsewhere", "fail"), ("tiny@1 fast", "pass")]
    assert main(["verify"]) == 0
    assert "ok     tiny@1 fast (unsigned)\n" in capsys.readouterr().out
    variant.model_path.write_bytes(b"junk")
    assert main(["verify"]) == 1
    assert "FAULT  tiny@1 fast: the file's sha256" in capsys.readouterr().out
    shutil.rmtree(variant.path)
    assert main(["verify"]) == 1
    assert "promises variants that are not here: fast" in capsys.readouterr().out
    assert main(["rollback", "tiny"]) == 0
    assert repository.history("tiny")[-1].variants == {}


@pytest.mark.parametrize("wish", ["fast", "gpu=fast", "cpu=", "=fast"])
def test_a_variant_is_named_with_its_provider(
    repository: Repository, capsys: pytest.CaptureFixture[str], wish: str
) -> None:
    """Anything else says how."""
    assert main(["promote", "tiny@1", "--variant", wish]) == 2
    assert "is not PROVIDER=NAME" in capsys.readouterr().err


def test_optimize_says_what_cannot_be_made(repository: Repository, capsys: pytest.CaptureFixture[str]) -> None:
    """The tiny generator is one matrix product: nothing to quantise; 1, as for every refusal."""
    assert main(["optimize", "tiny@1", "--only", "int8"]) == 1
    assert re.search(r"int8 for cpu: (only 1 of the graph's|this processor has none)", capsys.readouterr().out)
    assert main(["optimize", "tiny@1", "--only", "int8", "--json"]) == 1
    (outcome,) = json.loads(capsys.readouterr().out)
    assert (outcome["method"], outcome["variant"]) == ("int8", None)
    assert main(["optimize", "tiny@1", "--only", "int4"]) == 2


def test_models_as_json(repository: Repository, capsys: pytest.CaptureFixture[str]) -> None:
    """For scripts: versions with alias, verdict and digest."""
    assert main(["models", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["versions"]
    assert [(row["version"], row["alias"], row["verdict"]) for row in rows] == [("tiny@1", "champion", "pass")]


def test_verify_and_doctor_find_a_changed_file(repository: Repository, capsys: pytest.CaptureFixture[str]) -> None:
    """0 while all is well, 1 once a byte differs."""
    assert main(["verify"]) == 0
    assert main(["doctor"]) == 0
    assert "ok     provider cpu: works; the nodes of a tiny network ran: " in capsys.readouterr().out
    path = repository.resolve("tiny").model_path
    path.write_bytes(path.read_bytes() + b"\0")
    assert main(["verify", "tiny"]) == 1
    assert "FAULT  tiny@1: the file's sha256" in capsys.readouterr().out
    assert main(["doctor"]) == 1
    assert "mend: genserve rollback" in capsys.readouterr().out


def test_samples_are_addressed_by_their_seed(repository: Repository) -> None:
    """Image 2 of seed 7 is seed 9 alone; three make a grid of two columns; the archive names seeds."""
    assert main(["sample", "tiny", "--seed", "7", "-n", "3", "-o", "three.npy"]) == 0
    assert main(["sample", "tiny", "--seed", "9", "-o", "one.npy"]) == 0
    assert main(["sample", "tiny", "--seed", "7", "-n", "3", "-o", "three.png"]) == 0
    three, one = np.load("three.npy"), np.load("one.npy")
    assert three.shape == (3, 8, 8, 1)
    assert np.array_equal(three[2], one[0])
    grid = np.asarray(Image.open("three.png"))
    assert grid.shape == (16, 16)
    assert np.array_equal(grid[8:, :8], one[0, :, :, 0])
    assert not grid[8:, 8:].any()


def test_a_walk_has_its_frames(repository: Repository) -> None:
    """An open walk of two key frames and 4 steps has 5 frames; a loop 8; key frames are the seeds' own samples."""
    assert main(["interpolate", "tiny", "--seeds", "7", "9", "--frames", "4", "-o", "walk.npy"]) == 0
    assert main(["interpolate", "tiny", "--seeds", "7", "9", "--frames", "4", "--loop", "-o", "loop.npy"]) == 0
    assert main(["interpolate", "tiny", "--seeds", "7", "9", "--frames", "4", "-o", "walk.webp"]) == 0
    assert main(["sample", "tiny", "--seed", "9", "-o", "nine.npy"]) == 0
    walk = np.load("walk.npy")
    assert len(walk) == 5
    assert len(np.load("loop.npy")) == 8
    assert np.array_equal(walk[-1], np.load("nine.npy")[0])
    assert Image.open("walk.webp").size == (8, 8)


def test_conditional_and_vector_models_are_sampled_too(repository: Repository) -> None:
    """A class can be asked for; vectors have no pictures."""
    promote_tiny(repository, "digits", signature=tiny_signature(classes=3))
    promote_tiny(repository, "ring", signature=tiny_signature(kind="vector"))
    assert main(["sample", "digits", "--class-idx", "2", "-o", "two.npy"]) == 0
    assert main(["sample", "digits", "--class-idx", "3", "-o", "no.npy"]) == 2
    assert main(["interpolate", "digits", "--seeds", "1", "2", "-o", "walk.npy"]) == 0
    assert main(["sample", "ring", "-n", "5", "-o", "ring.npy"]) == 0
    assert np.load("ring.npy").shape == (5, 2)
    assert main(["sample", "ring", "-o", "ring.png"]) == 2


def test_a_damaged_version_does_not_hide_the_others(repository: Repository, capsys: pytest.CaptureFixture[str]) -> None:
    """It is a row of its own, and the status tells."""
    promote_tiny(repository, "other")
    (repository.resolve("tiny").path / "manifest.json").write_text("{")
    assert main(["models"]) == 1
    shown = capsys.readouterr().out
    assert "damaged" in shown
    assert "other@1" in shown


def test_commands_are_as_strict_about_settings_as_the_server(
    repository: Repository, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A misspelt name is refused, and genserve.toml names the repository for all of them."""
    monkeypatch.setenv("GENSERVE_MODELL", "x")
    assert main(["models"]) == 2
    assert "GENSERVE_MODELL" in capsys.readouterr().err
    monkeypatch.delenv("GENSERVE_MODELL")
    monkeypatch.delenv("GENSERVE_MODELS")
    Path("genserve.toml").write_text(f'models = "{repository.root}"\n')
    assert main(["models"]) == 0
    assert "tiny@1" in capsys.readouterr().out


def test_a_champion_that_servers_refuse_is_a_fault(repository: Repository, capsys: pytest.CaptureFixture[str]) -> None:
    """verify looks at what a server would."""
    version = repository.resolve("tiny")
    repository.add_verdict(version, fake_verdict(version, version.manifest(), passed=False))
    assert main(["verify"]) == 1
    assert "servers refuse the champion, tiny@1" in capsys.readouterr().out


def test_a_mistake_of_ours_is_no_refusal(
    repository: Repository, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unforeseen exception is told in full and ends with 3, not with the status of a refusal."""

    def fail(_: object) -> list[str]:
        raise ZeroDivisionError

    monkeypatch.setattr(Repository, "names", fail)
    assert main(["models"]) == 3
    assert "ZeroDivisionError" in capsys.readouterr().err


async def test_a_file_has_the_bytes_of_the_server_s_answer(repository: Repository) -> None:
    """Text chunks and all: a PNG alone, a grid, a walk and a JSON document."""
    promote_tiny(repository, "digits", signature=tiny_signature(classes=3))
    asked = {
        "alone.png": ("/sample", {"model": "digits", "seed": 9}),
        "grid.jpg": ("/sample", {"model": "digits", "seed": 9, "num_images": 5, "truncation": 0.5, "format": "jpeg"}),
        "some.json": ("/sample", {"model": "digits", "seed": 9, "num_images": 2, "class_idx": 1, "format": "json"}),
        "walk.webp": ("/interpolate", {"model": "digits", "keyframes": [{"seed": 7}, {"seed": 9}], "frames": 4}),
    }
    commands = {
        "alone.png": ["sample", "digits", "--seed", "9"],
        "grid.jpg": ["sample", "digits", "--seed", "9", "-n", "5", "--truncation", "0.5"],
        "some.json": ["sample", "digits", "--seed", "9", "-n", "2", "--class-idx", "1"],
        "walk.webp": ["interpolate", "digits", "--seeds", "7", "9", "--frames", "4"],
    }
    async with running(create_app(Settings(), repository)) as client:
        for name, (path, body) in asked.items():
            answer = await client.post(path, json=body)
            assert main([*commands[name], "-o", name]) == 0
            assert answer.status_code == 200
            assert Path(name).read_bytes() == answer.content, name
