"""z is drawn in one place, the same for everybody."""

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from models.errors import Invalid
from models.latents import check_latents, draw, draw_untruncated, lerp, slerp, truncate, walk
from models.manifest import Classes, Signature
from models.testkit import tiny_signature

SEEDS = st.integers(0, 2**32 - 1)


def test_z_is_the_frozen_stream_of_the_seed() -> None:
    """For N(0, I) it is RandomState(seed).standard_normal(z_dim), what StyleGAN's scripts draw."""
    drawn = draw(tiny_signature(z_dim=5), [7, 2**32 - 1])
    expected = [np.random.RandomState(seed).randn(1, 5)[0] for seed in (7, 2**32 - 1)]
    assert drawn.z.dtype == np.float32
    assert np.array_equal(drawn.z, np.float32(expected))
    assert drawn.class_idx is None


def test_golden_latents() -> None:
    """These numbers never change, whatever is refactored: they decide every published image."""
    normal = draw(tiny_signature(z_dim=3), [7]).z[0]
    uniform = draw(tiny_signature(prior="uniform", z_dim=3), [7]).z[0]
    assert normal.tolist() == pytest.approx([1.6905257, -0.4659374, 0.0328202], abs=1e-7)
    assert uniform.tolist() == pytest.approx([-0.8473834, 0.5598376, -0.1231815], abs=1e-7)


@given(st.lists(SEEDS, min_size=1, max_size=5))
def test_one_image_is_the_same_alone(seeds: list[int]) -> None:
    """Whatever else is drawn beside it, a seed has one z and one class."""
    signature = tiny_signature(classes=4)
    together = draw(signature, seeds)
    alone = draw(signature, seeds[-1:])
    assert np.array_equal(together.z[-1], alone.z[0])
    assert together.class_idx is not None
    assert alone.class_idx is not None
    assert together.class_idx[-1] == alone.class_idx[0]


def test_class_is_the_next_draw_after_z() -> None:
    """A conditional generator's class comes from the image's own stream, after z, by the class frequencies."""
    classes = Classes(names=("a", "b", "c"), frequencies=(0.2, 0.0, 0.8))
    signature = Signature(kind="image", prior="normal", z_dim=7, shape=(4, 4, 1), classes=classes)
    drawn = draw(signature, range(400))
    stream = np.random.RandomState(11)
    stream.standard_normal(7)
    assert drawn.class_idx is not None
    assert drawn.class_idx[11] == (0 if stream.random_sample() < 0.2 else 2)
    assert np.mean(drawn.class_idx == 0) == pytest.approx(0.2, abs=0.06)  # 3 standard deviations of 400 draws
    assert not np.any(drawn.class_idx == 1)


def test_asking_for_a_class_leaves_z_alone() -> None:
    """The z of a seed does not depend on the class asked for."""
    signature = tiny_signature(classes=3)
    assert np.array_equal(draw(signature, [5], class_idx=2).z, draw(signature, [5]).z)


@pytest.mark.parametrize(
    ("arguments", "field", "limit"),
    [
        ({"seeds": [-1]}, "seed", "4294967295"),
        ({"seeds": [2**32]}, "seed", "4294967295"),
        ({"seeds": [1], "truncation": 0.0}, "truncation", "8"),
        ({"seeds": [1], "truncation": 8.1}, "truncation", "8"),
        ({"seeds": [1], "truncation": float("nan")}, "truncation", "8"),
        ({"seeds": [1], "class_idx": 3}, "class_idx", "0 .. 2"),
        ({"seeds": [1, 2], "class_idx": [0]}, "class_idx", "2 samples"),
    ],
)
def test_bad_draws_name_field_and_limit(arguments: dict, field: str, limit: str) -> None:
    """A bad seed, truncation or class is refused with its field and its limit."""
    with pytest.raises(Invalid, match=limit) as caught:
        draw(tiny_signature(classes=3), **arguments)
    assert caught.value.field == field


def test_a_class_for_an_unconditional_generator_is_refused() -> None:
    """It would be ignored otherwise."""
    with pytest.raises(Invalid, match="unconditional"):
        draw(tiny_signature(), [1], class_idx=0)


