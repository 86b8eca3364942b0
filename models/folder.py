"""Reads a folder of images of any size and mode as one array, subfolders as classes. Knows nothing of splits."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from models.decoding import Header, Unreadable, has_colour, read_header, read_square
from models.errors import DataError
from models.inventory import MAX_SKIPPED_SHARE, Inventory, Read, Skipped, named
from models.progress import Progress

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
RESOLUTIONS = (8, 16, 28, 32, 64, 128, 256)
DEFAULT_MAX_RESOLUTION = 64
PARTS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})  # of a split, no classes
DECODERS = 4  # threads: Pillow decodes without Python's lock, and each holds an image at its own size

T = TypeVar("T")


class Listing(NamedTuple):
    """The files below a folder, hidden ones left out, in an order that does not depend on the file system.

    Args:
        images: by their endings.
        ignored: how many other files there are of each ending.
    """

    images: list[Path]
    ignored: dict[str, int]


def read_folder(folder: Path, resolution: int | None = None, *, max_skipped: float = MAX_SKIPPED_SHARE) -> Read:
    """The images [N, R, R, C] uint8, and their labels [N] and classes' names where there are subfolders.

    Each image is cropped to its centre square and resized with antialiasing, see models.decoding.read_square. C is 1
    if no image has a coloured pixel, whatever the files' modes, else 3. Broken files are left out and told.

    Args:
        folder: images directly in it, or in two or more subfolders named after their classes.
        resolution: R in pixels; by default the common size, else the largest of RESOLUTIONS that at least half of the
            images have, at most 64.
        max_skipped: the largest share of broken files, 0..1.

    Raises:
        DataError: no images, more broken files than that (named), files that cannot be read at all, images both in the
            folder and in subfolders, or subfolders that are the parts of a split.
    """
    listing = list_files(folder)
    if not listing.images:
        held = f"; it holds {', '.join(listing.ignored)} files" if listing.ignored else ""
        raise DataError(f"{folder}: no image files ({', '.join(sorted(SUFFIXES))}){held}", field="data")
    if not 0 <= max_skipped <= 1:
        raise DataError(f"{max_skipped} is outside 0 .. 1", field="max_skipped")
    classes = _classes(listing.images, folder)
    broken: dict[Path, Skipped] = {}
    headers = dict(_each(listing.images, folder, read_header, broken, "image headers"))
    extent = resolution or common_resolution([min(h.width, h.height) for h in headers.values()] or [RESOLUTIONS[0]])
    squares = _each(list(headers), folder, lambda path: read_square(path, extent), broken, "images")
    paths, samples, coloured = _gathered(squares, len(headers), extent)
    if len(broken) > max_skipped * len(listing.images):
        skipped = [broken[path] for path in listing.images if path in broken]
        limit = f"more than the {max_skipped:.0%} that may be skipped"
        raise DataError(
            f"{folder}: {len(broken)} of {len(listing.images)} image files are broken, {limit}: {named(skipped)}",
            field="data",
        )
    labels, names = _labelled([classes[path] for path in paths])
    inventory = Inventory(
        form="a folder of images",
        sizes=_counted(f"{headers[path].width} x {headers[path].height}" for path in paths),
        modes=_counted(headers[path].mode for path in paths),
        facts=tuple(_facts([headers[path] for path in paths], extent, resolution, coloured, set(classes.values()))),
        skipped=tuple(broken[path] for path in listing.images if path in broken),
        ignored=listing.ignored,
    )
    return Read(samples, labels, names, inventory)


def list_files(folder: Path) -> Listing:
    """All files below a folder; linked folders are followed, but none is entered twice.

    Raises:
        DataError: a folder cannot be read.
    """
    images: list[Path] = []
    ignored: Counter[str] = Counter()
    entered: set[str] = set()
    for place, folders, files in os.walk(folder, followlinks=True, onerror=_unreadable):
        real = os.path.realpath(place)
        if real in entered:
            folders.clear()
            continue
        entered.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            suffix = Path(name).suffix.lower()
            if suffix in SUFFIXES and not name.startswith("."):
                images.append(Path(place, name))
            elif not name.startswith("."):
                ignored[suffix or "without an ending"] += 1
    return Listing(sorted(images), dict(ignored.most_common()))


def _unreadable(error: OSError) -> None:
    raise DataError(f"{error.filename}: {error.strerror}", field="data") from error


def common_resolution(sides: list[int]) -> int:
    """The resolution for images with these shorter sides (pixels), as read_folder says."""
    if len(set(sides)) == 1 and sides[0] % 4 == 0 and sides[0] <= DEFAULT_MAX_RESOLUTION:
        return sides[0]
    limit = min(float(np.median(sides)), DEFAULT_MAX_RESOLUTION)
    return max((r for r in RESOLUTIONS if r <= limit), default=RESOLUTIONS[0])


def _classes(paths: list[Path], folder: Path) -> dict[Path, str]:
    """The subfolder that each image lies in, "" for the folder itself."""
    classes = {path: path.relative_to(folder).parts[0] if path.parent != folder else "" for path in paths}
    names = sorted(set(classes.values()))
    if "" in names and len(names) > 1:
        raise DataError(f"{folder}: images beside the class folders {', '.join(names[1:])}; move them", field="data")
    if len(names) > 1 and PARTS.issuperset(name.lower() for name in names):
        detail = f"{folder}: {', '.join(names)} are the parts of a split, not classes"
        mend = f"give one of them ({folder / names[0]}), or put the images together: the gate's are chosen here"
        raise DataError(f"{detail}: {mend}", field="data")
    return classes


def _labelled(classes: list[str]) -> tuple[NDArray[np.int64] | None, tuple[str, ...] | None]:
    """Labels and names; names that are numbers in their order. One subfolder alone makes no classes."""
    names = sorted(set(classes))
    if len(names) < 2:
        return None, None
    if all(name.isdecimal() for name in names):
        names.sort(key=int)
    numbers = {name: i for i, name in enumerate(names)}
    return np.array([numbers[name] for name in classes], dtype=np.int64), tuple(names)


def _each(
    paths: Sequence[Path], folder: Path, work: Callable[[Path], T], broken: dict[Path, Skipped], name: str
) -> Iterator[tuple[Path, T]]:
    """Each file with what was made of it, in order; broken files are noted and gone past."""

    def attempt(path: Path) -> T | Unreadable:
        try:
            return work(path)
        except Unreadable as error:
            return error
        except OSError as error:
            raise DataError(f"{path}: {error.strerror}", field="data") from error

    progress = Progress(name, len(paths))
    with ThreadPoolExecutor(DECODERS) as pool:
        for path, made in zip(paths, pool.map(attempt, paths), strict=True):
            progress.advance(1)
            if isinstance(made, Unreadable):
                broken[path] = Skipped(str(path.relative_to(folder)), str(made))
            else:
                yield path, made


def _gathered(
    squares: Iterator[tuple[Path, NDArray[np.uint8]]], count: int, extent: int
) -> tuple[list[Path], NDArray[np.uint8], int]:  # -> paths [N], images [N, R, R, C], how many have colour
    """One array of all images; it has three channels only from the first that has colour on."""
    samples = np.empty((count, extent, extent, 1), np.uint8)
    paths: list[Path] = []
    coloured = 0
    for path, pixels in squares:
        if has_colour(pixels):
            coloured += 1
            if samples.shape[3] == 1:
                samples = np.repeat(samples, 3, axis=3)
        samples[len(paths)] = pixels if samples.shape[3] == pixels.shape[2] == 3 else pixels[:, :, :1]
        paths.append(path)
    return paths, samples[: len(paths)], coloured


def _facts(
    headers: list[Header], extent: int, asked: int | None, coloured: int, classes: set[str]
) -> Iterator[str]:  # for the inventory
    """What was decided, and how many images it touched."""
    sides = [min(header.width, header.height) for header in headers]
    if asked is not None:
        reason = "as asked for"
    elif set(sides) == {extent}:
        reason = "their common size"
    else:
        reason = f"the largest usual size that at least half of them have, at most {DEFAULT_MAX_RESOLUTION}"
    yield f"resolution {extent} x {extent}: {reason}; centre squares, resized with antialiasing where they differ"
    if smaller := sum(side < extent for side in sides):
        yield f"enlarged: {smaller:,} images are smaller than that"
    yield f"colour: {coloured:,} images have any" if coloured else "grey: no image has a coloured pixel"
    if transparent := sum(header.transparent for header in headers):
        yield f"transparency laid over white: {transparent:,} images have it"
    if animated := sum(header.animated for header in headers):
        yield f"first frame alone: {animated:,} files hold several"
    if len(classes) == 1 and "" not in classes:
        yield f"no classes: all images lie in one subfolder, {next(iter(classes))}"


def _counted(things: Iterator[str]) -> dict[str, int]:
    return dict(Counter(things).most_common())
