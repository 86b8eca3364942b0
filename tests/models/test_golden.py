"""Golden samples hold a version to what it looked like when it was published."""

import base64
import zlib

import msgspec
import numpy as np
import pytest

from models import golden
from models.errors import LoadError
from models.generator import Generator
from models.manifest import Golden
from models.testkit import FakeGenerator, tiny_model, tiny_signature


@pytest.mark.parametrize("signature", [tiny_signature(), tiny_signature(classes=3), tiny_signature(kind="vector")])
def test_a_generator_agrees_with_its_own_samples(signature: object) -> None:
    """And its numerics are the same each time."""
    generator = Generator.from_bytes(tiny_model(signature))
    made = golden.make(generator)
    first, again = golden.check(generator, made), golden.check(Generator.from_bytes(tiny_model(signature)), made)
    assert first == again
    assert len(first.hash) == 12
    assert first.batch is None


def test_truncation_and_classes_are_among_them() -> None:
    """So a mistake in either is noticed at load."""
    made = golden.make(Generator.from_bytes(tiny_model(tiny_signature(classes=3))))
    assert {entry.truncation for entry in made} == {None, 0.7}
    assert {entry.class_idx for entry in made} > {None}


def test_another_network_is_refused() -> None:
    """The share of values that agree is told."""
    made = golden.make(Generator.from_bytes(tiny_model()))
    with pytest.raises(LoadError, match=r"golden samples' values are within"):
        golden.check(Generator.from_bytes(tiny_model(seed=1)), made)


def _shifted(entry: Golden, levels: int, values: int) -> Golden:
    pixels = np.frombuffer(zlib.decompress(base64.b64decode(entry.data)), np.uint8).astype(int)
    pixels[:values] = np.where(pixels[:values] < 128, pixels[:values] + levels, pixels[:values] - levels)
    data = base64.b64encode(zlib.compress(pixels.astype(np.uint8).tobytes())).decode()
    return msgspec.structs.replace(entry, data=data)


def test_one_level_of_rounding_is_forgiven_two_are_not() -> None:
    """Machines round differently: within 1 level on 99.9 % of the values."""
    generator = Generator.from_bytes(tiny_model())
    made = golden.make(generator)
    golden.check(generator, [_shifted(entry, 1, 64) for entry in made])
    with pytest.raises(LoadError, match="99"):
        golden.check(generator, [_shifted(entry, 2, 1) for entry in made])


@pytest.mark.parametrize(
    "data", ["!!", base64.b64encode(b"no zlib").decode(), base64.b64encode(zlib.compress(b"12")).decode()]
)
def test_damaged_samples_are_refused(data: str) -> None:
    """Not base64, not zlib, or too short."""
    generator = Generator.from_bytes(tiny_model())
    made = [msgspec.structs.replace(entry, data=data) for entry in golden.make(generator)]
    with pytest.raises(LoadError, match="damaged"):
        golden.check(generator, made)
    with pytest.raises(LoadError, match="no golden"):
        golden.check(generator, [])


class _Rounding(FakeGenerator):
    """Rounds differently in batches that are not of one certain size; or always by what lies beside it."""

    def __init__(self, neighbours: bool) -> None:
        super().__init__()
        self.neighbours = neighbours

    def generate(self, z: np.ndarray, class_idx: np.ndarray | None = None) -> np.ndarray:
        padded = z
        if self.batch is not None and len(z) % self.batch:
            padded = np.concatenate([z, np.repeat(z[-1:], self.batch - len(z) % self.batch, axis=0)])
        noise = np.float32(padded.sum() if self.neighbours else len(padded) % golden.FIXED_BATCH)
        return (padded * 10 + noise * np.float32(1e-6))[: len(z)]


def test_a_generator_that_minds_its_batch_runs_padded() -> None:
    """If samples depend on the batch's size, it runs at one fixed size, and is checked again."""
    generator = _Rounding(neighbours=False)
    numerics = golden.check(generator, golden.make(generator))
    assert numerics.batch == golden.FIXED_BATCH
    assert generator.batch == golden.FIXED_BATCH


def test_a_generator_that_minds_its_neighbours_is_refused() -> None:
    """No batch shape helps it."""
    generator = _Rounding(neighbours=True)
    with pytest.raises(LoadError, match="depend on what else"):
        golden.check(generator, golden.make(generator))


class _FastForm(FakeGenerator):
    """A generator whose faster form is wrong."""

    fast = True

    def generate(self, z: np.ndarray, class_idx: np.ndarray | None = None) -> np.ndarray:
        return super().generate(z, class_idx) * (1.5 if self.fast else 1)

    def fall_back(self) -> bool:
        was, self.fast, self.arithmetic = self.fast, False, "as published"
        return was


def test_a_faster_form_that_disagrees_is_given_up() -> None:
    """The published form is checked in its place, and what serves is what was checked."""
    made = golden.make(FakeGenerator())
    generator = _FastForm()
    numerics = golden.check(generator, made)
    assert not generator.fast
    assert numerics.hash == golden.check(generator, made).hash
    with pytest.raises(LoadError, match=r"golden samples' values"):
        golden.check(_FastForm(), [msgspec.structs.replace(entry, data=_tripled(entry)) for entry in made])


def _tripled(entry: Golden) -> str:
    values = np.frombuffer(zlib.decompress(base64.b64decode(entry.data)), np.float32)
    return base64.b64encode(zlib.compress((values * 3).tobytes())).decode()


def test_numerics_name_the_arithmetic_too() -> None:
    """Equal samples from another runtime, provider or form of the graph have another address."""
    here, there = FakeGenerator(), FakeGenerator()
    there.arithmetic = "another"
    made = golden.make(here)
    assert golden.check(here, made) != golden.check(there, made)
