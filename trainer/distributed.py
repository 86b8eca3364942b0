"""The processes that train one run together, and what they tell each other. Knows nothing of networks.

torchrun starts them; Accelerate reads what it says, opens the group and picks a device for each. Networks stay as they
are: DistributedDataParallel reduces gradients in hooks of the forward pass, and is wrong for losses that hold gradients
themselves, as penalties do (pytorch issue 47562). So gradients are averaged after the backward pass, in one call.

Everything random is drawn for the whole batch by every process, each of which keeps its own rows: a batch is the same
whatever the number of processes.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.errors import GenserveError, Invalid, Unavailable
from models.splits import Samples
from trainer.config import Device

T = TypeVar("T")

CPU = torch.device("cpu")
FAILED = 2.0  # what the first process says in place of whether it wants to stop
PATIENCE = timedelta(hours=1)  # with the first process, while it reads data or measures a snapshot


class Gone(Unavailable):
    """Another process of this run is gone: nothing can be told any more."""


class Elsewhere(GenserveError):
    """The first process failed beside the steps, and says how itself."""

    def __init__(self) -> None:
        super().__init__("the first process failed")


class Averaged(NamedTuple):
    """What `Crew.average` returns: means over the processes, and which of them brought a value that is not finite.

    `faulty` [size] is above 0 for those; None in a crew of one, which needs no such telling.
    """

    means: list[Tensor]
    faulty: Tensor | None


@dataclass(frozen=True)
class Crew:
    """This process among those of its run.

    Args:
        rank: its number; 0 is the first, which alone reads data, writes files, measures and speaks.
        size: how many there are.
        device: that this one trains on.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = CPU

    @property
    def leads(self) -> bool:
        """Whether this is the first process."""
        return self.rank == 0

    def mine(self, whole: Tensor, batch_size: int, axis: int = 0) -> Tensor:
        """This process's rows of each of the whole batches that follow each other along an axis, on its device."""
        if self.size > 1:
            batches = torch.unflatten(whole, axis, (-1, self.size, batch_size // self.size))
            whole = batches.select(axis + 1, self.rank).flatten(axis, axis + 1)
        # From memory that is not pinned CUDA copies before this returns: nothing waits for the device, and nothing
        # changes under the copy.
        return whole.to(self.device, non_blocking=True)

    def average(self, gradients: Sequence[Tensor], told: Sequence[Tensor]) -> Averaged:
        """Put the mean over all processes in the place of each gradient, in one call.

        Args:
            gradients: of the same parameters in every process.
            told: further numbers [] whose means are returned.

        Raises:
            Gone: another process is gone.
        """
        if self.size == 1:
            return Averaged(list(told), None)
        own = torch.cat([tensor.detach().float().flatten() for tensor in (*gradients, *told)])
        faulty = own.new_zeros(self.size)
        faulty[self.rank] = own.isfinite().logical_not().any()
        sizes = [tensor.numel() for tensor in (*gradients, *told, faulty)]
        *means, faulty = torch.split(_mean(torch.cat([own, faulty])), sizes)
        for gradient, mean in zip(gradients, means, strict=False):
            gradient.copy_(mean.view_as(gradient))
        own_numbers = [mean.view([]).clone() for mean in means[len(gradients) :]]  # views would keep all the gradients
        return Averaged(own_numbers, faulty)

    def any(self, flag: bool) -> bool:
        """Whether it holds in any process; all get the same answer.

        Raises:
            Elsewhere: the first process failed since they last asked each other.
            Gone: another process is gone.
        """
        if self.size == 1:
            return flag
        told = self._loudest(float(flag))
        if told == FAILED:
            raise Elsewhere
        return told > 0

    def wait(self) -> None:
        """For all the others to come here too; raises as `any` does."""
        self.any(False)

    @contextmanager
    def awaited(self) -> Iterator[None]:
        """Around what the first process does alone, after which all ask each other: they learn there if it fails."""
        try:
            yield
        except Exception:
            if self.size > 1:
                self._loudest(FAILED)
            raise

    def _loudest(self, code: float) -> float:
        from accelerate.utils import reduce

        told = torch.tensor(code, device=self.device)
        return float(_together(lambda: reduce(told, reduction="max")))

    def share(self, value: T | None) -> T:
        """What the first process has, in all."""
        if self.size > 1:
            from accelerate.utils import broadcast_object_list

            (value,) = _together(lambda: broadcast_object_list([value]))
        return value  # type: ignore[return-value]  # the first process has it

    def share_array(self, array: Samples | NDArray[np.int64] | None) -> Tensor:
        """An array that the first process has, on the device of each."""
        shape, dtype = self.share(None if array is None else (array.shape, torch.from_numpy(array[:0]).dtype))
        tensor = torch.empty(shape, dtype=dtype) if array is None else torch.from_numpy(array)
        tensor = tensor.to(self.device)
        if self.size > 1:
            from accelerate.utils import broadcast

            tensor = _together(lambda: broadcast(tensor.contiguous()))
        return tensor


@contextmanager
def assembled(device: Device) -> Iterator[Crew]:
    """The crew that torchrun started, or the one process that this is; at most once in a process.

    Raises:
        Invalid: torch sees no such device, or fewer than there are processes.
    """
    kind = resolve(device)
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if kind == "cuda" and processes > (there := torch.cuda.device_count()):
        detail = f"{processes} processes on this machine, and torch sees {there} CUDA devices"
        raise Invalid(f"{detail}: --nproc-per-node {there} at most", field="device")
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Crew(device=torch.device(kind))
        return
    from accelerate import PartialState  # only here: one process needs nothing of it

    state = PartialState(cpu=kind == "cpu", timeout=PATIENCE)
    try:
        yield Crew(state.process_index, state.num_processes, state.device)
    except Gone:
        raise  # the group is ended by all at once or not at all: torchrun ends whoever still waits
    except GenserveError:  # that the first process has told all
        state.destroy_process_group()
        raise
    state.destroy_process_group()


def resolve(device: Device) -> Literal["cpu", "cuda"]:
    """What "auto" means here: cuda where torch sees such a device.

    Raises:
        Invalid: torch sees no such device.
    """
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise Invalid("torch sees no CUDA device here: cpu, or another machine", field="device")
    return "cuda" if available and device != "cpu" else "cpu"


def share_of_threads(threads: int) -> int:
    """Each process's of so many for all the processes on this machine; at least 1."""
    return max(1, threads // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def check_batch(batch_size: int, crew: Crew) -> None:
    """Every process must have as many images as the others, or means would not be the batch's.

    Raises:
        Invalid: they do not divide.
    """
    if batch_size % crew.size:
        detail = f"{batch_size} images do not divide among {crew.size} processes"
        raise Invalid(f"{detail}: choose a multiple of {crew.size}, or another --nproc-per-node", field="batch_size")


def _mean(tensor: Tensor) -> Tensor:
    from accelerate.utils import reduce

    reduced: Tensor = _together(lambda: reduce(tensor, reduction="mean"))
    return reduced


def _together(speak: Callable[[], T]) -> T:
    """Something that all processes do at once."""
    try:
        return speak()
    except (torch.OutOfMemoryError, torch.AcceleratorError):  # this process's own
        raise
    except RuntimeError as error:
        detail = "another process of this run is gone: see what it said; the last checkpoint is kept"
        raise Gone(f"{detail} ({str(error).splitlines()[0]})") from error
