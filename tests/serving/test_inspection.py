"""What a model is looked at through, and what is accepted of it."""

import msgspec
import pytest

from models.baseline import VARIANT_LOSS
from models.promotion import promote
from models.records import Number
from models.repository import Repository
from models.testkit import add_tiny_variant, promote_watched
from models.variants import loss_name
from serving.inspection import Inspector
from serving.loading import load


@pytest.mark.parametrize(
    ("measured", "accepted"),
    [
        ({}, VARIANT_LOSS),
        ({"another@1234": 0.0001}, VARIANT_LOSS),
        ({"its own": 0.0003}, 0.0003),
        ({"its own": -0.0002}, 0.0),
    ],
    ids=["not measured", "in other features", "measured", "no loss"],
)
async def test_of_a_variant_is_accepted_what_its_judge_saw_it_lose(tmp_path, measured, accepted):
    """The upper bound in the baseline's own features; of the version itself nothing."""
    repository = Repository(tmp_path)
    version = promote_watched(repository)
    inspector = Inspector(repository)
    try:
        plain = await inspector.open(load(repository, version))
        assert plain.loss == 0.0
        variant = add_tiny_variant(repository, version)
        verdict = variant.verdict()
        numbers = {
            loss_name(plain.extractor.label if label == "its own" else label): Number(value=0.0, high=high)
            for label, high in measured.items()
        }
        changed = msgspec.structs.replace(verdict, numbers=numbers)
        (variant.path / "verdict.json").write_bytes(msgspec.json.encode(changed))
        promote(repository, version)
        model = load(repository, version)
        assert model.variant == "fast"
        assert (await inspector.open(model)).loss == accepted
    finally:
        inspector.close()
