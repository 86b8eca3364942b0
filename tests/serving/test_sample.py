"""POST /sample, sentence by sentence of the contract."""

import asyncio
import base64
import io
import re
import threading
import zipfile

import msgspec
import numpy as np
import pytest
from PIL import Image

from models.generator import Generator
from models.latents import draw, draw_untruncated
from models.repository import Repository
from models.testkit import promote_tiny, tiny_signature
from serving.app import create_app
from serving.settings import Settings
from tests.serving.kit import field_of, running


def array(response):
    assert response.status_code == 200, response.text
    return np.load(io.BytesIO(response.content), allow_pickle=False)


async def sample(client, **wish):
    return await client.post("/sample", json=wish)


@pytest.fixture
def generator(zoo):
    version = zoo.resolve("tiny")
    return Generator.open(version.model_path)


async def test_seeds_give_what_the_generator_gives(client, generator):
    """The network's own output for the latents of seeds 7 .. 22."""
    expected = generator.generate(draw(generator.signature, range(7, 23)).z)
    assert (array(await sample(client, seed=7, num_images=16, format="npy")) == expected).all()


async def test_one_image_answers_as_itself_and_several_as_a_grid(client):
    """8 x 8 alone; 5 in three columns and two rows, the blank black."""
    alone = await sample(client, seed=7)
    assert alone.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(alone.content)).size == (8, 8)
    grid = np.asarray(Image.open(io.BytesIO((await sample(client, seed=7, num_images=5)).content)))
    assert grid.shape == (16, 24)
    assert (grid[:8, :8] == np.asarray(Image.open(io.BytesIO(alone.content)))).all()
    assert (grid[8:, 16:] == 0).all()


async def test_any_image_of_a_request_can_be_asked_for_alone(client):
    """Seed 9 is the third image of seed 7's sixteen, in npy and in zip."""
    many = array(await sample(client, seed=7, num_images=16, format="npy"))
    assert (array(await sample(client, seed=9, format="npy"))[0] == many[2]).all()
    zipped = await sample(client, seed=7, num_images=16, format="zip")
    with zipfile.ZipFile(io.BytesIO(zipped.content)) as file:
        assert file.namelist()[2] == "00002-9.png"
        assert (np.asarray(Image.open(file.open("00002-9.png"))) == many[2][:, :, 0]).all()


async def test_seeds_wrap_around(client):
    """After 2^32 - 1 comes 0."""
    two = array(await sample(client, seed=2**32 - 1, num_images=2, format="npy"))
    assert (two == array(await sample(client, seeds=[2**32 - 1, 0], format="npy"))).all()


async def test_a_list_of_seeds_may_repeat(client):
    """[7, 21, 7]: first and last are the same image."""
    three = array(await sample(client, seeds=[7, 21, 7], format="npy"))
    assert (three[0] == three[2]).all()
    assert (three[0] != three[1]).any()


async def test_a_latent_is_its_seed_s_image_and_has_no_address(client, generator):
    """z of seed 7 gives seed 7's pixels; X-Cache is bypass, there is no X-Seed, names in a zip are the index alone."""
    z = draw_untruncated(generator.signature, [7]).tolist()
    answer = await sample(client, z=z, format="npy")
    assert (array(answer) == array(await sample(client, seed=7, format="npy"))).all()
    assert answer.headers["x-cache"] == "bypass"
    assert "x-seed" not in answer.headers
    with zipfile.ZipFile(io.BytesIO((await sample(client, z=z, format="zip")).content)) as file:
        assert file.namelist() == ["00000.png"]
    document = (await sample(client, z=z, format="json")).json()
    assert document["images"][0]["seed"] is None


async def test_truncation_changes_the_image_smoothly_and_is_part_of_the_address(client):
    """Another image than without, close to that of a slightly different truncation."""
    whole, half, near = [
        array(await sample(client, seed=7, format="npy", **wish)).astype(int)
        for wish in ({}, {"truncation": 0.5}, {"truncation": 0.501})
    ]
    assert (whole != half).any()
    assert np.abs(half - near).max() <= 2


