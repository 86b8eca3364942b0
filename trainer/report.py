"""`genserve report`: one page, whole in itself, that tells a run's story. Changes nothing else of the run."""

import argparse
import base64
import hashlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from html import escape
from pathlib import Path
from string import Template
from typing import TypeVar

import msgspec

from models.errors import GenserveError, Invalid, NotFound
from models.files import replace_file
from models.progress import Progress
from trainer.exporting import load_generator
from trainer.report_pictures import frames
from trainer.report_samples import certainty, neighbours, walks
from trainer.report_sections import SECTIONS, Gathered
from trainer.report_theory import equilibrium, relations
from trainer.report_words import chosen, data_name
from trainer.run_data import load_run_data
from trainer.run_dir import RunDir
from trainer.run_records import RunRecord
from trainer.signatures import signature_of
from trainer.training import prepare_torch

PAGE_DIR = Path(__file__).parent / "report_page"
REPORT_NAME = "report.html"
COLUMNS = (
    "d_loss", "g_loss", "d_real", "d_fake", "d_norm", "g_norm", "d_accuracy", "d_accuracy_seen", "images_per_second"
)  # fmt: skip
MOST_ROWS = 3000  # of the numbers under the cursor
IMAGE_AXES = 3  # (H, W, C)
T = TypeVar("T")


def report(args: argparse.Namespace) -> int:
    """Write the page of a run; returns the exit status.

    Raises:
        NotFound: there is no run, or it has no statistics yet.
        Invalid: its files are damaged, or the output is a folder.
    """
    record = RunRecord(args.run_dir)
    if not record.lines:
        raise NotFound(f"{record.path} has no statistics yet: train for a while first", field="run_dir")
    output = args.output or record.path / REPORT_NAME
    if output.is_dir():
        raise Invalid(f"{output} is a folder: name a file in it", field="output")
    page = render(gather(record, quick=args.quick)).encode()
    output.parent.mkdir(parents=True, exist_ok=True)
    replace_file(output, page)
    print(f"{output}: {len(page) / 1e6:.1f} MB, in one file")
    return 0


def gather(record: RunRecord, *, quick: bool = False) -> Gathered:
    """All that the page tells; `quick` leaves out what needs the data and the network."""
    choice = chosen(record)
    told = Gathered(
        record=record,
        choice=choice,
        frames=frames(record.path / "samples", choice.kimg if choice else None),
        equilibrium=equilibrium(record.setting("loss")),
        relations=relations(record),
    )
    return told if quick or choice is None else _drawn_anew(told, choice.kimg)


def render(told: Gathered) -> str:
    """The page, with its style and script in it and nothing from elsewhere: its policy forbids browsers to ask."""
    script, style = ((PAGE_DIR / name).read_text(encoding="utf-8") for name in ("page.js", "page.css"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return Template((PAGE_DIR / "page.html").read_text(encoding="utf-8")).substitute(
        title=escape(f"{data_name(told.record)}: {told.record.path}"),
        policy=f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'",
        style=style,
        body="\n".join(section(told) for section in SECTIONS),
        numbers=_numbers(told.record),
        script=script,
    )


def _drawn_anew(told: Gathered, kimg: float) -> Gathered:
    """With what the chosen snapshot and the data give; what cannot be had leaves its reason."""
    missing: dict[str, str] = {}
    bar = Progress("report", 6)

    def attempt(name: str, make: Callable[[], T]) -> T | None:
        try:
            return make()
        except GenserveError as error:
            missing[name] = f"Not here: {error.detail}."
            return None
        finally:
            bar.advance(1)

    run_dir = RunDir(told.record.path)
    run = attempt("walks", run_dir.read)
    if run is None:
        bar.end()
        return replace(told, missing=missing)
    prepare_torch(run.config)
    signature = signature_of(run.config, run.shape, run.classes)
    data = attempt("data", partial(load_run_data, run))
    G = attempt("walks", partial(load_generator, run_dir, run, kimg))
    images = len(run.shape) == IMAGE_AXES
    told = replace(told, inventory=data.inventory if data else None, missing=missing)
    if G is not None and images:
        told = replace(told, walks=attempt("walks", partial(walks, G, signature)))
    if G is not None and data is not None:
        told = replace(told, certainty=attempt("certainty", partial(certainty, G, signature, data)))
        if images:
            near = partial(neighbours, G, signature, data, flip=run.config.flip)
            told = replace(told, neighbours=attempt("neighbours", near))
    elif images:
        missing["neighbours"] = missing.get("data") or missing["walks"]
    bar.end()
    return told


def _numbers(record: RunRecord) -> str:
    """What the page's cursor reads, as JSON that cannot end its element."""
    step = -(-len(record.ticks) // MOST_ROWS) or 1
    ticks = record.ticks[::step]
    columns = {name: [_rounded(getattr(tick, name)) for tick in ticks] for name in COLUMNS}
    scores = {"kimg": list(record.scores), "share": [_rounded(score.share) for score in record.scores.values()]}
    numbers = {"kimg": [tick.kimg for tick in ticks], "columns": columns, "scores": scores}
    return msgspec.json.encode(numbers).decode().replace("<", "\\u003c")


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")
