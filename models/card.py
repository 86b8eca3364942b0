"""A version's model card: what it is, what it was judged to be, how it was made. Knows no HTML and no Markdown.

After Mitchell et al. 2019, "Model Cards for Model Reporting", as far as the repository knows the facts: nothing is said
that a record does not hold.
"""

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from models.errors import LoadError
from models.figures import figure, interval
from models.manifest import Manifest, Provenance
from models.records import Event, Number, Reference, Verdict
from models.repository import CLOSEST_SUFFIX, Repository, Version
from models.runtime import short_name
from models.sources import SOURCES
from models.variants import variants

CLOSEST = "Samples (first row) that lie nearest to training images, over the three nearest ones each."
PRIORS = {"normal": "N(0, I)", "uniform": "U(-1, 1)"}


class Paragraph(NamedTuple):
    """Plain text."""

    text: str


class Table(NamedTuple):
    """Rows below a head; the first column is text, the others are numbers or words."""

    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


class Picture(NamedTuple):
    """A PNG file."""

    name: str
    alt: str
    png: bytes


class Code(NamedTuple):
    """Lines to copy."""

    text: str


Block = Paragraph | Table | Picture | Code


class Section(NamedTuple):
    """A heading and what stands below it."""

    title: str
    blocks: Sequence[Block]


class Card(NamedTuple):
    """A whole card."""

    title: str
    summary: str
    sections: list[Section]


def build_card(repository: Repository, version: Version, *, public: bool, closest: bytes | None = None) -> Card:
    """What the repository knows of a version.

    Args:
        repository: the one it lies in.
        version: of a model.
        public: for anybody to read: who did what, and paths of data, are left out.
        closest: PNG of the samples nearest to training images; None for the one kept with its last verdict, if any.

    Raises:
        LoadError: a record of the version is damaged.
    """
    manifest, verdicts = version.manifest(), repository.verdicts(version)
    history = repository.history(version.name)
    verdict = repository.passing(version) or (verdicts[-1] if verdicts else None)
    data = _data_name(manifest.provenance.data, public)
    sections = [
        _status(repository, version, history, public),
        _data(manifest, repository.reference(version.name), data),
        *_samples(version),
        _judgement(verdict, len(verdicts)),
        *_signatures(repository, version),
        *_closest(closest or _kept_closest(version, verdict)),
        *_variants(version),
        _making(version, manifest, data),
    ]
    return Card(str(version), _summary(manifest, version), sections)


def _summary(manifest: Manifest, version: Version) -> str:
    shape = " x ".join(map(str, manifest.shape))
    told = f"A generator of {manifest.kind}s of {shape}"
    if manifest.classes:
        told += f", of {len(manifest.classes.names)} classes: {', '.join(manifest.classes.names)}"
    size = version.model_path.stat().st_size / 1e6
    prior = PRIORS[manifest.prior]
    return f"{told}. z ~ {prior}, {manifest.z_dim} numbers. ONNX, {size:.1f} MB, sha256 {manifest.digest}."


def _status(repository: Repository, version: Version, history: Sequence[Event], public: bool) -> Section:
    aliases = repository.aliases(version.name)
    roles = {aliases.champion: "It is the champion: what serves.", aliases.candidate: "It is the candidate."}
    rows = [
        (_when(event.when), event.event, "" if public else event.by, event.why or "", _replaced(event))
        for event in history
        if event.version == version.number
    ]
    head, keep = ("when (UTC)", "what", "by", "why", "in place of"), [i for i in range(5) if not (public and i == 2)]
    table = Table(tuple(head[i] for i in keep), [tuple(row[i] for i in keep) for row in rows])
    return Section("Status", [Paragraph(roles.get(version.number, "It is neither champion nor candidate.")), table])


def _when(moment: str) -> str:
    """ISO 8601 in UTC, to the minute."""
    return moment[:16].replace("T", " ")


def _replaced(event: Event) -> str:
    return "" if event.replaced is None else f"@{event.replaced}"


def _data(manifest: Manifest, reference: Reference | None, data: str | None) -> Section:
    made = manifest.provenance
    facts = [
        ("trained on", data or "not known"),
        ("its sha256", made.data_hash or "not known"),
        ("its licence", made.licence or "not known"),
    ]
    if reference is not None:
        splits = ", ".join(f"{count} {name}" for name, count in reference.splits.items())
        facts += [("judged against, sha256", reference.data_hash), ("its splits", splits)]
    else:
        facts.append(("judged against", "nothing: published without data"))
    return Section("Data", [Table(("fact", "value"), facts)])


