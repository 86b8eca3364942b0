"""Trains a sweep's combinations one after the other and keeps the best. Knows no command line.

Every training is a run of its own in the sweep's folder, so that `genserve runs` and `genserve report` know it; of all
but the best, what takes room (checkpoint, snapshots) is deleted. sweep.json holds the ranking, best.json the best one's
configuration at full length.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from models.datasets import Dataset
from models.errors import DataError, Invalid, Refused
from models.files import clear_leftovers, pretty_json, remove_folder, replace_file
from trainer.config import Config
from trainer.distributed import Crew
from trainer.finite import Diverged
from trainer.run_dir import Run, RunDir
from trainer.run_records import RunRecord
from trainer.selection import MIN_REALS
from trainer.sweep import Combination, Outcome, Rank, rank
from trainer.training import check_fit, make_run, train_run

FAILURE = "failed.txt"  # in the folder of a training that diverged: why


def check_trainings(combinations: Sequence[Combination], data: Dataset, crew: Crew) -> None:
    """Refuse a sweep that could not end, before anything of it is made.

    Args:
        combinations: that are to be trained.
        data: of what was swept, which its own networks and batches can take.
        crew: that is to train them.

    Raises:
        DataError: the validation split is too small to rank anything.
        Invalid: names the training that cannot be, and why.
    """
    if len(data.indices["validation"]) < MIN_REALS:
        raise DataError("the validation split is too small to rank trainings by", field="data")
    for combination in combinations:
        config = combination.config
        try:
            if (config.preset == "mlp") != (data.kind == "vector"):
                raise Invalid(f"{config.preset} does not make {data.kind}s, which {config.data} holds", field="preset")
            make_run(config, data)
            check_fit(config, data.shape, crew)
        except Invalid as error:
            raise Invalid(f"{combination.label}: {error.detail}", field="sweep") from error


class Sweep:
    """Several short trainings on one data set.

    Args:
        folder: of the sweep; what an earlier call finished there is not done again.
        combinations: to train, that have passed `check_trainings`.
        data: that all are trained on.
        crew: whose first process this is; without it the only one.
    """

    def __init__(
        self, folder: Path, combinations: Sequence[Combination], data: Dataset, crew: Crew | None = None
    ) -> None:
        self.folder, self.combinations, self.data, self.crew = folder, combinations, data, crew

    def train(self) -> bool:
        """Train what is not done yet; says whether all is, and none was stopped.

        Raises:
            Refused: the folder holds another sweep.
        """
        runs = [self._run(combination) for combination in self.combinations]
        for number, (combination, run) in enumerate(zip(self.combinations, runs, strict=True), 1):
            print(f"sweep {number}/{len(self.combinations)}: {combination.label}", file=sys.stderr)
            if not self._train(RunDir(self.folder / combination.label), run):
                return False
        if (best := self.best) is not None:
            self._keep(best)
        return True

    @property
    def best(self) -> Outcome | None:
        """The training that is nearest to the data; None where every one failed, or could not be measured."""
        first = self.ranks()[0].best
        return None if first.share is None or first.failure else first

    def ranks(self) -> list[Rank]:
        """How the trainings stand, the best first."""
        return rank([self._outcome(combination) for combination in self.combinations])

    def lines(self) -> list[str]:
        """The ranking for a person, and the command that trains the best in full, where there is one."""
        ranks, best = self.ranks(), self.best
        width = max(len(found.setting) for found in ranks)
        told = [f"{found.setting:<{width}}  {_told(found)}" for found in ranks]
        if best is None:
            return told
        told.append(f"best: {ranks[0].setting}, kept in {self.folder / best.label}; the others' weights are deleted")
        kimg = self._chosen(best).full.kimg
        return [*told, f"train it in full ({kimg:g} kimg): genserve train --config {self.folder}/best.json"]

    def _run(self, combination: Combination) -> Run:
        """The run of a combination, which is in its folder or can be made there."""
        run_dir, run = RunDir(self.folder / combination.label), make_run(combination.config, self.data)
        if (run_dir.path / "config.json").exists() and (other := _different(run_dir.read(), run)):
            detail = f"{run_dir.path} is a training with another {other}: choose another folder"
            raise Refused(detail, field="run_dir")
        return run

    def _train(self, run_dir: RunDir, run: Run) -> bool:
        if not (run_dir.path / "config.json").exists():
            run_dir.create(run)
        failure = run_dir.path / FAILURE
        if failure.exists() or RunRecord(run_dir.path).state == "done":
            return True
        try:
            return train_run(run_dir, run, self.data, self.crew)
        except Diverged as error:
            replace_file(failure, f"{error.detail}\n".encode())
            return True

    def _keep(self, best: Outcome) -> None:
        """Write down which was best; of all others delete what takes room."""
        for combination in self.combinations:
            if combination.label != best.label:
                _drop_weights(self.folder / combination.label)
        kept = {"best": best.label, "ranks": [found._asdict() for found in self.ranks()]}
        replace_file(self.folder / "sweep.json", pretty_json(kept))
        replace_file(self.folder / "best.json", pretty_json(self._chosen(best).full))

    def _chosen(self, best: Outcome) -> Combination:
        return next(found for found in self.combinations if found.label == best.label)

    def _outcome(self, combination: Combination) -> Outcome:
        record, failure = RunRecord(self.folder / combination.label), self.folder / combination.label / FAILURE
        best = record.best
        return Outcome(
            label=combination.label,
            share=None if best is None else record.scores[best].share,
            kimg=best,
            seed=combination.config.seed,
            failure=failure.read_text().strip() if failure.exists() else None,
        )


def _different(there: Run, run: Run) -> str:
    """What differs between two runs, in words; nothing where they are the same."""
    was, now = (msgspec.structs.asdict(config) for config in (_pinned(there.config), run.config))
    names = [f"{name} ({was[name]}, not {now[name]})" for name in now if was[name] != now[name]]
    return ", ".join([*names, *(["content of the data"] if there.data_hash != run.data_hash else [])])


def _pinned(config: Config) -> Config:
    """Runs of before there was a choice of device were on the processor."""
    return msgspec.structs.replace(config, device="cpu") if config.device == "auto" else config


def _told(found: Rank) -> str:
    """FD/Tr of one training, or the median and range of several."""
    best = found.best
    if best.share is None or best.failure:
        return best.failure or "no score"
    if len(found.shares) == 1:
        return f"FD/Tr {best.share:.4f} at {best.kimg:g} kimg"
    return f"FD/Tr {found.share:.4f} [{found.shares[0]:.4f} {found.shares[-1]:.4f}] over {len(found.shares)} seeds"


def _drop_weights(folder: Path) -> None:
    """Snapshots first, and all at once: a run without their folder is known to have been done with."""
    with RunDir(folder).held():
        clear_leftovers(folder)
        if (folder / "snapshots").exists():
            remove_folder(folder / "snapshots")
        (folder / "checkpoint.pt").unlink(missing_ok=True)
