"""BLAS on one thread while matrices are small. Knows no measures.

Its threads wait for one another by spinning. Where other work has the processors, that costs more than small matrices
are worth: on two processors with two trainings beside, factoring 128 x 128 took 0.2 ms on one thread and 156 ms on two,
eigenvalues of 256 x 256 took 8 and 364 ms.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from threadpoolctl import ThreadpoolController

SMALL = 512  # dimensions


@contextmanager
def one_thread(dim: int) -> Iterator[None]:
    """While the block runs this process's BLAS has one thread, if matrices have at most SMALL columns.

    What other threads of the process multiply meanwhile has one too.
    """
    if dim > SMALL:
        yield
        return
    with _controller().limit(limits=1, user_api="blas"):
        yield


@cache
def _controller() -> ThreadpoolController:
    """NumPy's BLAS and SciPy's; looking for them takes a while."""
    return ThreadpoolController()
