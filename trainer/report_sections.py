"""The sections of a report's page, each from what was gathered. Escapes whatever comes from files."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from statistics import median

from models.closest import Neighbours
from models.inventory import Inventory
from models.pictures import Images
from trainer.arguments import OPTIONS
from trainer.progress import duration
from trainer.report_curves import Plot, Scale, scale_of
from trainer.report_diagnosis import diagnosis_section
from trainer.report_pictures import Frame, picture
from trainer.report_samples import STEPS, WALKS, Certainty
from trainer.report_theory import Equilibrium, Relation
from trainer.report_words import (
    CONFIDENT,
    GATE_LIMIT,
    Chosen,
    about,
    data_name,
    neighbours_sentence,
    relation_sentences,
    summary,
)
from trainer.run_records import DEFAULTS, RunRecord

HELP = {name: text for name, _, _, text in OPTIONS}
SHOWN = {
    "least-squares": "D's outputs: 1 is real, 0 generated",
    "hinge": "D's outputs, on a scale of their own",
    "wasserstein": "D's outputs, on a scale of their own",
    "relativistic": "how probably D tells a pair the right way round, and the other",
}
PROBABILITIES = ("non-saturating", "minimax", "relativistic")


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """All that a page tells.

    Args:
        record: of the run.
        choice: the snapshot that the page is about.
        frames: sample grids through time.
        equilibrium: of the run's objective.
        relations: of its losses with FD.
        certainty: of the chosen snapshot's score.
        neighbours: of its samples.
        walks: between seeds.
        inventory: of the data.
        missing: why some of the last four are not there, one reason for each.
    """

    record: RunRecord
    choice: Chosen | None
    frames: Sequence[Frame]
    equilibrium: Equilibrium | None
    relations: Sequence[Relation]
    certainty: Certainty | None = None
    neighbours: Neighbours | None = None
    walks: Images | None = None
    inventory: Inventory | None = None
    missing: dict[str, str] = field(default_factory=dict)


def header(told: Gathered) -> str:
    """What the run is, in a few sentences and figures."""
    record = told.record
    sentences = "".join(f"<p>{escape(text)}</p>" for text in summary(record, told.choice, told.certainty))
    best = record.best
    figures = [
        ("best FD/Tr", f"{record.scores[best].share:.4f}" if best is not None else "-"),
        ("at kimg", about(best) if best is not None else "-"),
        ("chosen", f"{about(told.choice.kimg)} kimg" if told.choice else "-"),
        ("images/s", f"{record.images_per_second:,.0f}" if record.images_per_second else "-"),
        ("time", duration(record.seconds) if record.seconds else "-"),
    ]
    tiles = "".join(f"<div><dt>{name}</dt><dd>{escape(value)}</dd></div>" for name, value in figures)
    return (
        f'<header><p class="run">{escape(str(record.path))}</p><h1>{escape(data_name(record))} '
        f'<span class="state {record.state}">{record.state}</span></h1>'
        f'<div class="lead">{sentences}</div><dl class="tiles">{tiles}</dl></header>'
    )


def diagnosis(told: Gathered) -> str:
    """What is the matter with the run, or that nothing is."""
    return diagnosis_section(told.record)


def overview(told: Gathered) -> str:
    """The samples, through time, beside the curve that says how good they are."""
    player, curve = _player(told), _scores(told)
    if not player and not curve:
        return ""
    return f'<section class="wide" id="samples"><div class="pair">{player}{curve}</div></section>'


def game(told: Gathered) -> str:
    """Both losses, D's outputs, and gradient norms where they were kept."""
    loss = told.record.setting("loss")
    at = told.equilibrium
    levels = ((at.d_loss, "D's, if D = ½"), (at.g_loss, "G's, if D = ½")) if at else ()
    outputs_y = Scale(0.0, 1.0) if loss in PROBABILITIES else None
    shown = SHOWN.get(str(loss), "D's mean probability of “real”")
    parts = [
        _curves(told, "Losses", "without penalties", (("d_loss", "D", "d"), ("g_loss", "G", "g")), levels),
        _curves(
            told, "What D says", shown, (("d_real", "D(x)", "d"), ("d_fake", "D(G(z))", "g")),
            ((at.shown, "equilibrium"),) if at else (), outputs_y,
        ),
        _curves(told, "Gradients", "norm over all weights", (("d_norm", "D", "d"), ("g_norm", "G", "g")), ()),
        _curves(
            told, "How often D is right", "of unseen and of training samples; it falls as G improves",
            (("d_accuracy", "unseen", "d"), ("d_accuracy_seen", "training", "d faint")), ((0.5, "chance"),),
            Scale(0.0, 1.0),
        ),
    ]  # fmt: skip
    if not any(parts):
        return ""
    note = (
        "At the equilibrium D cannot tell the two apart and says ½ to both. The reverse does not hold: a D that has "
        "given up says ½ too."
        if at
        else "This objective has no value of its own at the equilibrium: read the gap between the curves, not a height."
    )
    return _section("The game", f'<div class="grid-2">{"".join(parts)}</div><p>{note}</p>', "game")


