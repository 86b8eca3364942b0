"""One training, from a configuration and its data to a run that is done or stopped. Knows no command line.

Of several processes the first does all that is not steps. It tells the others of each run that it begins (`train_run`),
and they take its steps (`follow`) until it says that there is no further one.
"""

import contextlib
import importlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from models.datasets import Dataset, is_image_folder
from models.errors import GenserveError, Invalid
from models.runtime import available_cores
from models.sources import SOURCES
from models.splits import Samples
from models.standardising import Standardisation, standardisation
from models.version import code_version
from trainer.compatibility import check_length, check_reading
from trainer.config import Config
from trainer.distributed import Crew, Gone, check_batch, resolve, share_of_threads
from trainer.loop import Trainer
from trainer.network_parts import stages
from trainer.networks import check_crew
from trainer.progress import Meter
from trainer.retraining import Reals
from trainer.run_data import load_data
from trainer.run_dir import Run, RunDir
from trainer.schedule import Batches, period_steps
from trainer.selection import make_scorer
from trainer.signatures import classes_of
from trainer.state import State
from trainer.steps import Steps
from trainer.watching import Watch, make_examiner

if TYPE_CHECKING:
    from trainer.events import EventLog


class Shared(NamedTuple):
    """What every process of a run must know, beside the data."""

    run_dir: RunDir  # that the first process holds and writes
    run: Run
    standard: Standardisation | None
    checkpoint: dict[str, Any] | None


def load_checked(config: Config, crew: Crew | None = None) -> Dataset:
    """A configuration's data; refuses what its networks, its batches or its processes cannot take, or would ignore."""
    data = load_data(config)
    check_reading(config, folder=is_image_folder(config.data))
    if data.kind == "image":
        stages(*data.shape[:2])
    _check_length(config, data)
    if crew is not None:
        check_fit(config, data.shape, crew)
    if config.tensorboard:
        importlib.import_module("trainer.events")  # before anything is made: it may lack its library
    return data


def _check_length(config: Config, data: Dataset) -> None:
    """Refuse data that fill no batch, and a run in which G has no turn."""
    batches = Batches(len(data.indices["train"]), config)
    check_length(config, period_steps(config.d_period, config, batches))


def make_run(config: Config, data: Dataset) -> Run:
    """A run, the same on any day: device and threads decide the bits, a relative path only holds in one folder.

    Raises:
        DataError: the training split fills no batch.
        Invalid: the run would end before G's turn; one training of a sweep may, where the others do not.
    """
    _check_length(config, data)
    path = config.data if config.data in SOURCES else str(Path(config.data).resolve())
    return Run(
        config=msgspec.structs.replace(
            config, data=path, device=resolve(config.device), threads=config.threads or available_cores()
        ),
        data_hash=data.content_hash,
        licence=data.licence,
        shape=data.shape,
        classes=classes_of(config, data),
        code_version=code_version(),
    )


def train_run(run_dir: RunDir, run: Run, data: Dataset, crew: Crew | None = None) -> bool:
    """Train a new run, or go on with one; says whether it is done, and not stopped. Everything is saved either way.

    Args:
        run_dir: of the run.
        run: that is there.
        data: of the run.
        crew: whose first process this is; without it the only one, on the processor.

    Raises:
        Invalid: its processes cannot train it.
        Refused: another process trains it.
        Diverged: a value is not finite; the last checkpoint is kept.
    """
    crew = crew or Crew()
    check_fit(run.config, run.shape, crew)
    with run_dir.held():
        return _train(run_dir, run, data, crew)


def check_fit(config: Config, shape: tuple[int, ...], crew: Crew) -> None:
    """Refuse what these processes cannot train together.

    Raises:
        Invalid: another device, a batch that does not divide, or networks that they cannot share.
    """
    if config.device not in ("auto", crew.device.type):
        raise Invalid(f"the run is on {config.device}, and this process on {crew.device.type}", field="device")
    check_batch(config.batch_size, crew)
    check_crew(config, shape, crew)


def follow(crew: Crew) -> int:
    """Take the steps of every run that the first process begins; returns the exit status that it ends with."""
    told: Shared | int
    while not isinstance(told := crew.share(None), int):
        try:
            _follow(told, crew)
        except Gone:
            raise
        except GenserveError:  # met by the first process too, which says it and goes on or ends
            continue
    return told


