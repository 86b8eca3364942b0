"""Chooses a snapshot of a run and writes its ONNX file, parity proof and record. Knows nothing of the command line."""

import hashlib
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from models.errors import Invalid
from models.export_record import MODEL_NAME, ExportRecord, parity_path, record_path
from models.files import pretty_json, replace_file
from models.labels import distance
from trainer.network_parts import Generator
from trainer.networks import make_generator
from trainer.onnx_export import Servable, parity, to_onnx
from trainer.run_data import load_run_data
from trainer.run_dir import Run, RunDir
from trainer.selection import make_scorer
from trainer.signals import Score, Stats
from trainer.signatures import signature_of


class Choice(NamedTuple):
    """A snapshot and why it was chosen."""

    kimg: float
    chosen_by: Literal["validation FD", "default", "a person"]
    reason: str


def choose(run_dir: RunDir, kimg: float | None, why: str | None, scores: dict[float, Score]) -> Choice:
    """The snapshot to export: a person's pick, else the lowest validation FD.

    Args:
        run_dir: of the run.
        kimg: the person's pick; None for the best.
        why: what the person says.
        scores: of the snapshots, all with one extractor.

    Raises:
        Invalid: a reason without a pick.
        NotFound: no such snapshot, or none at all.
    """
    if kimg is not None:
        reason = why or f"picked with --checkpoint {kimg:g}"
        return Choice(run_dir.find_snapshot(kimg), "a person", reason)
    if why:
        raise Invalid("give a reason together with --checkpoint", field="reason")
    there = [k for k in run_dir.snapshots() if k in scores]
    if not there:
        last = run_dir.find_snapshot(max(run_dir.snapshots(), default=0.0))
        return Choice(last, "default", "the last snapshot: the validation split is too small or too uniform to measure")
    best = min(there, key=lambda k: (scores[k].share, -k))
    score = scores[best]
    measure = f"{distance('FD/Tr', score.extractor)} {score.share:.4f}"
    reason = f"lowest of {len(there)} snapshots: {measure} on the validation split"
    return Choice(best, "validation FD", reason)


def score_missing(run_dir: RunDir, run: Run) -> dict[float, Score]:
    """The scores of all snapshots by the data set's extractor of today, measuring those that lack one."""
    scorer = make_scorer(load_run_data(run))
    if scorer is None:
        return {}
    scores = {k: s for k, s in run_dir.scores().items() if s.extractor == scorer.extractor.label}
    for kimg in run_dir.snapshots():
        if kimg not in scores:
            G_ema = load_generator(run_dir, run, kimg)
            scores[kimg] = scorer.score(G_ema, signature_of(run.config, run.shape, run.classes))
            run_dir.append_stats(Stats(kimg=kimg, score=scores[kimg]))
    return scores


def load_generator(run_dir: RunDir, run: Run, kimg: float) -> Generator:
    """A snapshot's generator, in eval mode with its own BatchNorm statistics.

    Raises:
        NotFound: there is no such snapshot.
        Invalid: it is damaged, or was made with another configuration.
    """
    G_ema = make_generator(run.config, run.shape, len(run.classes.names) if run.classes else 0)
    weights = run_dir.load_snapshot(kimg)
    try:
        G_ema.load_state_dict(weights)
    except RuntimeError as error:
        raise Invalid(f"the snapshot at {kimg:g} kimg does not fit config.json", field="run_dir") from error
    return G_ema.eval().requires_grad_(False)


def write_export(run_dir: RunDir, run: Run, choice: Choice, output: Path | None) -> Path:
    """Write the ONNX file, its parity proof and its record beside it; nothing is written where parity fails.

    Args:
        run_dir: of the run.
        run: its configuration and data.
        choice: what to export.
        output: of the ONNX file; None for export/model.onnx in the run's folder.

    Raises:
        Invalid: the output is a folder.
        Refused: ONNX Runtime does not agree with torch.
    """
    path = output or run_dir.export_dir / MODEL_NAME
    if path.is_dir():
        raise Invalid(f"{path} is a folder: name a file in it", field="output")
    signature = signature_of(run.config, run.shape, run.classes)
    servable = Servable(load_generator(run_dir, run, choice.kimg))
    data = to_onnx(servable, signature)
    proof = parity(servable, data, signature)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, data)
    replace_file(parity_path(path), pretty_json(proof))
    replace_file(record_path(path), pretty_json(_record(run, choice, data)))
    return path


def _record(run: Run, choice: Choice, data: bytes) -> ExportRecord:
    return ExportRecord(
        digest=hashlib.sha256(data).hexdigest(),
        checkpoint_kimg=choice.kimg,
        chosen_by=choice.chosen_by,
        reason=choice.reason,
        data=run.config.data,
        data_hash=run.data_hash,
        licence=run.licence,
        seed=run.config.seed,
        kimg=run.config.kimg,
        configuration=msgspec.to_builtins(run.config),
        code_version=run.code_version,
    )
