"""Opening a model.onnx: what is refused, and what runs."""

import os
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest

import models.generator
import models.runtime
from bench import reference_models
from models.errors import Invalid, LoadError
from models.foreign import adopt
from models.generator import Generator, sha256
from models.latents import draw
from models.lowering import REVISION
from models.manifest import METADATA_KEY, stamp
from models.runtime import CPU_PROVIDER, CUDA_PROVIDER
from models.testkit import tiny_model, tiny_signature

ROOT = Path(__file__).parents[2]


def _edited(edit: object, data: bytes | None = None) -> bytes:
    model = onnx.load_model_from_string(data or tiny_model())
    edit(model)
    return model.SerializeToString()


def test_images_come_out_as_promised(tmp_path: Path) -> None:
    """uint8 [N, H, W, C], for any N, none included."""
    path = tmp_path / "model.onnx"
    path.write_bytes(tiny_model())
    generator = Generator.open(path, digest=sha256(path.read_bytes()))
    for count in (0, 1, 5):
        images = generator.generate(*draw(generator.signature, range(count)))
        assert images.shape == (count, 8, 8, 1)
        assert images.dtype == np.uint8
    assert generator.providers == ("CPUExecutionProvider",)


def test_nothing_is_told_to_anybody(tmp_path: Path) -> None:
    """ONNX Runtime would report what runs, and keep an identifier in the user's home: nothing is written there.

    In a process of its own, since it decides when it is loaded; CI's variables would switch it off, too.
    """
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "model.onnx").write_bytes(tiny_model())
    code = f"""
from pathlib import Path
from models.generator import Generator
from models.latents import draw
generator = Generator.from_bytes(Path({str(tmp_path / "model.onnx")!r}).read_bytes())
print(generator.generate(*draw(generator.signature, range(3))).shape)
"""
    env = {"PATH": os.environ["PATH"], "HOME": str(home)}
    ran = subprocess.run([sys.executable, "-c", code], env=env, cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "(3, 8, 8, 1)"
    assert not list(home.rglob("*"))


def test_vectors_come_out_as_float32() -> None:
    """[N, d] float32."""
    generator = Generator.from_bytes(tiny_model(tiny_signature(kind="vector")))
    samples = generator.generate(*draw(generator.signature, [1, 2, 3]))
    assert samples.shape == (3, 2)
    assert samples.dtype == np.float32


def test_a_conditional_generator_uses_its_class() -> None:
    """Another class is another image; none at all is refused."""
    generator = Generator.from_bytes(tiny_model(tiny_signature(classes=3)))
    images = [generator.generate(*draw(generator.signature, [1], class_idx=c)) for c in (0, 1)]
    assert not np.array_equal(*images)
    with pytest.raises(Invalid, match="one class"):
        generator.generate(draw(generator.signature, [1]).z)


def test_a_fixed_batch_changes_no_sample() -> None:
    """Padding to one batch shape gives the same samples, in order, for any count."""
    generator = Generator.from_bytes(tiny_model(tiny_signature(classes=3)))
    drawn = draw(generator.signature, range(11))
    free = generator.generate(*drawn)
    generator.batch = 4
    assert np.array_equal(generator.generate(*drawn), free)
    assert generator.generate(*draw(generator.signature, [])).shape == (0, 8, 8, 1)


def test_several_threads_at_once() -> None:
    """generate is safe to call from several threads, each getting its own samples."""
    generator = Generator.from_bytes(tiny_model())
    expected = [generator.generate(*draw(generator.signature, [seed])) for seed in range(4)]
    wrong: list[int] = []

    def work(seed: int) -> None:
        results = (generator.generate(*draw(generator.signature, [seed])) for _ in range(100))
        wrong.extend(seed for result in results if not np.array_equal(result, expected[seed]))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_another_digest_is_refused() -> None:
    """What was hashed is what runs."""
    with pytest.raises(LoadError, match="sha256"):
        Generator.from_bytes(tiny_model(), digest=sha256(tiny_model(seed=1)))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """With the system's reason."""
    with pytest.raises(LoadError, match=r"nothing\.onnx: No such file"):
        Generator.open(tmp_path / "nothing.onnx")


@pytest.mark.parametrize("data", [b"", b"not onnx", tiny_model()[:-100]])
def test_a_damaged_file_is_refused(data: bytes) -> None:
    """Empty, foreign or cut short."""
    with pytest.raises(LoadError):
        Generator.from_bytes(data)


def _external(tensor: onnx.TensorProto) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../etc/passwd"


def _hidden_external(model: onnx.ModelProto) -> None:
    """External data inside an attribute of a node, where an initializer check does not look."""
    constant = onnx.helper.make_node("Constant", [], ["c"], value=onnx.numpy_helper.from_array(np.zeros(2, np.float32)))
    _external(constant.attribute[0].t)
    model.graph.node.append(constant)


@pytest.mark.parametrize("edit", [lambda m: _external(m.graph.initializer[0]), _hidden_external])
def test_external_data_is_refused(edit: object) -> None:
    """Wherever it hides: it could name any file of the machine."""
    with pytest.raises(LoadError, match="external data"):
        Generator.from_bytes(_edited(edit))


def test_a_file_without_its_signature_is_refused() -> None:
    """And one whose signature is damaged."""
    with pytest.raises(LoadError, match="publish it first"):
        Generator.from_bytes(_edited(lambda model: model.ClearField("metadata_props")))

    def damage(model: onnx.ModelProto) -> None:
        next(entry for entry in model.metadata_props if entry.key == METADATA_KEY).value = '{"kind": "audio"}'

    with pytest.raises(LoadError, match="damaged"):
        Generator.from_bytes(_edited(damage))


@pytest.mark.parametrize(
    ("claimed", "complaint"),
    [
        (tiny_signature(z_dim=9), "inputs"),
        (tiny_signature(classes=2), "inputs"),
        (tiny_signature(kind="vector", shape=(64,)), "outputs"),
    ],
)
def test_a_signature_that_does_not_fit_is_refused(claimed: object, complaint: str) -> None:
    """Inputs and outputs are held against it at opening."""
    with pytest.raises(LoadError, match=complaint):
        Generator.from_bytes(_edited(lambda model: stamp(model, claimed)))


def test_a_wrong_output_shape_is_caught_when_it_runs() -> None:
    """A graph may declare less than it does."""
    generator = Generator.from_bytes(_edited(lambda model: stamp(model, tiny_signature(shape=(4, 16, 1)))))
    with pytest.raises(LoadError, match=r"\(1, 8, 8, 1\)"):
        generator.generate(*draw(generator.signature, [1]))


def test_a_fixed_batch_dimension_is_refused() -> None:
    """It could serve one batch size only."""

    def fix(model: onnx.ModelProto) -> None:
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1

    with pytest.raises(LoadError, match="dynamic batch"):
        Generator.from_bytes(_edited(fix))


def _transposed_generator() -> bytes:
    """A foreign generator with a layer that has a faster form, adopted."""
    return adopt(reference_models.build("small"), prior="normal")


def test_the_processor_runs_a_faster_form() -> None:
    """Which says so, gives the same samples but for rounding, and can be given up for the published one."""
    data = _transposed_generator()
    fast, published = Generator.from_bytes(data), Generator.from_bytes(data, lower=False)
    drawn = draw(fast.signature, range(4))
    assert fast.digest == published.digest
    assert fast.arithmetic == f"{published.arithmetic} lowered {REVISION}"
    levels = fast.generate(*drawn).astype(int) - published.generate(*drawn).astype(int)
    assert np.abs(levels).max() <= 1
    assert fast.fall_back()
    assert fast.arithmetic == published.arithmetic
    assert np.array_equal(fast.generate(*drawn), published.generate(*drawn))
    assert not fast.fall_back()
    assert not published.fall_back()


def test_a_processor_that_stands_in_runs_the_faster_form_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The GPU's wheel on a machine without one computes what the processor's does, and says so."""
    for module in (models.runtime, models.generator):
        monkeypatch.setattr(module, "available_providers", lambda: [CUDA_PROVIDER, CPU_PROVIDER])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ONNX Runtime's own
        stand_in = Generator.from_bytes(_transposed_generator(), providers=(CUDA_PROVIDER, CPU_PROVIDER))
    assert stand_in.providers == (CPU_PROVIDER,)
    assert stand_in.arithmetic == Generator.from_bytes(_transposed_generator()).arithmetic
    assert stand_in.arithmetic.endswith(f"lowered {REVISION}")


def test_a_form_that_was_settled_on_stays() -> None:
    """The file's own form is not kept in memory any longer."""
    generator = Generator.from_bytes(_transposed_generator())
    generator.settle()
    assert not generator.fall_back()
    assert generator.arithmetic.endswith(f"lowered {REVISION}")


@pytest.mark.parametrize("broken", [ValueError("no such axis"), onnx.ModelProto()])
def test_a_form_that_does_not_open_is_passed_over(monkeypatch: pytest.MonkeyPatch, broken: object) -> None:
    """The rewriting stumbled, or ONNX Runtime refuses what it wrote: the published file runs."""

    def lowered(model: onnx.ModelProto) -> object:
        if isinstance(broken, Exception):
            raise broken
        return broken

    monkeypatch.setattr(models.generator, "lowered", lowered)
    generator = Generator.from_bytes(_transposed_generator())
    assert "lowered" not in generator.arithmetic
    assert generator.generate(*draw(generator.signature, [1])).shape == (1, 32, 32, 1)