def losses_against_quality(told: Gathered) -> str:
    """The rank correlation of each loss with FD, and the points themselves."""
    if not told.relations:
        return ""
    rows = "".join(
        f"<tr><th>{r.player}'s loss</th><td>{r.levels:+.2f}</td><td>{r.changes:+.2f}</td><td>{len(r.losses)}</td></tr>"
        for r in told.relations
    )
    table = (
        "<table><thead><tr><th>Spearman's rank correlation with FD</th><th>over the run</th>"
        f"<th>of changes</th><th>snapshots</th></tr></thead><tbody>{rows}</tbody></table>"
    )
    plots = "".join(_against(relation) for relation in told.relations)
    words = " ".join(relation_sentences(told.relations))
    why = (
        "A loss that measured quality would stand at +1 in both columns. Each loss only says how one player fares "
        "against the other, who learns too: choose snapshots by FD and by eye."
    )
    body = f'<p>{escape(words)} {why}</p>{table}<div class="grid-2">{plots}</div>'
    return _section("Do the losses tell quality?", body, "losses")


def pick_by_eye(told: Gathered) -> str:
    """Every snapshot's samples, each with the command that exports it."""
    there = [frame for frame in told.frames if frame.kimg in told.record.snapshots]
    if not there:
        return ""
    left_out = len(told.record.snapshots) - len(there)
    note = f" {left_out} more snapshots are not shown." if left_out else ""
    cards = "".join(_card(told, frame) for frame in there)
    return _section(
        "Pick a checkpoint by eye",
        "<p>All from the same z. FD does not see everything: a person may pick another snapshot, and the reason is "
        f'kept in the history.{note}</p><label class="why">Your reason <input id="why" value="picked by eye" '
        f'maxlength="200" autocomplete="off"></label><div class="cards">{cards}</div>',
        "pick",
    )


def nearest(told: Gathered) -> str:
    """Samples over their nearest training images."""
    title = "Nearest training images"
    if told.neighbours is None:
        return _absent(title, told, "neighbours")
    columns = "".join(
        f'<figure class="column"><img alt="sample of seed {n.number} over its nearest training images" '
        f'src="{picture(n.column)}"><figcaption>seed {n.number}<br>{n.distance:.1f} levels</figcaption></figure>'
        for n in told.neighbours.shown
    )
    body = (
        f"<p>{escape(neighbours_sentence(told.neighbours))}</p><p>Below, the samples that are nearest of all: in each "
        "column the sample, framed, over its three nearest training images.</p>"
        f'<div class="columns">{columns}</div>'
    )
    return _section(title, body, "neighbours")


def between_seeds(told: Gathered) -> str:
    """Walks from seed to seed."""
    title = "Between two seeds"
    if told.walks is None:
        return _absent(title, told, "walks")
    pairs = ", ".join(f"{a} to {b}" for a, b in WALKS)
    body = (
        f"<p>Seeds {pairs}, in {STEPS} steps each, of the chosen snapshot. A generator that has understood its data "
        "changes smoothly and passes through plausible samples; one that has memorised jumps.</p>"
        f'<img class="strip" alt="walks between seeds" src="{picture(told.walks)}">'
    )
    return _section(title, body, "walks")


def data(told: Gathered) -> str:
    """What it was trained on."""
    file = told.record.file
    facts = [("data", str(told.record.setting("data"))), ("licence", file.licence or "unknown")]
    facts.append(("shape", " × ".join(map(str, file.shape)) or "unknown"))
    if file.classes:
        facts.append(("classes", ", ".join(file.classes.names)))
    facts.append(("content hash", file.data_hash or "unknown"))
    if told.inventory:
        facts += [("read", line) for line in told.inventory.lines()]
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in facts)
    missing = f"<p>{escape(told.missing['data'])}</p>" if "data" in told.missing else ""
    return _section("Data", f'{missing}<table class="facts">{rows}</table>', "data")


