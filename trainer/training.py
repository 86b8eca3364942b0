"""One training, from a configuration and its data to a run that is done or stopped. Knows no command line."""

import contextlib
import importlib
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import torch

from models.datasets import Dataset
from models.errors import Invalid
from models.runtime import available_cores
from models.sources import SOURCES
from models.standardising import standardisation
from models.version import code_version
from trainer.config import Config
from trainer.loop import Trainer
from trainer.network_parts import stages
from trainer.progress import Meter
from trainer.retraining import Reals
from trainer.run_data import load_data
from trainer.run_dir import Run, RunDir
from trainer.schedule import Batches
from trainer.selection import make_scorer
from trainer.signatures import classes_of
from trainer.state import State
from trainer.watching import Watch, make_examiner

if TYPE_CHECKING:
    from trainer.events import EventLog


def load_checked(config: Config) -> Dataset:
    """A configuration's data; refuses what its networks or its batches cannot take."""
    data = load_data(config)
    if data.kind == "image":
        stages(*data.shape[:2])
    Batches(len(data.indices["train"]), config)
    if config.tensorboard:
        importlib.import_module("trainer.events")  # before anything is made: it may lack its library
    return data


def make_run(config: Config, data: Dataset) -> Run:
    """A run, the same on any day: the number of threads decides the bits, a relative path only holds in one folder."""
    path = config.data if config.data in SOURCES else str(Path(config.data).resolve())
    return Run(
        config=msgspec.structs.replace(config, data=path, threads=config.threads or available_cores()),
        data_hash=data.content_hash,
        licence=data.licence,
        shape=data.shape,
        classes=classes_of(config, data),
        code_version=code_version(),
    )


def train_run(run_dir: RunDir, run: Run, data: Dataset) -> bool:
    """Train a new run, or go on with one; says whether it is done, and not stopped. Everything is saved either way.

    Raises:
        Refused: another process trains it.
        Diverged: a value is not finite; the last checkpoint is kept.
    """
    with run_dir.held():
        return _train(run_dir, run, data)


def _train(run_dir: RunDir, run: Run, data: Dataset) -> bool:
    prepare_torch(run.config)
    split = data.split("train")
    standard = standardisation(np.asarray(split.samples, np.float32)) if data.kind == "vector" else None
    samples = split.samples if standard is None else standard.apply(np.asarray(split.samples, np.float32))
    state = State(run.config, run.shape, run.classes, standard)
    _restore(state, run_dir)
    if state.done:
        return True
    print("\n".join(data.inventory.lines()), file=sys.stderr)
    labels = split.labels if run.config.conditional else None
    scorer = make_scorer(data)
    watch = Watch(state, make_examiner(data, Reals(samples, labels), scorer, standard), run_dir.stats())
    with _events(run, run_dir, state) as events:
        trainer = Trainer(state, samples, labels, run_dir, Meter(run.config.kimg), scorer, events, watch)
        shape = " x ".join(str(extent) for extent in run.shape)
        with _stopping_on_signals(trainer.stop):
            told = f"{len(samples)} training {data.kind}s of {shape}"
            print(f"{run_dir.path}: {told}; Ctrl-C saves and stops", file=sys.stderr)
            return trainer.run()


def prepare_torch(config: Config) -> None:
    """Threads and determinism, for the whole process: the same configuration gives the same bits."""
    torch.set_num_threads(config.threads or available_cores())
    torch.use_deterministic_algorithms(True)


def _restore(state: State, run_dir: RunDir) -> None:
    """Go on from the checkpoint; a run that is new, or was stopped before its first, begins at the beginning."""
    if run_dir.checkpoint_path.exists():
        checkpoint = run_dir.load_checkpoint()
        try:
            state.load_state_dict(checkpoint)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise Invalid(f"{run_dir.checkpoint_path} does not fit config.json", field="run_dir") from error
    run_dir.forget_stats_after(state.num_images / 1000)


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
