"""What an extractor says of itself: manifest.json beside its model.onnx. Knows neither networks nor data."""

from pathlib import Path
from typing import Literal

import msgspec

from models.errors import LoadError
from models.manifest import Kind

Task = Literal["classes", "rotation"]
LadderName = Literal["noise", "blur", "dropped", "replay"]


class Rung(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One fault of one strength, and what an extractor made of it.

    Args:
        ladder: the fault.
        strength: as a person reads it: "sd 20 levels".
        value: FD_inf / Tr S_real, or the replay share.
        rise: over the rung before; over honest samples for the first.
        error: 1.645 standard errors of the rise.
        seen: the rise exceeds its error.
    """

    ladder: LadderName
    strength: str
    value: float
    rise: float
    error: float
    seen: bool


class LadderTest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whether an extractor ranks known faults by their strength, on the validation split.

    Args:
        data: the data set's name.
        data_hash: sha256 of its content.
        num_real: samples that were held against.
        num_fake: others, made worse.
        clean_fd: FD_inf / Tr S_real of these others as they are.
        clean_replay: their replay share.
        rungs: all ladders, each from weak to strong.
    """

    data: str
    data_hash: str
    num_real: int
    num_fake: int
    clean_fd: float
    clean_replay: float
    rungs: tuple[Rung, ...]

    @property
    def passed(self) -> bool:
        """Every rung was seen."""
        return all(rung.seen for rung in self.rungs)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Each rung that was not seen, in a sentence for a person."""
        return tuple(
            f"{rung.ladder} at {rung.strength} does not rise beyond its error: {rung.rise:+.2g} <= {rung.error:.2g}"
            for rung in self.rungs
            if not rung.seen
        )


class ExtractorManifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an extractor is.

    Args:
        name: for labels.
        kind: of the samples that it takes.
        dim: features per sample.
        shape: a sample's shape; None for an entry that may have any size. (None, None, 1): any grey image.
        digest: sha256 of model.onnx, 64 hexadecimal digits; set when it is written.
        classes: what its logits stand for; None for one that does not classify.
        data: the data set that it was trained on; None for random and for published weights.
        data_hash: sha256 of that data set's content.
        task: what it was trained to tell: the classes of the data, or by how much an image is turned.
        accuracy: share of the validation split that it tells rightly, 0..1.
        weights: sha256 of the published file that its weights come from; the ONNX file's metadata say the same.
        batch_size: samples in one run, for a network that needs much memory; None for the usual number.
        architecture: for a person to read.
        seed: of its training or its random weights.
        ladder: whether it ranks known faults; None where that was never tried.
        accepted: why a person takes it though it failed the ladder.
        format: of this file.
    """

    name: str
    kind: Kind = "image"
    dim: int
    shape: tuple[int | None, ...]
    digest: str = ""
    classes: tuple[str, ...] | None = None
    data: str | None = None
    data_hash: str | None = None
    task: Task | None = None
    accuracy: float | None = None
    weights: str | None = None
    batch_size: int | None = None
    architecture: str
    seed: int
    ladder: LadderTest | None = None
    accepted: str | None = None
    format: int = 1

    @property
    def label(self) -> str:
        """What stands beside each number made with it: fashion-cnn@1a2b."""
        return f"{self.name}@{self.digest[:4]}"

    @property
    def refused(self) -> bool:
        """It failed the ladder, and nobody has accepted it all the same."""
        return self.ladder is not None and not self.ladder.passed and self.accepted is None


def read_extractor_manifest(folder: Path) -> ExtractorManifest:
    """The manifest in an extractor's folder.

    Raises:
        LoadError: it is missing or damaged.
    """
    path = folder / "manifest.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=ExtractorManifest)
    except (OSError, msgspec.DecodeError) as error:
        raise LoadError(f"{path} is damaged: {error}") from error