def configuration(told: Gathered) -> str:
    """What differs from the defaults first."""
    config = told.record.file.config
    changed = {name: value for name, value in config.items() if name != "data" and value != DEFAULTS.get(name)}
    same = {name: value for name, value in config.items() if name != "data" and name not in changed}
    if changed:
        body = f"<p>What differs from the defaults:</p>{_settings(changed, defaults=True)}"
    else:
        body = "<p>Everything is as by default.</p>"
    body += f"<details><summary>{len(same)} settings as by default</summary>{_settings(same, defaults=False)}</details>"
    version = f"<p>Trained with genserve {escape(told.record.file.code_version or 'unknown')}.</p>"
    return _section("Configuration", body + version, "configuration")


def speed(told: Gathered) -> str:
    """Images a second, over the run."""
    plot = _curves(told, "Real images a second", "shown to D", (("images_per_second", "images/s", "d"),), ())
    if not plot:
        return ""
    record = told.record
    snapshots = [line.snapshot_seconds for line in record.lines if line.snapshot_seconds]
    words = [f"{record.images_per_second:,.0f} images a second in the median" if record.images_per_second else ""]
    words += [f"{duration(record.seconds)} of training in all"] if record.seconds else []
    words += [f"{median(snapshots):.1f} s for a snapshot and its score"] if snapshots else []
    return _section("Speed", f"<p>{escape('; '.join(filter(None, words)))}.</p>{plot}", "speed")


SECTIONS = (
    header, diagnosis, overview, game, losses_against_quality, nearest, between_seeds, pick_by_eye, data, configuration,
    speed,
)  # fmt: skip


def _section(title: str, body: str, name: str) -> str:
    return f'<section id="{name}"><h2>{title}</h2>{body}</section>'


def _absent(title: str, told: Gathered, name: str) -> str:
    reason = told.missing.get(name)
    return _section(title, f'<p class="absent">{escape(reason)}</p>', name) if reason else ""


def _player(told: Gathered) -> str:
    if not told.frames:
        return ""
    wanted = told.choice.kimg if told.choice else told.frames[-1].kimg
    start = min(range(len(told.frames)), key=lambda i: abs(told.frames[i].kimg - wanted))
    frame = told.frames[start]
    return (
        '<figure class="player"><figcaption><b>Samples of fixed z</b> '
        f'<output id="frame">{about(frame.kimg)} kimg</output></figcaption>'
        f'<img id="player" width="{frame.width}" height="{frame.height}" alt="sample grid" '
        f'src="{frame.uri}"><div class="controls" hidden><button id="play" type="button" aria-label="play">▶</button>'
        f'<input id="slider" type="range" min="0" max="{len(told.frames) - 1}" value="{start}" '
        f'data-kimg="{frame.kimg:.10g}" aria-label="kimg"></div></figure>'
    )


def _scores(told: Gathered) -> str:
    scores = told.record.scores
    if not scores:
        return ""
    xs, ys = list(scores), [score.share for score in scores.values()]
    log = min(ys) > 0 and max(ys) > 5 * min(ys)
    bars = []
    if told.certainty and told.choice:
        width = CONFIDENT * told.certainty.error
        bars.append((told.choice.kimg, told.certainty.share - width, told.certainty.share + width))
    held = [*ys, *(high for _, _, high in bars), *(low for _, low, _ in bars if low > 0 or not log)]
    if 2 * max(ys) > GATE_LIMIT:
        held.append(GATE_LIMIT)
    plot = Plot(_kimg_scale(told), scale_of(held, log=log), "kimg", follows=True)
    plot.level(GATE_LIMIT, "gate")
    for bar in bars:
        plot.bar(*bar, "fd")
    plot.line(xs, ys, "fd", "FD/Tr")
    plot.dots(xs, ys, "fd")
    chosen = told.choice.kimg if told.choice else None
    if chosen is not None and chosen in scores:
        plot.dots([chosen], [scores[chosen].share], "chosen")
    label = escape(next(iter(scores.values())).extractor)
    scale = ", logarithmic" if log else ""
    bar_note = ", with a 95 % interval" if bars else ""
    unbiased = ""
    if told.certainty:
        sure = f"{told.certainty.unbiased:.4f} ± {CONFIDENT * told.certainty.error:.4f}"
        unbiased = f" Without the bias of its number of samples it stands at {sure}."
    return (
        f'<figure class="chart tall" data-columns="share"><figcaption><b>Distance to unseen real images</b> '
        f'<output></output></figcaption>{plot.html()}<p class="note">FD/Tr[{label}] on the validation split, lower is '
        f"better{scale}; the chosen snapshot is ringed{bar_note}.{unbiased}</p></figure>"
    )


