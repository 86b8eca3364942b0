"""Lossless encoders for what the service answers with: how long each takes, and how large its files are.

Pictures are of the shipped generator and of the two reference generators: one sample, and a grid of 16. Every encoder's
file is read again and held against the pixels first. A round runs each encoder once, in turns, on one thread and by
that thread's processor time; a ratio is one round's, to the encoder that the service uses. Further encoders are
measured where they are installed.

    python -m bench.encoders [--rounds 60]
        pip install opencv-python-headless zlib-ng    # two that are not among the project's dependencies
"""

import argparse
import importlib
import importlib.util
import io
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench import machine, reference_models
from models import png
from models.foreign import adopt
from models.generator import Generator, Samples
from models.latents import draw
from models.pictures import grid, to_pillow
from models.repository import ZOO, Repository
from serving import encoders

OWN = "ours: unfiltered rows, ISA-L"
BATCHES = 20  # encodings in a turn of a small picture, so that a clock's grain does not count

Picture = NDArray[np.uint8]  # [H, W, C]
Encoder = Callable[[Picture], bytes]


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60)
    options = parser.parse_args()
    print(machine.describe())
    print("| model | pictures | encoder | us | bytes | times ours |")
    print("|---|---|---|---|---|---|")
    for model, samples in sources():
        for count, picture in ((1, samples[0]), (16, grid(samples))):
            for row in measure(picture, options.rounds):
                print(f"| {model} | {count} | {' | '.join(row)} |", flush=True)


def sources() -> Iterator[tuple[str, Samples]]:
    """16 samples of each model."""
    shipped = Generator.open(Repository(ZOO).resolve("fashion-mnist").model_path)
    yield "fashion-mnist", shipped.generate(*draw(shipped.signature, range(16)))
    for name in reference_models.WIDTHS:
        generator = Generator.from_bytes(adopt(reference_models.build(name), prior="normal"))
        yield name, generator.generate(*draw(generator.signature, range(16)))


def measure(picture: Picture, rounds: int) -> list[tuple[str, str, str, str]]:
    """A row for each encoder: its name, median microseconds, bytes, and the ratio's median [quartiles]."""
    known = candidates()
    files = {name: encode(picture) for name, encode in known.items()}
    for name, file in files.items():
        read = np.asarray(Image.open(io.BytesIO(file)).convert("L" if picture.shape[2] == 1 else "RGB"))
        if read.tobytes() != picture.tobytes():
            raise SystemExit(f"{name} is not lossless")
    turns = BATCHES if picture.nbytes < 4096 else 1
    times = np.array([[_took(encode, picture, turns) for encode in known.values()] for _ in range(rounds + 3)])[3:]
    own = times[:, list(known).index(OWN)]
    rows = []
    for i, (name, file) in enumerate(files.items()):
        low, middle, high = np.percentile(times[:, i] / own, [25, 50, 75])
        ratio = f"{middle:.2f} [{low:.2f}, {high:.2f}]"
        rows.append((name, f"{np.median(times[:, i]) * 1e6:.0f}", str(len(file)), ratio))
    return rows


def candidates() -> dict[str, Encoder]:
    """Every encoder that is here, by what it is called in the table."""
    known: dict[str, Encoder] = {
        OWN: png.encode,
        "the same with zlib, level 1": lambda picture: png.encode(picture, level=1),
        "Pillow, PNG level 1": lambda picture: _pillow(picture, "PNG", compress_level=1),
        "Pillow, PNG level 1, run lengths": lambda picture: _pillow(picture, "PNG", **encoders.FAST_PNG),
        "Pillow, PNG as it comes": lambda picture: _pillow(picture, "PNG"),
        "Pillow, WebP lossless, fastest": encoders.webp,
    }
    if importlib.util.find_spec("cv2"):
        known["OpenCV, PNG level 1"] = partial(_opencv, importlib.import_module("cv2"))
    if importlib.util.find_spec("zlib_ng"):
        compress = importlib.import_module("zlib_ng.zlib_ng").compress
        known["unfiltered rows, zlib-ng level 1"] = partial(_unfiltered, compress)
    return known


def _pillow(picture: Picture, form: str, **options: Any) -> bytes:  # noqa: ANN401 Pillow's own
    buffer = io.BytesIO()
    to_pillow(picture).save(buffer, form, **options)
    return buffer.getvalue()


def _opencv(cv2: Any, picture: Picture) -> bytes:  # noqa: ANN401 a module
    ordered = picture if picture.shape[2] == 1 else picture[:, :, ::-1]
    done, file = cv2.imencode(".png", ordered, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not done:
        raise RuntimeError("OpenCV encoded nothing")
    return bytes(file)


def _unfiltered(compress: Callable[[bytes, int], bytes], picture: Picture) -> bytes:
    height, width, channels = picture.shape
    rows = np.zeros((height, 1 + width * channels), np.uint8)
    rows[:, 1:] = picture.reshape(height, -1)
    head = png.HEADER.pack(width, height, 8, png.COLOUR_TYPES[channels], 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", compress(rows.tobytes(), 1)), (b"IEND", b""))
    return png.SIGNATURE + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def _took(encode: Encoder, picture: Picture, turns: int) -> float:
    """Seconds of one encoding."""
    began = time.thread_time()
    for _ in range(turns):
        encode(picture)
    return (time.thread_time() - began) / turns


if __name__ == "__main__":
    main()
