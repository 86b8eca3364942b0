"""Threads of BLAS, as threadpoolctl sees them."""

import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from models.blas import SMALL, one_thread


def threads() -> set[int]:
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


@pytest.mark.parametrize(("dim", "within"), [(SMALL, 1), (SMALL + 1, 2)])
def test_small_matrices_have_one_thread(dim: int, within: int) -> None:
    """Large ones keep what there was, and afterwards all is as before."""
    with threadpool_limits(limits=2, user_api="blas"):
        if threads() != {2}:
            pytest.skip("BLAS has one thread here whatever it is told")
        with one_thread(dim):
            assert threads() == {within}
        assert threads() == {2}
