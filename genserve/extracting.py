"""`genserve extractor train`, `import-inception` and `ladder`: extractors are made, tried, kept. Knows no networks."""

import argparse
import sys
from pathlib import Path

import msgspec
import onnx

from genserve.context import readable_repository, writable_repository
from models.datasets import Dataset, load_dataset
from models.errors import DataError, Invalid, Refused
from models.extractor_manifest import ExtractorManifest, LadderTest, read_extractor_manifest
from models.extractor_store import BUILT_IN, check_extractor_name, find, own_folder, refused_folder, set_manifest
from models.extractors import Extractor, make_extractor, open_extractor, resolve_extractor, write_extractor
from models.ladder import check_size, climb
from models.report import format_ladder


def train(args: argparse.Namespace) -> int:
    """Train an extractor, try it on the ladder, and keep it; 1 where it fails and is set aside."""
    from trainer.extractor import default_task, train_extractor

    dataset = load_dataset(args.data, resolution=args.resolution)
    task = args.task or default_task(dataset)
    name = args.name or f"{Path(args.data).stem}-{'cnn' if task == 'classes' else 'rotation'}"
    check_extractor_name(name)
    if not _accepts(args.accept):
        check_size(dataset)
    model, manifest = train_extractor(dataset, name, task=task, epochs=args.epochs, seed=args.seed)
    extractor = make_extractor(model, manifest)
    print(f"{extractor.label}: {manifest.accuracy:.2%} of the validation split told rightly ({task})")
    return _keep(model, _tried(extractor, dataset, args.accept), args.output)


def import_inception(args: argparse.Namespace) -> int:
    """Make the extractor that FID is defined by from its published weights."""
    from trainer.inception_import import import_inception as imported

    return _keep(*imported(args.path, args.name), args.output)


def ladder(args: argparse.Namespace) -> int:
    """Try an extractor on data; 1 where it does not rank every fault."""
    if _accepts(args.accept) and not args.keep:
        raise Invalid("a reason is kept in the manifest: add --keep", field="accept")
    repository = readable_repository().root
    dataset = load_dataset(args.data, resolution=args.resolution)
    built_in = args.extractor in BUILT_IN
    if built_in and args.keep:
        raise Invalid(f"{args.extractor} is made anew for each data set and has no manifest", field="keep")
    folder = None if built_in else find(args.extractor, repository=repository)
    extractor = resolve_extractor(args.extractor, dataset) if folder is None else open_extractor(folder, refused=True)
    test = _climbed(extractor, dataset)
    if args.json:
        print(msgspec.json.format(msgspec.json.encode(test), indent=2).decode())
    else:
        print(extractor.label, format_ladder(test), sep="\n")
    if args.keep and folder is not None:
        manifest = read_extractor_manifest(folder)
        accepted = None if test.passed else args.accept or manifest.accepted
        print(set_manifest(folder, msgspec.structs.replace(manifest, ladder=test, accepted=accepted)))
    return 0 if test.passed or (args.keep and args.accept is not None) else 1


def _accepts(reason: str | None) -> bool:
    """Whether a person takes an extractor whatever the ladder says; the reason must not be empty."""
    if reason is not None and not reason.strip():
        raise Invalid("say why", field="accept")
    return reason is not None


def _tried(extractor: Extractor, dataset: Dataset, accept: str | None) -> ExtractorManifest:
    """What it says of itself with its ladder; without one where the data are too few and a person takes it untried."""
    try:
        test = _climbed(extractor, dataset)
    except DataError as error:
        if accept is None:
            raise
        print(f"untried: {error.detail}", file=sys.stderr)
        return msgspec.structs.replace(extractor.manifest, accepted=accept)
    print(format_ladder(test))
    return msgspec.structs.replace(extractor.manifest, ladder=test, accepted=None if test.passed else accept)


def _climbed(extractor: Extractor, dataset: Dataset) -> LadderTest:
    return climb(extractor, dataset, stage=lambda name: print(f"ladder: {name}", file=sys.stderr, flush=True))


def _keep(model: onnx.ModelProto, manifest: ExtractorManifest, output: Path | None) -> int:
    """Writes an extractor where it belongs, or aside where it is refused; returns the exit status."""
    digested = make_extractor(model, manifest).manifest
    folder = output or own_folder(writable_repository().root, digested)
    if not digested.refused or digested.ladder is None:
        print(f"{write_extractor(folder, model, digested)}: {digested.label}")
        return 0
    aside = write_extractor(refused_folder(folder), model, digested)
    raise Refused(
        f"{digested.label} failed the ladder and is kept aside: {'; '.join(digested.ladder.reasons)}. To take it "
        f'all the same: genserve extractor ladder {aside} {digested.data} --keep --accept "REASON"'
    )
