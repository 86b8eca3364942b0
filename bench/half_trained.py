"""Generators whose training was cut short, as published files. Knows no gate and no measures."""

from collections.abc import Iterator
from pathlib import Path

from genserve.cli import main as genserve

STAGES = 3


def half_trained(folder: Path, kimg: float, *options: str) -> Iterator[tuple[str, bytes]]:
    """The recipe of Fashion-MNIST as it stands after a third, two thirds and all of so many thousand images.

    Args:
        folder: of the run; it must not exist yet, or hold this very run.
        kimg: far fewer than the recipe's own.
        options: of `genserve train`.

    Yields:
        In words how far training went, and the ONNX file; the least trained first.

    Raises:
        RuntimeError: it could not be trained or exported.
    """
    if not (folder / "config.json").exists():
        length = ("--kimg", f"{kimg:g}", "--snapshot-kimg", f"{kimg / STAGES:g}", "--run-dir", str(folder))
        _run("train", "fashion-mnist", *length, *options)
    snapshots = sorted((folder / "snapshots").glob("*.pt"))
    for snapshot in snapshots:
        shown = float(snapshot.stem)
        _run("export", str(folder), "--checkpoint", f"{shown:g}", "--reason", "cut short")
        yield f"{shown:.0f},000 images", (folder / "export" / "model.onnx").read_bytes()


def _run(*arguments: str) -> None:
    if genserve(arguments):
        raise RuntimeError(f"genserve {' '.join(arguments)} failed")
