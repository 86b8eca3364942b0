"""What was read of a data set, told before anything is done with it. Knows no files and no pixels."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.splits import Samples, SplitName

MAX_SKIPPED_SHARE = 0.05  # of a folder's images; with more broken ones something else is wrong
NAMED_AT_MOST = 10  # files, classes or sizes in one line
PURPOSES: tuple[tuple[SplitName, str], ...] = (
    ("train", "to train on"),
    ("validation", "to choose a checkpoint by"),
    ("gate", "for the gate"),
)


class Skipped(msgspec.Struct, frozen=True):
    """A file that was left out.

    Args:
        path: relative to the folder.
        reason: what is wrong with it.
    """

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path} ({self.reason})"


class Inventory(msgspec.Struct, frozen=True, kw_only=True):
    """What a data set holds and how it came to be that; a person reads `lines()` before a training.

    Args:
        form: what it was read from: "a folder of images", "IDX files", ".npz", ...
        count: samples.
        shape: of one: (H, W, C) or (d,).
        splits: samples in each.
        labels: samples in each class; None without labels.
        sizes: of the files' images, "width x height", and how often each; empty where all samples are of `shape`.
        modes: of the files' images ("grey", "palette", ...), and how often each; empty likewise.
        facts: what was decided on the way, one sentence each.
        skipped: broken files.
        ignored: files of other kinds, by their ending.
    """

    form: str
    count: int = 0
    shape: tuple[int, ...] = ()
    splits: dict[str, int] = {}
    labels: dict[str, int] | None = None
    sizes: dict[str, int] = {}
    modes: dict[str, int] = {}
    facts: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    ignored: dict[str, int] = {}

    def lines(self) -> list[str]:
        """For a terminal, one line for each matter."""
        extent = " x ".join(map(str, self.shape))
        lines = [f"{self.count:,} samples of {extent} from {self.form}"]
        lines.append("splits: " + ", ".join(f"{self.splits[name]:,} {purpose}" for name, purpose in PURPOSES))
        counted = (("classes", self.labels), ("sizes in pixels", self.sizes), ("modes", self.modes))
        lines += [f"{title}: {_counted(counts)}" for title, counts in counted if counts]
        lines += self.facts
        if self.skipped:
            share = len(self.skipped) / (len(self.skipped) + self.count)
            lines.append(f"skipped {len(self.skipped)} broken files ({share:.1%}): {named(self.skipped)}")
        if self.ignored:
            lines.append(f"ignored {sum(self.ignored.values())} files that are no images: {_counted(self.ignored)}")
        return lines


class Read(NamedTuple):
    """What a reader of one format makes of its files.

    Args:
        samples: uint8 [N, H, W, C] or float32 [N, d].
        labels: integers [N]; None without labels.
        class_names: by label; None where the format has none.
        inventory: what the reader alone knows: all but counts, splits and labels.
    """

    samples: Samples
    labels: NDArray[np.int64] | None
    class_names: tuple[str, ...] | None
    inventory: Inventory


def complete(
    inventory: Inventory,
    samples: Samples,
    labels: NDArray[np.int64] | None,
    class_names: tuple[str, ...] | None,
    indices: Mapping[SplitName, NDArray[np.int64]],
) -> Inventory:
    """An inventory with what follows from the samples themselves."""
    counts = None
    if labels is not None and class_names is not None:
        numbers = np.bincount(labels, minlength=len(class_names)).tolist()
        counts = dict(zip(class_names, numbers, strict=True))
    return msgspec.structs.replace(
        inventory,
        count=len(samples),
        shape=tuple(samples.shape[1:]),
        splits={name: len(chosen) for name, chosen in indices.items()},
        labels=counts,
    )


def named(things: Sequence[object]) -> str:
    """The first few of many things, and how many more there are."""
    told = "; ".join(str(thing) for thing in things[:NAMED_AT_MOST])
    return f"{told}; and {len(things) - NAMED_AT_MOST} more" if len(things) > NAMED_AT_MOST else told


def _counted(counts: Mapping[str, int]) -> str:
    """Names with their counts; where there are too many the most frequent."""
    ordered = list(counts.items())
    if len(ordered) > NAMED_AT_MOST:
        ordered.sort(key=lambda pair: -pair[1])
    told = ", ".join(f"{name} ({count:,})" for name, count in ordered[:NAMED_AT_MOST])
    rest = [count for _, count in ordered[NAMED_AT_MOST:]]
    return f"{told} and {len(rest)} more, with {min(rest):,} .. {max(rest):,} each" if rest else told
