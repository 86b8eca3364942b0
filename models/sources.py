"""The data sets known by name: where they are found, where they come from, what they must contain. Knows no splits."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from models.download import content_sha256, fetch
from models.errors import DataError, Unavailable
from models.mixtures import GRID, RING, Mixture

IDX_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


@dataclass(frozen=True, kw_only=True)
class Source:
    """A named data set of the MNIST family.

    Args:
        base_url: the files are at base_url + file name + ".gz".
        sha256: of each file's uncompressed content, in the order of IDX_FILES.
        licence: SPDX identifier.
        class_names: by label.
        local: folders where a distribution's package puts the files.
        package: that package, for the hint in an error.
    """

    base_url: str
    sha256: tuple[str, str, str, str]
    licence: str
    class_names: tuple[str, ...]
    local: tuple[Path, ...] = ()
    package: str | None = None


@dataclass(frozen=True, kw_only=True)
class Stacked:
    """A data set of three images of another, on top of each other as red, green and blue.

    Args:
        of: the other's name.
    """

    of: str


AnySource = Source | Stacked | Mixture

SOURCES: Mapping[str, AnySource] = {
    "fashion-mnist": Source(
        base_url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        sha256=(
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
        licence="MIT",
        class_names=(
            "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
        ),
        local=(Path("/usr/share/datasets/fashion-mnist"),),
        package="dataset-fashion-mnist",
    ),
    "mnist": Source(
        base_url="https://ossci-datasets.s3.amazonaws.com/mnist/",
        sha256=(
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
        licence="CC-BY-SA-3.0",
        class_names=tuple("0123456789"),
    ),
    "stacked-mnist": Stacked(of="mnist"),
    "ring": RING,
    "grid": GRID,
}  # fmt: skip


def data_root(environment: Mapping[str, str] = os.environ) -> Path:
    """Where data sets and what is computed from them are kept.

    GENSERVE_DATA, else XDG_CACHE_HOME/genserve, else ~/.cache/genserve.
    """
    if configured := environment.get("GENSERVE_DATA"):
        return Path(configured)
    return Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "genserve"


def locate(name: str, source: Source) -> tuple[Path, ...]:
    """The four files of a named data set, checked: GENSERVE_DATA first, then a package's folder, else downloaded.

    Raises:
        DataError: a file that is there does not have the expected content.
        Unavailable: a file is missing and cannot be downloaded; says what to do instead.
    """
    return tuple(_locate_file(name, source, *pair) for pair in zip(IDX_FILES, source.sha256, strict=True))


def _locate_file(name: str, source: Source, file: str, sha256: str) -> Path:
    kept = data_root() / name
    for folder in (kept, *source.local):
        for path in (folder / f"{file}.gz", folder / file):
            if path.exists():
                if content_sha256(path) != sha256:
                    raise DataError(f"{path}: content differs from the published {name}; remove it", field="data")
                return path
    try:
        return fetch(f"{source.base_url}{file}.gz", kept / f"{file}.gz", sha256=sha256)
    except Unavailable as error:
        package = f"`apt install {source.package}`, or " if source.package else ""
        hint = f"without a network: {package}put {', '.join(f'{f}.gz' for f in IDX_FILES)} into {kept}"
        raise Unavailable(
            f"{name} is not here and its download failed ({error.detail}); {hint}", field="data"
        ) from error
