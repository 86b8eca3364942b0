"""POST /interpolate, sentence by sentence of the contract."""

import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from models.errors import Invalid
from models.generator import Generator
from models.latents import draw_untruncated, truncate, walk
from serving.sizes import check_duration
from tests.serving.kit import field_of

SEEDS = [{"seed": 7}, {"seed": 9}, {"seed": 11}]


async def frames(client, **wish):
    answer = await client.post("/interpolate", json={"format": "npy", **wish})
    assert answer.status_code == 200, answer.text
    return np.load(io.BytesIO(answer.content), allow_pickle=False)


async def single(client, **wish):
    answer = await client.post("/sample", json={"format": "npy", **wish})
    return np.load(io.BytesIO(answer.content), allow_pickle=False)[0]


@pytest.mark.parametrize(("loop", "count"), [(False, 9), (True, 12)])
async def test_key_frame_k_is_frame_k_times_frames(client, loop, count):
    """Pixel for pixel what /sample gives; (K-1) * frames + 1 frames, or K * frames in a loop."""
    walked = await frames(client, keyframes=SEEDS, frames=4, loop=loop)
    assert len(walked) == count
    for k, seed in enumerate((7, 9, 11)):
        assert (walked[4 * k] == await single(client, seed=seed)).all()


async def test_first_the_walk_then_the_truncation(client, zoo):
    """The network's output for the truncated walk; key frames are /sample's truncated images."""
    generator = Generator.open(zoo.resolve("tiny").model_path)
    stations = draw_untruncated(generator.signature, [7, 9])
    z = truncate(walk(stations, 6, loop=False, method="auto", prior="normal"), "normal", 0.5)
    walked = await frames(client, keyframes=SEEDS[:2], frames=6, truncation=0.5)
    assert (walked == generator.generate(z)).all()
    assert (walked[6] == await single(client, seed=9, truncation=0.5)).all()


async def test_methods(client):
    """auto is slerp for the normal prior and linear for the uniform one."""
    wish = {"keyframes": SEEDS[:2], "frames": 6}
    auto, slerp, linear = [await frames(client, **wish, method=m) for m in ("auto", "slerp", "linear")]
    assert (auto == slerp).all()
    assert (auto != linear).any()
    wish["model"] = "uniform"
    auto, slerp, linear = [await frames(client, **wish, method=m) for m in ("auto", "slerp", "linear")]
    assert (auto == linear).all()
    assert (auto != slerp).any()


async def test_the_walk_has_one_class(client):
    """The first key frame's own by default, or the one asked for."""
    wish = {"model": "classes", "keyframes": SEEDS[:2], "frames": 3}
    drawn = await client.post("/sample", json={"model": "classes", "seed": 7, "format": "json"})
    first = drawn.json()["images"][0]["class_idx"]
    assert (await frames(client, **wish) == await frames(client, **wish, class_idx=first)).all()
    walked = await frames(client, **wish, class_idx=(first + 1) % 4)
    assert (walked[3] == await single(client, model="classes", seed=9, class_idx=(first + 1) % 4)).all()


async def test_latents_as_key_frames(client):
    """A z between two seeds."""
    z = [0.5] * 8
    walked = await frames(client, keyframes=[{"seed": 7}, {"z": z}], frames=5)
    assert (walked[5] == await single(client, z=[z])).all()


@pytest.mark.parametrize(("form", "media_type"), [("webp", "image/webp"), ("gif", "image/gif"), ("apng", "image/apng")])
async def test_animations_last_as_long_as_the_walk(client, form, media_type):
    """25 frames at 10 a second."""
    wish = {"keyframes": SEEDS[:2], "frames": 24, "format": form, "fps": 10}
    answer = await client.post("/interpolate", json=wish)
    assert answer.headers["content-type"] == media_type
    assert answer.headers["x-cache"] == "bypass"
    animation = Image.open(io.BytesIO(answer.content))
    duration = 0
    for i in range(animation.n_frames):
        animation.seek(i)
        animation.load()
        duration += animation.info["duration"]
    assert abs(duration - 2500) <= 10


