"""Answers that are too large are refused before anything is drawn."""

import pytest

from models.errors import Invalid
from models.repository import Repository
from models.testkit import promote_tiny, tiny_signature
from serving.app import create_app
from serving.settings import Settings
from serving.sizes import MAX_SAMPLE_BYTES, check_answer, check_extent
from tests.serving.kit import field_of, running


@pytest.mark.parametrize(
    ("form", "side", "samples", "fits"),
    [
        ("webp", 1023, 256, True),  # 16 x 16 of 1023: 16,368
        ("webp", 1024, 256, False),
        ("webp", 1024, 225, True),  # 15 x 15
        ("webp", 16_383, 1, True),
        ("webp", 16_384, 1, False),
        ("jpeg", 4093, 256, True),
        ("jpeg", 4094, 256, False),
        ("gif", 65_536, 1, False),
        ("png", 4096, 1000, True),
        ("npy", 4096, 1000, True),
    ],
)
def test_a_picture_fits_its_format(form, side, samples, fits):
    """By the side of the grid, in pixels."""
    if fits:
        check_extent(form, (side, 1, 3), samples, field="num_images")
    else:
        with pytest.raises(Invalid, match=f"{form} holds at most") as error:
            check_extent(form, (side, 1, 3), samples, field="num_images")
        assert error.value.field == "num_images"


def test_samples_are_bounded_in_bytes():
    """Whatever the format; frames of a walk are no grid."""
    signature = tiny_signature(shape=(1024, 1024, 3))
    most = MAX_SAMPLE_BYTES // (3 * 1024 * 1024)
    check_answer("npy", signature, most, field="num_images")
    check_answer("webp", tiny_signature(shape=(1024, 1024, 1)), 256, field="frames", walk=True)
    with pytest.raises(Invalid, match=f"at most {most} in one request") as error:
        check_answer("npy", signature, most + 1, field="frames", walk=True)
    assert error.value.field == "frames"


async def test_what_cannot_be_encoded_is_400(tmp_path):
    """Columns of 3000 pixels: six are two rows of them, forty are six, above the 16,383 of a WebP."""
    repository = Repository(tmp_path)
    promote_tiny(repository, signature=tiny_signature(shape=(3000, 2, 1)))
    promote_tiny(repository, "high", signature=tiny_signature(shape=(17_000, 2, 1)))
    settings = Settings(threads=1, default_model="tiny")
    async with running(create_app(settings, repository)) as client:
        statuses = {}
        for n in (6, 40):
            answer = await client.post("/sample", json={"num_images": n, "format": "webp"})
            statuses[n] = answer.status_code
        assert statuses == {6: 200, 40: 400}
        assert field_of(answer) == "num_images"
        listed = await client.post("/sample", json={"seeds": list(range(40)), "format": "webp"})
        assert (listed.status_code, field_of(listed)) == (400, "seeds")
        image = await client.get("/models/high/versions/1/images/7.webp")
        assert (image.status_code, field_of(image)) == (400, "format")
        walk = await client.post("/interpolate", json={"model": "high", "keyframes": [{"seed": 1}, {"seed": 2}]})
        assert (walk.status_code, field_of(walk)) == (400, "frames")