def _samples(version: Version) -> list[Section]:
    if not version.samples_path.is_file():
        return []
    told = Paragraph("Seeds from 0 on, row by row, not picked.")
    return [Section("Samples", [told, Picture("samples.png", "a grid of samples", version.samples_path.read_bytes())])]


def _judgement(verdict: Verdict | None, count: int) -> Section:
    if verdict is None:
        return Section("Judgement", [Paragraph("It was never judged.")])
    against = "no champion was there" if verdict.champion is None else f"against the champion then, @{verdict.champion}"
    told = (
        f"{verdict.decision.upper()}, {_when(verdict.created)} UTC, {against}; {verdict.policy.get('num_fake')} "
        f"samples of the file that is served, on data that nothing else ever opened. Features: {verdict.extractor}. "
        f"Policy {verdict.policy_hash[:12]}.{f' The version was judged {count} times.' if count > 1 else ''}"
    )
    blocks: list[Block] = [Paragraph(told), *map(Paragraph, verdict.reasons), number_table(verdict.numbers)]
    return Section("Judgement", blocks)


def number_table(numbers: Mapping[str, Number]) -> Table:
    """Measures, each beside what real data measures in its place."""
    rows = []
    for name, number in numbers.items():
        if name.startswith("real "):
            continue
        real = numbers.get(f"real {name}")
        limit = "" if number.threshold is None else figure(number.threshold)
        outcome = "" if number.passed is None else ("pass" if number.passed else "FAIL")
        rows.append((name, figure(number.value), interval(number), figure(real.value) if real else "", limit, outcome))
    return Table(("measure", "value", "95 % interval", "real data", "limit", ""), rows)


def _signatures(repository: Repository, version: Version) -> list[Section]:
    """Whose signatures of the newest verdict hold; nothing of a version without one."""
    if not repository.verdict_paths(version):
        return []
    try:
        signed = repository.attested(version)
    except LoadError as error:
        return [Section("Signatures", [Paragraph(f"They do not hold. {error.detail}")])]
    if signed is None:
        return [Section("Signatures", [Paragraph("The newest verdict is unsigned.")])]
    keys = Table(("the newest verdict is signed by (Ed25519)",), [(key,) for key in signed.signatures])
    return [Section("Signatures", [keys])]


def _kept_closest(version: Version, verdict: Verdict | None) -> bytes | None:
    """The picture kept with the last verdict over this very file."""
    if verdict is None:
        return None
    paths = sorted((version.path / "verdicts").glob(f"*{CLOSEST_SUFFIX}"))
    return paths[-1].read_bytes() if paths else None


def _closest(png: bytes | None) -> list[Section]:
    if png is None:
        return []
    return [Section("Nearest training images", [Paragraph(CLOSEST), Picture("closest.png", CLOSEST, png)])]


def _variants(version: Version) -> list[Section]:
    rows = []
    for variant in variants(version):
        try:
            manifest, verdict = variant.manifest(), variant.verdict()
        except LoadError:
            rows.append((variant.name, "", "", "damaged"))
            continue
        speeds = ", ".join(f"{speed.ratio:.2f} at batch {speed.batch}" for speed in manifest.speed)
        rows.append((variant.name, short_name(manifest.recipe.provider), speeds, verdict.decision))
    if not rows:
        return []
    return [Section("Variants", [Table(("name", "provider", "times its parent's speed, there", "verdict"), rows)])]


def _making(version: Version, manifest: Manifest, data: str | None) -> Section:
    made = manifest.provenance
    if made.source == "foreign" or made.configuration is None:
        told = f"It was trained elsewhere and published with genserve {made.code_version}."
        return Section("How it was made", [Paragraph(told + _noted(made))])
    shown = {**made.configuration, "data": data or "DATA"}
    kimg = f"{made.kimg:g}" if made.kimg is not None else "K"
    told = f"genserve {made.code_version}, seed {made.seed}, after {kimg} thousand images.{_noted(made)}"
    commands = "\n".join(
        [
            f"genserve train --config {version.name}.json --run-dir R      # the settings below, in that file",
            f'genserve export R --checkpoint {kimg} --reason "as {version}"',
            f"genserve publish R --name {version.name}",
            f"genserve gate {version.name}@candidate",
            f"genserve promote {version.name}@candidate",
        ]
    )
    blocks: list[Block] = [Paragraph(told), Code(commands), Code(json.dumps(shown, indent=2))]
    return Section("How it was made", blocks)


def _noted(made: Provenance) -> str:
    return f" {made.note[0].upper()}{made.note[1:]}." if made.note else ""


def _data_name(data: str | None, public: bool) -> str | None:
    """A data set's name; what names a place on some machine is not for everybody."""
    return data if data is None or data in SOURCES or not public else "data that is not named here"