@pytest.mark.parametrize("form", ["webp", "gif", "apng"])
async def test_equal_key_frames_at_the_lowest_rate(client, form):
    """One picture for 64 seconds."""
    wish = {"keyframes": SEEDS[:1] * 2, "frames": 63, "format": form, "fps": 1}
    answer = await client.post("/interpolate", json=wish)
    assert answer.status_code == 200
    animation = Image.open(io.BytesIO(answer.content))
    durations = []
    for i in range(animation.n_frames):
        animation.seek(i)
        animation.load()
        durations.append(animation.info["duration"])
    assert sum(durations) == 64_000


def test_a_gif_that_would_last_too_long_is_refused():
    """Its clock has 16 bits; the error names fps and what would do."""
    check_duration("gif", 655, 1.0)
    check_duration("webp", 100_000, 1.0)
    with pytest.raises(Invalid, match="at most 655 s") as error:
        check_duration("gif", 656, 1.0)
    assert error.value.field == "fps"


async def test_formats_with_exact_frame_counts(client):
    """strip, zip and json hold every frame; webp is the default."""
    wish = {"keyframes": SEEDS[:2], "frames": 4}
    walked = await frames(client, **wish)
    strip = await client.post("/interpolate", json={**wish, "format": "strip"})
    assert np.asarray(Image.open(io.BytesIO(strip.content))).shape == (8, 5 * 8)
    assert (np.asarray(Image.open(io.BytesIO(strip.content)))[:, 8:16] == walked[1, :, :, 0]).all()
    zipped = await client.post("/interpolate", json={**wish, "format": "zip"})
    assert zipfile.ZipFile(io.BytesIO(zipped.content)).namelist() == [f"{i:05d}.png" for i in range(5)]
    assert len((await client.post("/interpolate", json={**wish, "format": "json"})).json()["images"]) == 5
    assert (await client.post("/interpolate", json=wish)).headers["content-type"] == "image/webp"


async def test_vectors_walk_too(client):
    """JSON by default."""
    answer = await client.post("/interpolate", json={"model": "vector", "keyframes": SEEDS[:2], "frames": 4})
    assert len(answer.json()["images"]) == 5


@pytest.mark.parametrize(
    ("wish", "field"),
    [
        ({}, "keyframes"),
        ({"keyframes": []}, "keyframes"),
        ({"keyframes": [{"seed": 1}]}, "keyframes"),
        ({"keyframes": [{"seed": 1}, {}]}, "keyframes[1]"),
        ({"keyframes": [{"seed": 1, "z": [0] * 8}, {"seed": 1}]}, "keyframes[0]"),
        ({"keyframes": [{"seed": 1}, {"z": [0] * 7}]}, "keyframes[1].z"),
        ({"keyframes": [{"seed": 1}, {"z": [99] + [0] * 7}]}, "keyframes[1].z"),
        ({"keyframes": [{"seed": -1}, {"seed": 1}]}, "keyframes[0].seed"),
        ({"frames": 0}, "frames"),
        ({"frames": 64}, "frames"),
        ({"frames": 10**9}, "frames"),
        ({"method": "cubic"}, "method"),
        ({"fps": 0}, "fps"),
        ({"fps": 101}, "fps"),
        ({"fps": 0.3}, "fps"),
        ({"fps": 1e-300}, "fps"),
        ({"format": "png"}, "format"),
        ({"class_idx": 1}, "class_idx"),
        ({"model": "classes", "class_idx": 9}, "class_idx"),
        ({"truncation": 9}, "truncation"),
        ({"model": "classes", "keyframes": [{"z": [0] * 8}, {"seed": 1}]}, "class_idx"),
        ({"prior": "uniform"}, "prior"),
        ({"loop": "yes"}, "loop"),
        ({"model": "nope@1"}, "model"),
        ({"model": "vector", "format": "gif"}, "format"),
    ],
)
async def test_what_is_wrong_is_named(client, wish, field):
    """400 (404 for an unknown model) with the field."""
    keyframes = {} if wish == {} else {"keyframes": SEEDS[:2]}
    answer = await client.post("/interpolate", json={**keyframes, **wish})
    assert answer.status_code == (404 if field == "model" else 400)
    assert field_of(answer) == field
