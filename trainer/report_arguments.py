"""The options of `genserve report`. Imports nothing heavy: the console script's help needs it."""

import argparse
from pathlib import Path


def add_report_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `genserve report`."""
    parser.add_argument("run_dir", type=Path, metavar="RUN", help="folder of the run")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="default: RUN/report.html")
    parser.add_argument(
        "--quick", action="store_true", help="leave out what needs the data and the network: a second, not a minute"
    )