async def test_without_a_seed_the_server_draws_one_and_reports_it(client):
    """Asking for the reported seed gives the same bytes; two draws differ; the cache keeps only what was asked for."""
    first, second = await sample(client, num_images=3), await sample(client, num_images=3)
    assert first.headers["x-seed"] != second.headers["x-seed"]
    again = await sample(client, seed=int(first.headers["x-seed"]), num_images=3)
    assert again.content == first.content
    assert again.headers["x-cache"] == "miss"
    once_more = await sample(client, seed=int(first.headers["x-seed"]), num_images=3)
    assert once_more.headers["x-cache"] == "hit"


async def test_large_samples_are_stacked_off_the_event_loop(tmp_path, monkeypatch):
    """Eight of 192 KB, drawn and then from the cache."""
    repository = Repository(tmp_path)
    promote_tiny(repository, signature=tiny_signature(shape=(256, 256, 3)))
    threads = []
    stack = np.stack

    def record(parts):
        threads.append(threading.get_ident())
        return stack(parts)

    async with running(create_app(Settings(threads=1), repository)) as client:
        monkeypatch.setattr("serving.sampler.np.stack", record)
        for form in ("npy", "zip"):
            assert (await sample(client, seed=7, num_images=8, format=form)).status_code == 200
    assert len(threads) == 2
    assert threading.get_ident() not in threads


async def test_classes(client):
    """A class for all, one for each, or drawn by the seed's own stream and reported; each is part of the address."""
    drawn = (await sample(client, model="classes", seed=3, num_images=8, format="json")).json()["images"]
    classes = [image["class_idx"] for image in drawn]
    assert len(set(classes)) > 1
    asked = (await sample(client, model="classes", seed=3, num_images=8, class_idx=classes, format="json")).json()
    assert asked["images"] == drawn
    zeros = (await sample(client, model="classes", seed=3, num_images=8, class_idx=0, format="json")).json()["images"]
    assert [image["class_idx"] for image in zeros] == [0] * 8
    assert [z == d for z, d in zip(zeros, drawn, strict=True)] == [c == 0 for c in classes]


async def test_json_says_everything(client, zoo):
    """Model, version, digest, numerics, and each image's seed, class and PNG."""
    answer = await sample(client, seed=7, num_images=2, format="json")
    document = answer.json()
    assert document["model"] == "tiny"
    assert document["version"] == 2
    assert document["digest"] == zoo.resolve("tiny").manifest().digest
    assert re.fullmatch("[0-9a-f]{12}", document["numerics"])
    assert [(image["seed"], image["class_idx"]) for image in document["images"]] == [(7, None), (8, None)]
    assert base64.b64decode(document["images"][0]["png"]).startswith(b"\x89PNG")


async def test_vectors(client):
    """JSON by default, npy [N, d] float32 on demand."""
    answer = await sample(client, model="vector", seed=7, num_images=3)
    values = [entry["values"] for entry in answer.json()["images"]]
    stored = array(await sample(client, model="vector", seed=7, num_images=3, format="npy"))
    assert stored.dtype == np.float32
    assert stored.shape == (3, 2)
    assert np.allclose(values, stored)


async def test_text_chunks_of_a_png_that_answers_alone(client, zoo):
    """Seed, class, truncation, model@version, digest and that it is synthetic; a grid has none."""
    answer = await sample(client, model="classes", seed=7, class_idx=2, truncation=0.5)
    assert Image.open(io.BytesIO(answer.content)).text == {
        "seed": "7",
        "class": "2",
        "truncation": "0.5",
        "model": "classes@1",
        "digest": zoo.resolve("classes").manifest().digest,
        "synthetic": "true",
    }
    grid = await sample(client, model="classes", seed=7, num_images=2)
    assert Image.open(io.BytesIO(grid.content)).text == {}


async def test_headers(client, zoo):
    """What answered, from which seed, from where, and how long each stage took."""
    answer = await sample(client, seed=7, num_images=2)
    assert answer.headers["x-model"] == "tiny@2"
    assert answer.headers["x-model-digest"] == zoo.resolve("tiny").manifest().digest
    assert re.fullmatch("[0-9a-f]{12}", answer.headers["x-numerics"])
    assert answer.headers["x-seed"] == "7"
    number = r"dur=[0-9]+\.[0-9]{3}"
    assert re.fullmatch(f"queue;{number}, inference;{number}, encode;{number}", answer.headers["server-timing"])