@pytest.mark.parametrize("t", [0.1, 0.7, 2.0, 8.0])
def test_truncated_normal_is_the_exact_distribution(t: float) -> None:
    """The mapped coordinates follow SciPy's truncated normal (Kolmogorov-Smirnov, 20,000 draws, fixed seed)."""
    z = np.random.RandomState(3).standard_normal((1, 20_000))
    mapped = truncate(z, "normal", t)[0]
    assert np.abs(mapped).max() <= np.float32(t)
    assert stats.kstest(mapped, stats.truncnorm(-t, t).cdf).pvalue > 0.01


@given(st.floats(-38, 38), st.floats(0.01, 7.9))
def test_truncation_is_smooth_and_keeps_the_sign(z: float, t: float) -> None:
    """A little more truncation is a little less amplitude, never a jump, never another sign."""
    values = truncate(np.array([[z]]), "normal", t)[0, 0], truncate(np.array([[z]]), "normal", t + 0.01)[0, 0]
    assert abs(values[0] - values[1]) < 0.011
    assert np.sign(values[0]) in (0.0, np.sign(z))


def test_uniform_truncation_scales() -> None:
    """For U(-1, 1) the truncated prior is t z."""
    assert truncate(np.array([[-0.5, 1.0]]), "uniform", 0.5).tolist() == [[-0.25, 0.5]]


def test_slerp_turns_in_the_plane() -> None:
    """Half way between two orthogonal vectors of one length keeps that length; ends are exact."""
    a, b = np.array([2.0, 0.0]), np.array([0.0, 2.0])
    assert slerp(a, b, 0.5) == pytest.approx(np.sqrt([2.0, 2.0]))
    assert slerp(a, b, 1.0) == pytest.approx(b)
    assert slerp(a, 3 * a, 0.5) == pytest.approx(lerp(a, 3 * a, 0.5))
    assert slerp(a, -a, 0.5) == pytest.approx([0.0, 0.0])
    assert slerp(0 * a, b, 0.25) == pytest.approx(b / 4)


@pytest.mark.parametrize(("loop", "count"), [(False, 9), (True, 12)])
def test_walk_passes_through_its_key_frames(loop: bool, count: int) -> None:
    """Key frame k is frame k * frames to the bit; a loop does not repeat the first."""
    keys = draw_untruncated(tiny_signature(), [1, 2, 3])
    path = walk(keys, 4, loop=loop, method="auto", prior="normal")
    assert len(path) == count
    assert np.array_equal(path[[0, 4, 8]], keys)


def test_auto_is_linear_for_uniform() -> None:
    """A slerp could leave the cube."""
    keys = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert walk(keys, 2, loop=False, method="auto", prior="uniform")[1] == pytest.approx([0.5, 0.5])
    assert walk(keys, 2, loop=False, method="slerp", prior="uniform")[1] == pytest.approx([0.5**0.5] * 2)


def test_walks_need_two_key_frames_and_a_frame() -> None:
    """Fewer is refused."""
    with pytest.raises(Invalid, match="at least 2"):
        walk(np.zeros((1, 2)), 4, loop=False, method="auto", prior="normal")
    with pytest.raises(Invalid, match="below 1"):
        walk(np.zeros((2, 2)), 0, loop=False, method="auto", prior="normal")


@pytest.mark.parametrize("z", [[[0.0] * 7], [[np.nan] + [0.0] * 7], [[39.0] + [0.0] * 7], [0.0] * 8])
def test_latents_from_outside_are_checked(z: list) -> None:
    """Shape, finiteness and reach."""
    with pytest.raises(Invalid) as caught:
        check_latents(tiny_signature(), np.array(z, np.float64))
    assert caught.value.field == "z"


def test_threads_do_not_share_a_stream() -> None:
    """Several threads draw at once and each gets its own seed's z."""
    signature = tiny_signature(z_dim=64)
    expected = [draw(signature, [seed]).z for seed in range(8)]
    wrong: list[int] = []

    def work(seed: int) -> None:
        results = (draw(signature, [seed]).z for _ in range(200))
        wrong.extend(seed for result in results if not np.array_equal(result, expected[seed]))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
