"""`genserve train` and `genserve export`: wires data, state, loop and export together. Knows nothing of HTTP."""

import argparse
import itertools
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
import torch

from models.datasets import Dataset, load_dataset
from models.errors import DataError, Invalid
from models.runtime import available_cores
from models.sources import SOURCES
from models.standardising import standardisation
from models.version import code_version
from trainer.arguments import OPTIONS
from trainer.config import Config, make_config
from trainer.exporting import choose, score_missing, write_export
from trainer.loop import Trainer
from trainer.network_parts import stages
from trainer.progress import Meter
from trainer.run_dir import Run, RunDir
from trainer.schedule import Batches
from trainer.selection import make_scorer
from trainer.signatures import classes_of
from trainer.state import State

INTERRUPTED = 130


def train(args: argparse.Namespace) -> int:
    """Train a new run, or go on with one; returns the exit status: 0 done, 130 stopped and saved."""
    run_dir, run, data = _begin(args) if args.resume is None else _reopen(args)
    with run_dir.held():
        return _train(run_dir, run, data)


def _train(run_dir: RunDir, run: Run, data: Dataset) -> int:
    prepare_torch(run.config)
    split = data.split("train")
    standard = standardisation(np.asarray(split.samples, np.float32)) if data.kind == "vector" else None
    samples = split.samples if standard is None else standard.apply(np.asarray(split.samples, np.float32))
    state = State(run.config, run.shape, run.classes, standard)
    _restore(state, run_dir)
    if state.done:
        return _say_done(run_dir)
    print("\n".join(data.inventory.lines()), file=sys.stderr)
    labels = split.labels if run.config.conditional else None
    trainer = Trainer(state, samples, labels, run_dir, Meter(run.config.kimg), make_scorer(data))
    shape = " x ".join(str(extent) for extent in run.shape)
    with _stopping_on_signals(trainer.stop):
        told = f"{len(samples)} training {data.kind}s of {shape}"
        print(f"{run_dir.path}: {told}; Ctrl-C saves and stops", file=sys.stderr)
        done = trainer.run()
    if done:
        return _say_done(run_dir)
    print(f"stopped and saved: go on with `genserve train --resume {run_dir.path}`", file=sys.stderr)
    return INTERRUPTED


def export(args: argparse.Namespace) -> int:
    """Export a run's best snapshot, or the one that was picked; returns the exit status."""
    run_dir = RunDir(args.run_dir)
    run = run_dir.read()
    prepare_torch(run.config)
    scores = score_missing(run_dir, run) if args.checkpoint is None else {}
    choice = choose(run_dir, args.checkpoint, args.reason, scores)
    path = write_export(run_dir, run, choice, args.output)
    print(f"{path}: snapshot at {choice.kimg:g} kimg, chosen by {choice.chosen_by} ({choice.reason})")
    return 0


def prepare_torch(config: Config) -> None:
    """Threads and determinism, for the whole process: the same configuration gives the same bits."""
    torch.set_num_threads(config.threads or available_cores())
    torch.use_deterministic_algorithms(True)


def _say_done(run_dir: RunDir) -> int:
    print(f"done: export with `genserve export {run_dir.path}`")
    return 0


def _begin(args: argparse.Namespace) -> tuple[RunDir, Run, Dataset]:
    """A new run; its folder is made last, once nothing about it can be refused."""
    overrides = {name: getattr(args, name) for name, *_ in OPTIONS if getattr(args, name) is not None}
    config = make_config(args.data, args.config, overrides)
    data = _load(config)
    if data.kind == "image":
        stages(*data.shape[:2])
    Batches(len(data.indices["train"]), config)
    run_dir = RunDir(args.run_dir or _free_run_dir(config))
    run = Run(
        config=_pinned(config),
        data_hash=data.content_hash,
        licence=data.licence,
        shape=data.shape,
        classes=classes_of(config, data),
        code_version=code_version(),
    )
    run_dir.create(run)
    return run_dir, run, data


def _pinned(config: Config) -> Config:
    """The same on any day: its number of threads decides the bits, and a relative path only holds in this folder."""
    data = config.data if config.data in SOURCES else str(Path(config.data).resolve())
    return msgspec.structs.replace(config, data=data, threads=config.threads or available_cores())


def _reopen(args: argparse.Namespace) -> tuple[RunDir, Run, Dataset]:
    given = [
        name for name in ("data", "run_dir", "config", *(o[0] for o in OPTIONS)) if getattr(args, name) is not None
    ]
    if given:
        raise Invalid(f"a resumed run keeps its configuration: leave out {', '.join(given)}", field="resume")
    run_dir = RunDir(args.resume)
    run = run_dir.read()
    data = _load(run.config)
    if data.content_hash != run.data_hash:
        raise DataError(f"{run.config.data} has changed since this run began: its content hash differs", field="data")
    return run_dir, run, data


def _restore(state: State, run_dir: RunDir) -> None:
    """Go on from the checkpoint; a run that is new, or was stopped before its first, begins at the beginning."""
    if run_dir.checkpoint_path.exists():
        checkpoint = run_dir.load_checkpoint()
        try:
            state.load_state_dict(checkpoint)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise Invalid(f"{run_dir.checkpoint_path} does not fit config.json", field="run_dir") from error
    run_dir.forget_stats_after(state.num_images / 1000)


def _load(config: Config) -> Dataset:
    """The data; refuses images for mlp and vectors for the other presets."""
    data = load_dataset(config.data, resolution=config.resolution)
    if data.kind == "vector" and config.preset != "mlp":
        raise DataError(f"{config.data}: holds vectors, and {config.preset} makes images: --preset mlp", field="preset")
    if data.kind == "image" and config.preset == "mlp":
        raise DataError(f"{config.data}: holds images, and mlp makes vectors: choose another preset", field="preset")
    return data


def _free_run_dir(config: Config) -> Path:
    name = Path(config.data).stem or "data"
    return next(path for i in itertools.count() if not (path := Path("runs") / f"{i:03d}-{name}").exists())


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
