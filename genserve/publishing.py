"""`genserve publish`: a file or a run, and data to judge it against, become a version. Knows no gate."""

import argparse
from pathlib import Path
from typing import TypedDict

import msgspec
import numpy as np

from genserve.context import writable_repository
from models.datasets import Dataset, load_dataset
from models.errors import Invalid, NotFound, Refused
from models.export_record import MODEL_NAME, ExportRecord, read_export_record, record_path
from models.extractor_store import adopt, find
from models.extractors import open_extractor
from models.foreign import is_stamped, takes_classes
from models.generator import Generator, sha256
from models.judge import check_fits, describe_reference
from models.manifest import Classes, Provenance
from models.publish import publish as publish_version
from models.publish import stamp_as_ours
from models.records import Reference
from models.repository import check_name
from models.sources import SOURCES
from models.version import code_version


def publish(args: argparse.Namespace) -> int:
    """Add a generator to the repository; prints name@version."""
    check_name(args.name)
    model, record = _find(Path(args.source))
    spec = args.data or (record.data if record is not None else None)
    if args.extractor is not None and spec is None:
        raise Invalid("there is nothing to judge with it: name --data too", field="extractor")
    reading = _reading(args, spec, record)
    dataset = load_dataset(spec, **reading) if spec is not None else None
    _check_unchanged(args, record, dataset)
    model = stamp_as_ours(model, prior=args.prior, classes=_classes(args, dataset, model))
    if dataset is not None:
        check_fits(Generator.from_bytes(model).signature, dataset)
    repository = writable_repository()
    version = publish_version(
        repository,
        args.name,
        model,
        provenance=_provenance(args, record),
        reference=None if dataset is None else _reference(dataset, reading, args.extractor, repository.root),
        why=args.why or (f"checkpoint chosen by {record.chosen_by}: {record.reason}" if record is not None else None),
    )
    print(version)
    return 0


def _find(source: Path) -> tuple[bytes, ExportRecord | None]:
    """The ONNX file's content, and what the trainer says of it; None for a file that comes without."""
    if source.is_dir():
        path = source / "export" / MODEL_NAME
        if not path.is_file():
            raise NotFound(f"{source} has no export: run `genserve export {source}` first", field="source")
        model, record = path.read_bytes(), read_export_record(record_path(path))
        if record.digest != sha256(model):
            raise Refused(f"{path} is not the file that its record describes: export the run again", field="source")
        return model, record
    if not source.is_file():
        raise NotFound(f"{source} is neither an ONNX file nor the folder of a run", field="source")
    model = source.read_bytes()
    return model, _record_beside(source, model)


def _record_beside(path: Path, model: bytes) -> ExportRecord | None:
    """What an export wrote beside its file; None where there is nothing, or it is about another file."""
    beside = record_path(path)
    if not is_stamped(model) or not beside.is_file():
        return None
    record = read_export_record(beside)
    return record if record.digest == sha256(model) else None


def _check_unchanged(args: argparse.Namespace, record: ExportRecord | None, dataset: Dataset | None) -> None:
    """A run's own data must still be what it was trained on; other data is a person's choice, made with --data."""
    if record is None or dataset is None or args.data is not None or dataset.content_hash == record.data_hash:
        return
    raise Refused(
        f"{record.data} has changed since the run was trained on it (its content hash differs): name it with --data "
        "to judge against what it is now",
        field="data",
    )


def _classes(args: argparse.Namespace, dataset: Dataset | None, model: bytes) -> Classes | None:
    """The classes of a conditional foreign generator: those of its labelled data, or K equally frequent ones."""
    count: int | None = args.classes
    if is_stamped(model) or not takes_classes(model):
        if count is not None:
            raise Invalid("only a foreign file with a class input takes it: leave it out", field="classes")
        return None
    if dataset is not None and dataset.labels is not None and dataset.class_names is not None:
        if count not in (None, len(dataset.class_names)):
            raise Invalid(f"{count}, but the data has {len(dataset.class_names)}", field="classes")
        shares = np.bincount(dataset.labels[dataset.indices["train"]], minlength=len(dataset.class_names)).astype(float)
        return Classes(names=dataset.class_names, frequencies=tuple((shares / shares.sum()).tolist()))
    if count is None or count < 1:
        raise Invalid("it takes a class input: say --classes K (at least 1), or name labelled --data", field="classes")
    return Classes(names=tuple(str(i) for i in range(count)), frequencies=(1 / count,) * count)


def _provenance(args: argparse.Namespace, record: ExportRecord | None) -> Provenance:
    if record is None:
        return Provenance(source="foreign", data=args.data, licence=args.licence, code_version=code_version())
    return Provenance(
        source="trained",
        data=record.data,
        data_hash=record.data_hash,
        licence=args.licence or record.licence,
        configuration=record.configuration,
        seed=record.seed,
        kimg=record.checkpoint_kimg,
        code_version=record.code_version,
        note=f"checkpoint chosen by {record.chosen_by}: {record.reason}",
    )


class Reading(TypedDict, total=False):
    """How a folder of images is read; nothing of it is said of any other data."""

    resolution: int | None
    max_skipped: float


LIMITS = {"resolution": (8, 1024), "max_skipped": (0, 1)}  # as for training


def _reading(args: argparse.Namespace, spec: str | None, record: ExportRecord | None) -> Reading:
    """As asked, else as for the training run."""
    for name, (low, high) in LIMITS.items():
        value = getattr(args, name)
        if value is not None and not low <= value <= high:
            raise Invalid(f"{value} is outside {low} .. {high}", field=name)
    if spec is None or spec in SOURCES or not Path(spec).is_dir():
        return {}
    trained = record.configuration if record is not None else {}
    given = {name: trained.get(name) if getattr(args, name) is None else getattr(args, name) for name in LIMITS}
    return msgspec.convert({name: value for name, value in given.items() if value is not None}, Reading)


def _reference(dataset: Dataset, reading: Reading, extractor: str | None, repository: Path) -> Reference:
    """What the name will be judged against; a data set's path is kept absolute, to be found from anywhere.

    An extractor that lies elsewhere is copied into the repository, where its digest finds it.
    """
    if extractor is not None and Path(extractor).exists():
        folder = find(extractor, repository=repository)
        open_extractor(folder)
        extractor = adopt(folder, repository)
    spec = dataset.name if dataset.name in SOURCES else str(Path(dataset.name).resolve())
    return describe_reference(spec, dataset=dataset, extractor=extractor, repository=repository, **reading)