async def test_the_cache_works_image_by_image(client):
    """Miss, hit with the same bytes, partial where some are known, in whichever request they came before."""
    first = await sample(client, seed=100, num_images=4)
    again = await sample(client, seed=100, num_images=4)
    assert (first.headers["x-cache"], again.headers["x-cache"]) == ("miss", "hit")
    assert first.content == again.content
    assert (await sample(client, seed=102)).headers["x-cache"] == "hit"
    assert (await sample(client, seed=102, num_images=4)).headers["x-cache"] == "partial"
    assert (await sample(client, seeds=[105, 103], format="npy")).headers["x-cache"] == "hit"


async def test_long_headers_do_not_fill_the_cache(app, client):
    """What an answer is kept by counts as equally long, so what is longer keeps none."""
    for i in range(20):
        accept = {"accept": ", ".join(["image/png", *[f"text/x{i}-{j}" for j in range(100)]])}
        assert (await client.post("/sample", json={"seed": 7}, headers=accept)).status_code == 200
    assert 'genserve_cache_entries{tier="local"} 1.0' in app.service.metrics.exposition().decode()


@pytest.mark.parametrize(
    ("model", "which"), [("tiny", 2), ("tiny@champion", 2), ("tiny@2", 2), ("tiny@1", 1), (None, 2)]
)
async def test_which_model_answers(client, model, which):
    """A name, an alias, a number; an older version is loaded on demand; none means the default."""
    answer = await sample(client, seed=7, **({"model": model} if model else {}))
    assert answer.headers["x-model"] == f"tiny@{which}"


@pytest.mark.parametrize("model", ["nope", "tiny@9", "tiny@0", "tiny@candidate", "tiny@x", "../tiny", "tiny@1@2", "."])
async def test_no_such_model(client, model):
    """404, with the field."""
    answer = await sample(client, model=model)
    assert answer.status_code == 404
    assert field_of(answer) == "model"


@pytest.mark.parametrize(
    ("wish", "field"),
    [
        ({"seed": -1}, "seed"),
        ({"seed": 2**32}, "seed"),
        ({"seed": 7.5}, "seed"),
        ({"seed": "7"}, "seed"),
        ({"seed": True}, "seed"),
        ({"seed": 1, "seeds": [1]}, "seeds"),
        ({"seed": 1, "z": [[0] * 8]}, "z"),
        ({"seeds": [1], "z": [[0] * 8]}, "z"),
        ({"seeds": []}, "seeds"),
        ({"seeds": [1, -1]}, "seeds[1]"),
        ({"seeds": [1], "num_images": 1}, "num_images"),
        ({"z": [[0] * 8], "num_images": 1}, "num_images"),
        ({"num_images": 0}, "num_images"),
        ({"num_images": 65}, "num_images"),
        ({"num_images": 10**9}, "num_images"),
        ({"seeds": list(range(65))}, "seeds"),
        ({"z": [[0] * 8] * 65}, "z"),
        ({"z": []}, "z"),
        ({"z": [[]]}, "z[0]"),
        ({"z": [[0] * 8, [0] * 7]}, "z[1]"),
        ({"z": [[0] * 7 + [39]]}, "z"),
        ({"z": [[0] * 7 + ["1"]]}, "z[0][7]"),
        ({"z": [[0] * 7 + [None]]}, "z[0][7]"),
        ({"z": [[0] * 8], "truncation": 0.5}, "truncation"),
        ({"class_idx": 0}, "class_idx"),
        ({"model": "classes", "class_idx": 4}, "class_idx"),
        ({"model": "classes", "class_idx": [0, 1]}, "class_idx"),
        ({"model": "classes", "class_idx": -1}, "class_idx"),
        ({"model": "classes", "z": [[0] * 8]}, "class_idx"),
        ({"model": "uniform", "z": [[0] * 7 + [1.1]]}, "z"),
        ({"truncation": 0}, "truncation"),
        ({"truncation": 8.1}, "truncation"),
        ({"model": "uniform", "truncation": 1.1}, "truncation"),
        ({"prior": "uniform"}, "prior"),
        ({"prior": "cauchy"}, "prior"),
        ({"format": "bmp"}, "format"),
        ({"model": "vector", "format": "png"}, "format"),
        ({"model": 3}, "model"),
        ({"model": ""}, "model"),
        ({"model": "a" * 101}, "model"),
        ({"sed": 7}, "sed"),
    ],
)
async def test_what_is_wrong_is_named(client, wish, field):
    """400 with the field, never a 429 for what could not be queued anyway."""
    answer = await client.post("/sample", json=wish)
    assert answer.status_code == 400, answer.text
    assert field_of(answer) == field


