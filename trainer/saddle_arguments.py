"""The options of `genserve saddle`. Imports nothing heavy: the console script's help needs it."""

import argparse
from pathlib import Path

STEPS, GAMMA, SEED = 3000, 1.0, 0  # of the game in the plane


def add_saddle_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `genserve saddle`."""
    parser.add_argument(
        "--run", type=Path, dest="run_dir", help="draw a run of vectors with two columns in place of the theory's own"
    )
    parser.add_argument("-o", "--output", type=Path, default=Path("saddle"), help="folder of the figures")
    parser.add_argument("--steps", type=int, help=f"turns of both players in the plane (default: {STEPS})")
    parser.add_argument("--answer-steps", type=int, default=150, help="steps of a best answer (default: 150)")
    parser.add_argument("--gamma", type=float, help=f"weight of R1 in the plane (default: {GAMMA:g})")
    parser.add_argument("--seed", type=int, help=f"of the weights in the plane (default: {SEED})")
