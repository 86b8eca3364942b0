"""The options of `genserve saddle`. Imports nothing heavy: the console script's help needs it."""

import argparse
from pathlib import Path


def add_saddle_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `genserve saddle`."""
    parser.add_argument("-o", "--output", type=Path, default=Path("saddle"), help="folder of the figures")
    parser.add_argument("--steps", type=int, default=3000, help="turns of both players in the plane (default: 3000)")
    parser.add_argument("--answer-steps", type=int, default=150, help="steps of a best answer (default: 150)")
    parser.add_argument("--gamma", type=float, default=1.0, help="weight of R1 in the plane (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="of the weights in the plane (default: 0)")
