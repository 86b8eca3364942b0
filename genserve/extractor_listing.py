"""`genserve extractor list` and `show`: which extractors there are, and what they are worth. Changes nothing."""

import argparse
import json
import sys

import msgspec

from genserve.context import readable_repository
from genserve.table import print_table
from models.errors import GenserveError
from models.extractor_manifest import ExtractorManifest, read_extractor_manifest
from models.extractor_store import find, folders
from models.extractors import open_extractor
from models.report import format_ladder

COLUMNS = ("extractor", "takes", "features", "task", "accuracy", "trained on", "ladder", "folder")


def list_extractors(args: argparse.Namespace) -> int:
    """Print those that ship and the repository's own; 1 where one cannot be read."""
    rows, damaged = [], False
    for folder in folders(readable_repository().root, refused=True):
        try:
            rows.append({**_row(read_extractor_manifest(folder)), "folder": str(folder)})
        except GenserveError as error:
            damaged = True
            rows.append({**dict.fromkeys(COLUMNS, ""), "ladder": error.detail, "folder": str(folder)})
    if args.json:
        json.dump(rows, sys.stdout, indent=2)
        print()
    else:
        print_table(rows)
    return int(damaged)


def show_extractor(args: argparse.Namespace) -> int:
    """Print what one says of itself, its ladder included, once its file is found to be the one that it describes."""
    folder = find(args.extractor, repository=readable_repository().root)
    manifest = open_extractor(folder, refused=True).manifest
    if args.json:
        print(msgspec.json.format(msgspec.json.encode(manifest), indent=2).decode())
        return 0
    facts = {
        "folder": folder, "digest": manifest.digest, **_row(manifest), "data": manifest.data_hash or "",
        "weights": manifest.weights or "", "architecture": manifest.architecture, "accepted": manifest.accepted or "",
    }  # fmt: skip
    for name, value in facts.items():
        if value != "":
            print(f"{name:<14}{value}")
    if manifest.ladder is not None:
        print(f"\n{format_ladder(manifest.ladder)}")
    return 0


def _row(manifest: ExtractorManifest) -> dict[str, object]:
    extents = ("any" if extent is None else str(extent) for extent in manifest.shape)
    return {
        "extractor": manifest.label,
        "takes": f"{manifest.kind} {'x'.join(extents)}",
        "features": manifest.dim,
        "task": manifest.task or ("classes" if manifest.classes else ""),
        "accuracy": "" if manifest.accuracy is None else manifest.accuracy,
        "trained on": manifest.data or "",
        "ladder": _ladder(manifest),
    }


def _ladder(manifest: ExtractorManifest) -> str:
    if manifest.ladder is None:
        return "untried"
    if manifest.ladder.passed:
        return "passed"
    return "refused" if manifest.refused else "accepted"
