"""Which variants of a generator could serve it faster here, and the making of their files. Judges and keeps nothing."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import onnx

from models import processor
from models.errors import GenserveError
from models.generator import sha256
from models.graph import external_tensors
from models.latents import draw
from models.lowering import lower
from models.manifest import Signature
from models.measuring import hashed_seeds
from models.runtime import CPU_PROVIDER, OPENVINO_PROVIDER, Precision
from models.variant_int8 import Feed, Kept, quantise
from models.variants import Recipe, stamp_recipe

VNNI = ("avx512_vnni", "avx_vnni")  # without them int8 saturates at 16 bits: slower, and other samples
BF16 = ("amx_bf16", "avx512_bf16")
INT8: tuple[tuple[str, Kept], ...] = (("int8", "first"), ("int8-edges", "edges"))  # method, what stays in float32
OPENVINO: tuple[tuple[str, Precision, str], ...] = (  # method, precision, form of the graph
    ("windows", "f32", "windows"),
    ("bf16", "bf16", "windows"),
    ("bf16-graph", "bf16", "as published"),
)
CALIBRATION_SAMPLES = 64
CALIBRATION_BATCH = 16


class Candidate(NamedTuple):
    """A variant that could be made.

    Args:
        recipe: what it will be.
        make: writes its file; None where it makes no sense here.
        reason: why it makes no sense here; "" where it does.
    """

    recipe: Recipe
    make: Callable[[], bytes] | None
    reason: str = ""


def candidates(parent: bytes, signature: Signature, providers: Sequence[str]) -> Iterator[Candidate]:
    """Everything that is known to help on these providers.

    Args:
        parent: the version's model.onnx.
        signature: of it.
        providers: those that can be used here, by full name.
    """
    digest = sha256(parent)
    if CPU_PROVIDER in providers:
        details: dict[str, int | float | str | list[str]] = {
            "form": "windows",
            "weights": "int8, a scale for each output channel",
            "activations": "uint8, least to largest",
            "calibration_samples": CALIBRATION_SAMPLES,
        }
        for method, kept in INT8:
            recipe = Recipe(
                method=method,
                parent=digest,
                provider=CPU_PROVIDER,
                requires=VNNI,
                details={**details, "float32": kept},
            )
            yield _candidate(recipe, partial(_int8, parent, signature, recipe, kept))
    if OPENVINO_PROVIDER in providers:
        for method, precision, form in OPENVINO:
            recipe = Recipe(
                method=method,
                parent=digest,
                provider=OPENVINO_PROVIDER,
                precision=precision,
                requires=BF16 if precision == "bf16" else (),
                details={"form": form},
            )
            yield _candidate(recipe, partial(_same_function, parent, recipe))


def _candidate(recipe: Recipe, make: Callable[[], bytes]) -> Candidate:
    if recipe.requires and not processor.features() & set(recipe.requires):
        return Candidate(recipe, None, f"this processor has none of {', '.join(recipe.requires)}")
    return Candidate(recipe, make)


def _int8(parent: bytes, signature: Signature, recipe: Recipe, kept: Kept) -> bytes:
    model = lower(_loaded(parent), form="windows")
    return _stamped(quantise(model, _calibration(signature, recipe.parent), kept=kept), recipe)


def _same_function(parent: bytes, recipe: Recipe) -> bytes:
    model = _loaded(parent)
    return _stamped(lower(model, form="windows") if recipe.details["form"] == "windows" else model, recipe)


def _loaded(parent: bytes) -> onnx.ModelProto:
    model = onnx.load_model_from_string(parent)
    if outside := external_tensors(model):
        raise GenserveError(f"external data is refused (tensor {outside[0]!r})")
    return model


def _stamped(model: onnx.ModelProto, recipe: Recipe) -> bytes:
    stamp_recipe(model, recipe)
    return bytes(model.SerializeToString(deterministic=True))


def _calibration(signature: Signature, parent: str) -> list[Feed]:
    """Latents of the generator's own prior, classes by their frequencies; not those that it is judged on."""
    seeds = hashed_seeds(f"{parent} calibration", CALIBRATION_SAMPLES)
    feeds: list[Feed] = []
    for start in range(0, CALIBRATION_SAMPLES, CALIBRATION_BATCH):
        z, class_idx = draw(signature, seeds[start : start + CALIBRATION_BATCH])
        feeds.append({"z": z} if class_idx is None else {"z": z, "class_idx": class_idx})
    return feeds
