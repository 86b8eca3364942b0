"""The options of `genserve extractor train`. Knows nothing of torch, so that --help stays light."""

import argparse
from pathlib import Path


def add_extractor_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `genserve extractor train` to its parser."""
    parser.add_argument("data", metavar="DATA", help="a labelled image set: fashion-mnist, mnist, a folder or a file")
    parser.add_argument("--name", default=None, help="the extractor's name (default: DATA's name and -cnn)")
    parser.add_argument("-o", "--output", type=Path, default=None, help="its folder (default: extractors/NAME)")
    parser.add_argument("--epochs", type=int, default=8, help="passes over the training split (default: 8)")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights, order and augmentation (default: 0)")
