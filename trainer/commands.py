"""`genserve train` and `genserve export`: command lines become runs, sweeps and files. Knows nothing of HTTP."""

import argparse
import contextlib
import itertools
import shlex
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import msgspec

from models.datasets import Dataset
from models.errors import GenserveError, Invalid, Unavailable, told
from trainer.arguments import OPTIONS
from trainer.config import Config, Device, Precision, make_config
from trainer.distributed import Crew, Gone, assembled
from trainer.exporting import choose, score_missing, write_export
from trainer.finite import Diverged
from trainer.precision import suited as suited_precision
from trainer.run_data import load_run_data
from trainer.run_dir import Run, RunDir
from trainer.sweep import Axis, Overrides, combinations, parse_axis, swept
from trainer.sweeping import Sweep, check_trainings
from trainer.training import follow, load_checked, make_run, prepare_torch, train_run

INTERRUPTED = 130
SWEEP_SHARE = 0.1  # of the whole run, for each training of a sweep


def train(args: argparse.Namespace) -> int:
    """Train a new run or several, or go on with one; returns the exit status: 0 done, 130 stopped and saved.

    Of several processes only the first speaks, and reads and writes files.
    """
    with assembled(_wanted_device(args)) as crew:
        return _lead(args, crew) if crew.leads else follow(crew)


def _lead(args: argparse.Namespace, crew: Crew) -> int:
    """`_train`, and the others are told how it ended."""
    try:
        return crew.share(_train(args, crew))
    except Gone:
        raise
    except GenserveError as error:
        with contextlib.suppress(Gone):  # what happened here says more
            crew.share(error.exit_status)
        raise


def _train(args: argparse.Namespace, crew: Crew) -> int:
    if args.sweep:
        return _sweep(args, crew)
    if args.sweep_kimg is not None:
        raise Invalid("there is no sweep whose length it could be: leave it out", field="sweep_kimg")
    run_dir, run, data = _begin(args, crew) if args.resume is None else _reopen(args)
    try:
        with _explained(run_dir.kept):
            done = train_run(run_dir, run, data, crew)
    except Diverged as error:
        raise Diverged(f"{error.detail}; {_anew(run_dir, run.config)}") from error
    if done:
        print(f"done: export with `genserve export {run_dir.path}`")
        return 0
    print(f"stopped and saved: go on with `genserve train --resume {run_dir.path}`", file=sys.stderr)
    return INTERRUPTED


def _anew(run_dir: RunDir, config: Config) -> str:
    """How to go on where a value is not finite: a resumed run takes the same steps, and keeps its learning rates."""
    rates = f"--g-lr {config.g_lr / 10:g} --d-lr {config.d_lr / 10:g}"
    command = f"genserve train --config {shlex.quote(str(run_dir.path / 'config.json'))} {rates}"
    return f"--resume alone would meet it again; a new run of the same settings with lower learning rates: `{command}`"


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


def _sweep(args: argparse.Namespace, crew: Crew) -> int:
    """Train every combination for a short while, say which was best, and how to train that in full."""
    if args.resume is not None:
        raise Invalid("a sweep goes on by itself: give the same --sweep and --run-dir again", field="resume")
    axes, configure = _axes(args), partial(_configure, args)
    config = swept(axes, configure)
    kimg = args.sweep_kimg if args.sweep_kimg is not None else config.kimg * SWEEP_SHARE
    short = msgspec.structs.replace(config, kimg=kimg, snapshot_kimg=min(config.snapshot_kimg, kimg / 2))
    data, combined = load_checked(short, crew), combinations(axes, configure, short)
    check_trainings(combined, data, crew)
    folder = args.run_dir or _new_folder(config, "sweep-")
    sweep = Sweep(folder, combined, data, crew)
    again = f"the same command with --run-dir {folder} goes on"
    with _explained(lambda: f"what was trained is kept: mend that, and {again}"):
        done = sweep.train()
    if not done:
        print(f"stopped and saved: {again}", file=sys.stderr)
        return INTERRUPTED
    print("\n".join(sweep.lines()))
    if sweep.best is None:
        failed = all(found.best.failure for found in sweep.ranks())
        what = "every training failed" if failed else "no training has a score"
        raise Diverged(f"{what}: none is the best, and all of {folder} is kept")
    return 0


@contextlib.contextmanager
def _explained(kept: Callable[[], str]) -> Iterator[None]:
    """A disk that is full, or gone: which file it was, what is left, and how to go on, as `kept` says."""
    try:
        yield
    except BrokenPipeError:  # whoever read our output left
        raise
    except OSError as error:
        raise Unavailable(f"{told(error)}; {kept()}") from error


def _begin(args: argparse.Namespace, crew: Crew) -> tuple[RunDir, Run, Dataset]:
    """A new run; its folder is made last, once nothing about it can be refused."""
    config = _configure(args)
    data = load_checked(config, crew)
    run = make_run(config, data)
    run_dir = RunDir(args.run_dir or _new_folder(config))
    run_dir.create(run)
    return run_dir, run, data


def _reopen(args: argparse.Namespace) -> tuple[RunDir, Run, Dataset]:
    given = [
        name for name in ("data", "run_dir", "config", *(o[0] for o in OPTIONS)) if getattr(args, name) is not None
    ]
    if given:
        raise Invalid(f"a resumed run keeps its configuration: leave out {', '.join(given)}", field="resume")
    run_dir = RunDir(args.resume)
    run = run_dir.read()
    return run_dir, run, load_run_data(run)


def _wanted_device(args: argparse.Namespace) -> Device:
    """The configuration's, before there is a crew; one that cannot be read is refused later, by the first process."""
    try:
        if args.resume is None:
            return swept(_axes(args), partial(_configure, args, suited=None)).device
        device = RunDir(args.resume).read().config.device
    except GenserveError:
        return "auto"
    return "cpu" if device == "auto" else device  # runs of before there was a choice were on the processor


def _configure(
    args: argparse.Namespace,
    changes: Overrides | None = None,
    suited: Callable[[Device], Precision] | None = suited_precision,
) -> Config:
    """The configuration that a command line asks for, but for changes."""
    overrides = {name: getattr(args, name) for name, *_ in OPTIONS if getattr(args, name) is not None}
    return make_config(args.data, args.config, {**overrides, **(changes or {})}, suited)


def _axes(args: argparse.Namespace) -> list[Axis]:
    """Of a sweep; none without one."""
    return [parse_axis(text) for text in args.sweep or ()]


def _new_folder(config: Config, kind: str = "") -> Path:
    """The first of runs/NNN-data that is not there, made at once, so that of two trainings each has its own."""
    name = kind + (Path(config.data).stem or "data")
    for i in itertools.count():
        path = Path("runs") / f"{i:03d}-{name}"
        with contextlib.suppress(FileExistsError):
            path.mkdir(parents=True)
            break
    return path
