"""Buffers that are kept give the samples of a plain run, whatever ran before. On the CPU, by the very code of CUDA."""

import threading

import numpy as np
import pytest

from models.binding import BUCKETS, Bound
from models.generator import Generator, bind
from models.latents import draw
from models.runtime import make_session
from models.testkit import tiny_model, tiny_signature

SIGNATURES = [
    tiny_signature(),
    tiny_signature(classes=3),
    tiny_signature(kind="vector"),
]


@pytest.mark.parametrize("signature", SIGNATURES, ids=["images", "classes", "vectors"])
def test_samples_are_those_of_a_plain_run(signature):
    """Each size between two buckets and beyond the largest, large before small and small before large."""
    data = tiny_model(signature)
    generator = Generator.from_bytes(data)
    expected = generator.generate(*draw(signature, range(150)))
    generator._bound = bind(make_session(data), signature, device="cpu")
    for count in (1, 64, 3, 150, 2, 5, 65, 1, 33):
        assert np.array_equal(generator.generate(*draw(signature, range(count))), expected[:count])


def test_buffers_are_made_once_and_answers_are_not_overwritten():
    """One set for each bucket; what an earlier call returned stays what it was."""
    signature = tiny_signature()
    bound = bind(make_session(tiny_model()), signature, device="cpu")
    z = draw(signature, range(64)).z
    first = bound.run({"z": z[:3]})
    kept, buffers = first.copy(), bound._buffers[4]
    for start in range(0, 60, 3):
        bound.run({"z": z[start : start + 4]})
    assert bound._buffers[4] is buffers
    assert np.array_equal(first, kept)
    for size in BUCKETS:
        bound.run({"z": z[:size]})
    assert sorted(bound._buffers) == list(BUCKETS)


def test_callers_on_several_threads_do_not_mix():
    """Four threads, each with its own latents, over the same buffers."""
    signature = tiny_signature()
    session = make_session(tiny_model())
    bound = bind(session, signature, device="cpu")
    wrong = []

    def draw_again_and_again(seed):
        z = draw(signature, range(seed, seed + 5)).z
        expected = session.run(None, {"z": z})[0]
        wrong.extend(i for i in range(200) if not np.array_equal(bound.run({"z": z}), expected))

    threads = [threading.Thread(target=draw_again_and_again, args=(seed,)) for seed in (0, 100, 200, 300)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_only_cuda_runs_over_kept_buffers():
    """On the CPU they would be one more copy."""
    assert Generator.from_bytes(tiny_model())._bound is None
    assert isinstance(bind(make_session(tiny_model()), tiny_signature(), device="cpu"), Bound)
