"""What is true of a generator is checked where it is said."""

import msgspec
import onnx
import pytest

from models.errors import Invalid
from models.manifest import METADATA_KEY, Classes, Signature, read_signature, stamp
from models.testkit import tiny_model, tiny_signature


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"z_dim": 0}, "z_dim"),
        ({"z_dim": 65537}, "z_dim"),
        ({"shape": (8, 8)}, "shape"),
        ({"shape": (8, 8, 2)}, "shape"),
        ({"shape": (0, 8, 1)}, "shape"),
        ({"shape": (4096, 4096, 3)}, "shape"),
        ({"kind": "vector", "shape": (2, 2)}, "shape"),
    ],
)
def test_impossible_signatures_are_refused(options: dict, field: str) -> None:
    """With the field and its limit."""
    fields = {"kind": "image", "prior": "normal", "z_dim": 8, "shape": (8, 8, 1)} | options
    with pytest.raises(Invalid) as caught:
        Signature(**fields)
    assert caught.value.field == field


@pytest.mark.parametrize("frequencies", [(0.5,), (0.5, 0.6), (-0.5, 1.5), (0.2, 0.2)])
def test_class_frequencies_are_shares(frequencies: tuple[float, ...]) -> None:
    """One for each name, none negative, summing to one."""
    with pytest.raises(Invalid):
        Classes(names=("a", "b"), frequencies=frequencies)


def test_kinds_to_come_are_refused_by_name() -> None:
    """Nothing guesses a kind from shapes: an unknown one is an error."""
    with pytest.raises(msgspec.ValidationError, match="audio"):
        msgspec.json.decode(b'{"kind":"audio","prior":"normal","z_dim":8,"shape":[8]}', type=Signature)


def test_stamping_replaces_ours_and_keeps_the_rest() -> None:
    """So the digest covers exactly one signature."""
    model = onnx.load_model_from_string(tiny_model())
    model.metadata_props.add(key="author", value="x")
    stamp(model, tiny_signature(prior="uniform"))
    stamp(model, tiny_signature(classes=2))
    assert sorted(entry.key for entry in model.metadata_props) == ["author", METADATA_KEY]
    assert read_signature({e.key: e.value for e in model.metadata_props}) == tiny_signature(classes=2)