@pytest.mark.parametrize(
    "body",
    [
        b'{"seed": NaN}',
        b'{"z": [[1e999]]}',
        b"[",
        b"\xff\xfe",
        b'{"seed": 1',
        b"[]",
        b"7",
        b"null",
        b'{"a\xff": 1}',
        b"[" * 100_000,
        b'{"z":' + b"[" * 100_000,
        b'{"seed": 1} x',
        b'"' + b"a" * 10_000,
    ],
)
async def test_what_is_not_json_is_400(client, body):
    """Not-a-number, infinity, bad UTF-8, deep nesting, rubbish after the end."""
    answer = await client.post("/sample", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    field_of(answer)


async def test_an_empty_body_means_all_defaults(client):
    """curl -X POST /sample."""
    answer = await client.post("/sample")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/png"


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {},
        {"content-type": "application/json", "content-encoding": "gzip"},
        {"content-type": "application/json; charset=latin-1"},
    ],
)
async def test_a_body_that_is_not_json_by_its_type_is_415(client, headers):
    """Whatever is in it."""
    answer = await client.post("/sample", content=b"{}", headers=headers)
    assert answer.status_code == 415
    assert field_of(answer) in ("content-type", "content-encoding")


@pytest.mark.parametrize("accept", ["text/html", "image/avif;q=1", "*/*;q=0"])
async def test_nothing_acceptable_is_406(client, accept):
    """As problem+json all the same."""
    answer = await client.post("/sample", json={}, headers={"accept": accept})
    assert answer.status_code == 406
    assert field_of(answer) == "accept"


async def test_accept_chooses_and_format_beats_it(client):
    """Accept: image/webp, against "format": "jpeg"."""
    accepting = {"accept": "image/webp"}
    assert (await client.post("/sample", json={}, headers=accepting)).headers["content-type"] == "image/webp"
    answer = await client.post("/sample", json={"format": "jpeg"}, headers=accepting)
    assert answer.headers["content-type"] == "image/jpeg"


async def test_several_models_and_no_default(zoo, settings):
    """400 that lists the names."""
    async with running(create_app(msgspec.structs.replace(settings, default_model=None), zoo)) as client:
        answer = await client.post("/sample", json={})
    assert answer.status_code == 400
    assert "classes, tiny, uniform, vector" in answer.json()["detail"]


async def test_no_cache_at_all(zoo, settings):
    """GENSERVE_CACHE_BYTES=0: the same bytes, computed each time."""
    async with running(create_app(msgspec.structs.replace(settings, cache_bytes=0), zoo)) as client:
        answers = [await sample(client, seed=7, num_images=3) for _ in range(2)]
        metrics = (await client.get("/metrics")).text
    assert answers[0].content == answers[1].content
    assert {answer.headers["x-cache"] for answer in answers} == {"bypass"}
    assert 'genserve_images_generated_total{model="tiny"} 6.0' in metrics


async def test_a_seed_gives_the_same_bytes_in_any_company(zoo, settings):
    """Two hundred requests of mixed sizes and models at once, without a cache: each image is what it is alone."""
    stream = np.random.RandomState(0)
    wishes = [
        {"model": stream.choice(["tiny", "classes"]), "seed": int(stream.randint(40)), "num_images": n, "format": "npy"}
        for n in stream.randint(1, 9, 200).tolist()
    ]
    roomy = msgspec.structs.replace(settings, cache_bytes=0, max_queue_images=10_000)
    async with running(create_app(roomy, zoo)) as client:
        alone = {
            (model, seed): array(await sample(client, model=model, seed=seed, format="npy"))[0].tobytes()
            for model in ("tiny", "classes")
            for seed in range(48)
        }
        answers = await asyncio.gather(*(sample(client, **wish) for wish in wishes))
    for wish, answer in zip(wishes, answers, strict=True):
        for i, image in enumerate(array(answer)):
            assert image.tobytes() == alone[wish["model"], wish["seed"] + i]
