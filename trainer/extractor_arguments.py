"""The options of `genserve extractor`. Knows nothing of torch, so that --help stays light."""

import argparse
from pathlib import Path


def add_train_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `genserve extractor train` to its parser."""
    parser.add_argument("data", metavar="DATA", help="images: fashion-mnist, mnist, stacked-mnist, a folder or a file")
    parser.add_argument("--task", choices=("classes", "rotation"), help="(default: classes where there are labels)")
    parser.add_argument("--name", default=None, help="the extractor's name (default: DATA's name, -cnn or -rotation)")
    parser.add_argument("-o", "--output", type=Path, default=None, help="its folder (default: in the repository)")
    parser.add_argument("--epochs", type=int, default=8, help="passes over the training split (default: 8)")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights, order and augmentation (default: 0)")
    _add_resolution(parser)
    _add_accept(parser)


def add_ladder_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `genserve extractor ladder` to its parser."""
    parser.add_argument("extractor", metavar="EXTRACTOR", help="a name, name@digest, random-conv or a folder")
    parser.add_argument("data", metavar="DATA", help="what it is tried on")
    parser.add_argument("--keep", action="store_true", help="write the outcome into its manifest")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    _add_resolution(parser)
    _add_accept(parser)


def add_import_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `genserve extractor import-inception` to its parser."""
    parser.add_argument("path", type=Path, nargs="?", metavar="PATH", help="the weights (default: they are downloaded)")
    parser.add_argument("-o", "--output", type=Path, default=None, help="its folder (default: in the repository)")
    parser.add_argument("--name", help="for other weights than the published ones, whose numbers are not FID then")


def _add_resolution(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--resolution", type=int, metavar="R", help="pixels, for a folder of images")


def _add_accept(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--accept", metavar="REASON", help="take it though it fails the ladder; kept in its manifest")
