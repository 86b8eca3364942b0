"""Large bodies: the same answers as small ones, without a long stop of the event loop and without much memory."""

import gc
import json
import threading
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import Invalid
from serving import bodies
from serving.asgi import Incoming
from serving.bodies import LARGE_BODY_BYTES, SampleOutline, WalkOutline
from serving.middleware import MAX_BODY_BYTES
from serving.requests import InterpolateRequest, SampleRequest, decode_body
from tests.serving.kit import field_of
from tests.serving.test_middleware import Connection

JSON = {"content-type": "application/json"}
KEYFRAMES = [{"seed": 7}, {"z": [0.5] * 8}, {"seed": 9}]

values = st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(-50, 50) | st.text('[]{},"ab', max_size=4)
trees = st.recursive(values, lambda of: st.lists(of, max_size=4) | st.dictionaries(st.text(max_size=2), of, max_size=2))
rows = st.lists(st.lists(st.integers(-9, 9) | st.floats(-9, 9), min_size=2, max_size=2), min_size=1, max_size=5)
spacing = st.sampled_from([{}, {"indent": 1}, {"separators": (",", ":")}])


def large(body):
    """The same request in so many bytes that it counts as large."""
    return body[:-1] + b" " * LARGE_BODY_BYTES + body[-1:]


