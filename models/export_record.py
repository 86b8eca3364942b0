"""export.json: what the trainer says of a model that it exported, for publishing. Knows nothing of training."""

from pathlib import Path
from typing import Literal

import msgspec

from models.errors import Invalid, NotFound

FILE_NAME = "export.json"
MODEL_NAME = "model.onnx"  # of a run's own export


class ExportRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where an exported model.onnx comes from.

    Args:
        digest: sha256 of the model.onnx that this belongs to, 64 hexadecimal digits.
        checkpoint_kimg: the snapshot that was exported, in thousands of real images seen.
        chosen_by: "validation FD", "default" (nothing to measure with: the last one), or "a person".
        reason: why this snapshot: its score, or what the person said.
        data: the data set as it was named.
        data_hash: sha256 of its content.
        licence: of the data, where it is known.
        seed: of the run.
        kimg: of the whole run's configuration.
        configuration: every setting of the run.
        code_version: of genserve when the run began.
    """

    digest: str
    checkpoint_kimg: float
    chosen_by: Literal["validation FD", "default", "a person"]
    reason: str
    data: str
    data_hash: str
    licence: str | None
    seed: int
    kimg: float
    configuration: dict[str, object]
    code_version: str


def record_path(model: Path) -> Path:
    """Where the record of an exported file lies: export.json beside model.onnx, a.export.json beside a.onnx."""
    return _beside(model, FILE_NAME)


def parity_path(model: Path) -> Path:
    """Where the proof that torch and ONNX Runtime agree lies, named likewise: parity.json or a.parity.json."""
    return _beside(model, "parity.json")


def read_export_record(path: Path) -> ExportRecord:
    """Read an export.json.

    Raises:
        NotFound: there is no such file.
        Invalid: it is damaged.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=ExportRecord)
    except FileNotFoundError as error:
        raise NotFound(f"{path} does not exist") from error
    except msgspec.DecodeError as error:
        raise Invalid(f"{path} is damaged: {error}") from error


def _beside(model: Path, name: str) -> Path:
    return model.with_name(name if model.name == MODEL_NAME else f"{model.stem}.{name}")