def _curves(
    told: Gathered,
    title: str,
    note: str,
    columns: Sequence[tuple[str, str, str]],
    levels: Sequence[tuple[float, str]],
    y: Scale | None = None,
) -> str:
    """Columns (field, name, style) of the statistics over kimg; "" where the run has none of them."""
    series = {}
    for column, name, style in columns:
        points = [(tick.kimg, value) for tick in told.record.ticks if (value := getattr(tick, column)) is not None]
        if points:
            series[name, style] = points
    if not series:
        return ""
    values = [value for points in series.values() for _, value in points]
    plot = Plot(_kimg_scale(told), y or scale_of([*values, *(level for level, _ in levels)]), "kimg", follows=True)
    for level, label in levels:
        plot.level(level, label)
    for (name, style), points in series.items():
        plot.line([kimg for kimg, _ in points], [value for _, value in points], style, name)
    names = " ".join(column for column, _, _ in columns)
    return (
        f'<figure class="chart" data-columns="{names}"><figcaption><b>{title}</b> <small>{escape(note)}</small> '
        f"<output></output></figcaption>{plot.html()}</figure>"
    )


def _against(relation: Relation) -> str:
    style = relation.player.lower()
    log = min(relation.shares) > 0 and max(relation.shares) > 5 * min(relation.shares)
    plot = Plot(scale_of(relation.losses), scale_of(relation.shares, log=log), f"{relation.player}'s loss")
    plot.line(relation.losses, relation.shares, f"{style} faint")
    plot.dots(relation.losses, relation.shares, style)
    plot.dots(relation.losses[-1:], relation.shares[-1:], "chosen")
    return (
        f'<figure class="chart"><figcaption><b>FD/Tr against {relation.player}\'s loss</b> <small>a dot a snapshot, in '
        f"order of time; the last is ringed</small></figcaption>{plot.html()}</figure>"
    )


def _kimg_scale(told: Gathered) -> Scale:
    return Scale(0.0, max(told.record.kimg, 1e-3))


def _card(told: Gathered, frame: Frame) -> str:
    at = f"{about(frame.kimg)} kimg"
    score = told.record.scores.get(frame.kimg)
    marks = [("best", frame.kimg == told.record.best)]
    marks.append(("exported", bool(told.choice and told.choice.exported and told.choice.kimg == frame.kimg)))
    pills = "".join(f'<span class="pill">{name}</span>' for name, holds in marks if holds)
    told_score = f"FD/Tr {score.share:.4f}" if score else "no score"
    command = f"genserve export {shlex.quote(str(Path(told.record.path)))} --checkpoint {frame.kimg:.10g} --reason "
    return (
        f'<article class="card" data-kimg="{frame.kimg:.10g}"><img loading="lazy" width="{frame.width}" '
        f'height="{frame.height}" alt="samples at {at}" src="{frame.uri}"><h3>{at} {pills}</h3>'
        f'<p>{told_score}</p><div class="command"><code>{escape(command)}<span class="reason">'
        '&#x27;picked by eye&#x27;</span></code><button type="button" class="copy">Copy</button></div></article>'
    )


def _settings(settings: dict[str, object], *, defaults: bool) -> str:
    head = "<tr><th>setting</th><th>value</th>" + ("<th>default</th>" if defaults else "") + "<th></th></tr>"
    rows = "".join(
        f"<tr><th><code>{escape(name)}</code></th><td>{escape(_value(value))}</td>"
        + (f"<td>{escape(_value(DEFAULTS.get(name)))}</td>" if defaults else "")
        + f'<td class="soft">{escape(HELP.get(name, ""))}</td></tr>'
        for name, value in settings.items()
    )
    return f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>"


def _value(value: object) -> str:
    """As a person writes it."""
    if value is None:
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