def full(start, unit, end):
    """As many units as a body may hold."""
    return start + unit * ((MAX_BODY_BYTES - len(start) - len(end)) // len(unit)) + end


FLOODS = [
    ("/sample", full(b'{"z":[[', b"1,", b"1]]}"), "z[0]"),
    ("/sample", full(b'{"z":[', b"[],", b"[]]}"), "z"),
    ("/sample", full(b'{"z":[', b"1,", b"1]}"), "z"),
    ("/sample", full(b'{"seeds":[', b"1,", b"1]}"), "seeds"),
    ("/sample", full(b'{"class_idx":[', b"1,", b"1]}"), "class_idx"),
    ("/interpolate", full(b'{"keyframes":[', b"{},", b"{}]}"), "keyframes"),
    ("/interpolate", full(b'{"keyframes":[{"seed":1},{"z":[', b"1,", b"1]}]}"), "keyframes[1].z"),
]


async def asked(client, path, body):
    """Status, field and bytes of an answer."""
    answer = await client.post(path, content=body, headers=JSON)
    return answer.status_code, None if answer.status_code == 200 else field_of(answer), answer.content


async def alike(client, path, wish):
    """A small body and a large one get the same status and field, and where that is 200 the same bytes."""
    body = json.dumps(wish).encode()
    small, great = await asked(client, path, body), await asked(client, path, large(body))
    assert great[:2] == small[:2]
    assert small[0] != 200 or great[2] == small[2]


@pytest.mark.parametrize(
    "wish",
    [
        {"seed": 7, "num_images": 3, "format": "npy"},
        {"seeds": [7, 9], "format": "npy"},
        {"z": [[0.5] * 8, list(range(8))], "format": "npy"},
        {"z": None, "seeds": None, "class_idx": None, "seed": 1},
        {"model": "classes", "seeds": [1, 2], "class_idx": [3, 0]},
        {"model": "classes", "z": [[0] * 8], "class_idx": 1},
        {"model": "classes", "seeds": [1, 2], "class_idx": [3, -1]},
        {"model": "uniform", "z": [[0] * 7 + [1.1]]},
        {"seeds": []},
        {"seeds": [1, -1]},
        {"seeds": [1, "1"]},
        {"seeds": 1},
        {"seeds": list(range(65))},
        {"z": [[0] * 8] * 65},
        {"z": []},
        {"z": [[]]},
        {"z": [[0] * 8, [0] * 7]},
        {"z": [[0] * 7 + [39]]},
        {"z": [[0] * 7 + [True]]},
        {"z": [[0] * 8], "seed": 1},
        {"model": "nope"},
        {"sed": 7},
    ],
)
async def test_a_large_sample_is_answered_like_a_small_one(client, wish):
    """Whatever is right or wrong with it."""
    await alike(client, "/sample", wish)


@pytest.mark.parametrize(
    "wish",
    [
        {"keyframes": KEYFRAMES, "frames": 4, "format": "npy"},
        {"keyframes": [{"seed": 7, "z": None}, {"seed": None, "z": [0] * 8}], "frames": 4, "format": "npy"},
        {"keyframes": KEYFRAMES, "frames": 64},
        {"keyframes": [{"seed": 1}] * 65},
        {"keyframes": []},
        {"keyframes": [{"seed": 1}, {}]},
        {"keyframes": [{"seed": 1, "z": [0] * 8}, {"seed": 1}]},
        {"keyframes": [{"seed": 1}, {"z": [0] * 7}]},
        {"keyframes": [{"seed": 1}, {"z": []}]},
        {"keyframes": [{"seed": 1}, {"z": 3}]},
        {"keyframes": [{"seed": 1}, {"z": [0] * 7 + [[]]}]},
        {"keyframes": [{"seed": 1}, {"z": [99] + [0] * 7}]},
        {"keyframes": [{"seed": 1}, 3]},
        {"keyframes": 3},
        {"frames": 4},
    ],
)
async def test_a_large_walk_is_answered_like_a_small_one(client, wish):
    """Whatever is right or wrong with it."""
    await alike(client, "/interpolate", wish)


@given(trees | rows, spacing)
def test_a_large_sample_s_latents_are_what_a_small_one_s_are(z, spaces):
    """Of any JSON: the same numbers, or Invalid on both ways."""
    body = json.dumps({"z": z}, **spaces).encode()
    try:
        expected = decode_body(body, SampleRequest).z
        refused = expected is not None and any(len(row) != 2 for row in expected)
    except Invalid:
        refused = True
    if refused:
        with pytest.raises(Invalid):
            SampleOutline(body, 8).request(2)
    else:
        got = SampleOutline(body, 8).request(2).z
        assert (got is None) == (expected is None)
        assert expected is None or np.array_equal(got, expected)


@given(trees, trees, spacing)
def test_a_large_walk_s_stops_are_what_a_small_one_s_are(one, other, spaces):
    """Of any JSON: the same numbers, or Invalid on both ways."""
    body = json.dumps({"keyframes": [{"z": one}, {"z": [1, 2]}, {"z": other, "seed": 1}]}, **spaces).encode()
    try:
        expected = [stop.z for stop in decode_body(body, InterpolateRequest).keyframes]
        refused = any(z is not None and len(z) != 2 for z in expected)
    except Invalid:
        refused = True
    if refused:
        with pytest.raises(Invalid):
            WalkOutline(body, 100).request(2)
    else:
        got = [stop.z for stop in WalkOutline(body, 100).request(2).keyframes]
        assert [None if z is None else list(z) for z in got] == expected


@pytest.mark.parametrize(("path", "body", "field"), FLOODS)
async def test_a_flood_is_refused_before_it_is_decoded(app, client, path, body, field):
    """8 MB of one list: 400 that names it, and no more memory than a few copies of its bytes."""
    work = app.service.sample if path == "/sample" else app.service.interpolate
    tracemalloc.start()
    try:
        with pytest.raises(Invalid) as error:
            await work(Incoming({b"content-type": b"application/json"}, body))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert error.value.field == field
    assert peak < 4 * MAX_BODY_BYTES
    assert (await asked(client, path, body))[:2] == (400, field)


async def test_a_refused_body_is_freed_at_once(app, client):
    """Nothing is left to the collector of cycles, which seldom looks."""
    _, body, _ = FLOODS[0]
    gc.disable()
    tracemalloc.start()
    try:
        for _ in range(4):
            connection = Connection(app, body=body)
            connection.body(bytes(bytearray(body)))
            await connection.task
            assert connection.status == 400
            del connection
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        gc.enable()
    assert held < 2 * MAX_BODY_BYTES  # the last may be on its way


@pytest.mark.parametrize(
    ("path", "wish"),
    [
        ("/sample", {"z": [[0.123456789] * 8] * 64}),
        ("/interpolate", {"keyframes": [{"z": [0.1] * 8}] * 8, "frames": 1}),
    ],
)
async def test_a_large_body_is_not_decoded_on_the_event_loop(client, monkeypatch, path, wish):
    """Nor in one piece: each latent by itself."""
    calls = []

    def record(body, *arguments, **options):
        calls.append((threading.get_ident(), len(body)))
        return decode_body(body, *arguments, **options)

    monkeypatch.setattr(bodies, "decode_body", record)
    status, _, _ = await asked(client, path, large(json.dumps(wish).encode()))
    assert status == 200
    assert threading.get_ident() not in {thread for thread, _ in calls}
    latents = 64 if path == "/sample" else 8
    assert sum(size < 200 for _, size in calls) >= latents
