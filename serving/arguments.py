"""The command-line arguments of `genserve serve`. Imports nothing heavy, knows no settings."""

import argparse


def add_serve_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `genserve serve`; each beats its environment variable, which beats the settings file."""
    parser.add_argument("--host", help="address to listen on (GENSERVE_HOST; default 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to listen on, 0 for a free one (GENSERVE_PORT; default 8000)")
    parser.add_argument(
        "--models", metavar="FOLDER", help="model repository (GENSERVE_MODELS; default ./repository, else the zoo)"
    )
    parser.add_argument("--config", metavar="FILE", help="settings file (default ./genserve.toml where it exists)")