def _follow(shared: Shared, crew: Crew) -> None:
    state = _restored(shared, crew)
    crew.wait()
    if state.done:
        return
    steps, stopping = Steps(state, None, None), threading.Event()
    with _stopping_on_signals(stopping.set):
        while not state.done and not crew.any(stopping.is_set()):
            steps.take()
        crew.wait()  # until all is saved


def _train(run_dir: RunDir, run: Run, data: Dataset, crew: Crew) -> bool:
    samples, labels, standard = _training_split(run, data)
    checkpoint = run_dir.load_checkpoint() if run_dir.checkpoint_path.exists() else None
    state = _restored(crew.share(Shared(run_dir, run, standard, checkpoint)), crew)
    with crew.awaited():
        run_dir.forget_stats_after(state.num_images / 1000)
        if not state.done:
            print("\n".join(data.inventory.lines()), file=sys.stderr)
            scorer = make_scorer(data)
            watch = Watch(state, make_examiner(data, Reals(samples, labels), scorer, standard), run_dir.stats())
    crew.wait()
    if state.done:
        return True
    with _events(run, run_dir, state) as events:
        trainer = Trainer(state, samples, labels, run_dir, Meter(run.config.kimg), scorer, events, watch)
        shape = " x ".join(str(extent) for extent in run.shape)
        with _stopping_on_signals(trainer.stop):
            told = f"{len(samples)} training {data.kind}s of {shape}{_where(crew)}, in {run.config.precision}"
            print(f"{run_dir.path}: {told}; Ctrl-C saves and stops", file=sys.stderr)
            return trainer.run()


def begin(run: Run, data: Dataset) -> Steps:
    """A run at its first step, in memory and in this process alone.

    Raises:
        Invalid: it is another device's.
    """
    check_fit(run.config, run.shape, Crew())
    samples, labels, standard = _training_split(run, data)
    prepare_torch(run.config)
    return Steps(State(run.config, run.shape, run.classes, standard), samples, labels)


def prepare_torch(config: Config) -> None:
    """Threads and determinism, for the whole process: the same configuration gives the same bits."""
    torch.set_num_threads(share_of_threads(config.threads or available_cores()))
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS is not deterministic, and refuses
    torch.backends.cudnn.allow_tf32 = False  # float32 is float32: penalties and D's answer need its bits
    torch.use_deterministic_algorithms(True)


def _training_split(run: Run, data: Dataset) -> tuple[Samples, NDArray[np.int64] | None, Standardisation | None]:
    """What is trained on, vectors in standard units; its labels for a conditional run; the units of vectors."""
    split = data.split("train")
    labels = split.labels if run.config.conditional else None
    if data.kind == "image":
        return split.samples, labels, None
    vectors = np.asarray(split.samples, np.float32)
    standard = standardisation(vectors)
    return standard.apply(vectors), labels, standard


def _restored(shared: Shared, crew: Crew) -> State:
    """Where the checkpoint was; a run that is new, or was stopped before its first, begins at the beginning."""
    run = shared.run
    prepare_torch(run.config)
    state = State(run.config, run.shape, run.classes, shared.standard, crew)
    if shared.checkpoint is not None:
        try:
            state.load_state_dict(shared.checkpoint)
        except torch.OutOfMemoryError:
            raise
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise Invalid(f"{shared.run_dir.checkpoint_path} does not fit config.json", field="run_dir") from error
    return state


def _where(crew: Crew) -> str:
    """What is special about where a run trains."""
    several = f" in {crew.size} processes" if crew.size > 1 else ""
    return several + (f" on {crew.device.type}" if crew.device.type != "cpu" else "")


@contextmanager
def _events(run: Run, run_dir: RunDir, state: State) -> Iterator["EventLog | None"]:
    """The log for TensorBoard where it is asked for; its library is there only then."""
    if not run.config.tensorboard:
        yield None
        return
    from trainer.events import EventLog

    with contextlib.closing(EventLog(run_dir.path, state.num_images / 1000)) as events:
        yield events


@contextmanager
def _stopping_on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Ctrl-C and SIGTERM ask for a stop; a second Ctrl-C interrupts at once, losing what is not saved."""

    def handle(number: int, frame: object) -> None:
        stop()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
