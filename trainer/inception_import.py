"""`genserve extractor import-inception`: published weights become the extractor that FID is defined by."""

from dataclasses import dataclass
from pathlib import Path

import onnx
import torch

from models.download import content_sha256, fetch
from models.errors import DataError, Refused, Unavailable
from models.extractor_manifest import ExtractorManifest
from models.extractors import WEIGHTS_KEY
from models.labels import INCEPTION, INCEPTION_WEIGHTS
from models.sources import data_root
from trainer.graph_export import export_graph
from trainer.inception import CLASSES, FEATURES, Inception, load_inception

FILE = "pt_inception-2015-12-05-6726825d.pth"
BATCH_SIZE = 32  # its first layers need 12 MB for each image


@dataclass(frozen=True, kw_only=True)
class Published:
    """Where the weights are published, and the sha256 of their file."""

    url: str = f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{FILE}"
    sha256: str = INCEPTION_WEIGHTS


def import_inception(
    path: Path | None, name: str | None = None, published: Published | None = None
) -> tuple[onnx.ModelProto, ExtractorManifest]:
    """The network with its weights as an ONNX graph, and what it says of itself.

    Args:
        path: the weights' file; None downloads it, once, into the folder of data sets.
        name: for other weights than the published ones, whose numbers are not FID then.
        published: where to download from.

    Raises:
        Refused: the file is not the published one, and no other name is given for it.
        DataError: it holds no weights of this network.
        Unavailable: it cannot be downloaded.
    """
    path = path or _downloaded(published or Published())
    found = content_sha256(path)
    genuine = found == INCEPTION_WEIGHTS
    if not genuine and name in (None, INCEPTION):
        raise Refused(
            f"{path}: sha256 is {found[:12]}..., not the published {INCEPTION_WEIGHTS[:12]}... that FID is defined by; "
            "--name NAME imports it as another network, whose numbers are FD[NAME@...]",
            field="path",
        )
    model = to_onnx(_read(path))
    model.metadata_props.add(key=WEIGHTS_KEY, value=found)
    manifest = ExtractorManifest(
        name=INCEPTION if genuine else str(name),
        dim=FEATURES,
        shape=(None, None, None),
        classes=tuple(f"node {i}" for i in range(CLASSES)),
        weights=found,
        batch_size=BATCH_SIZE,
        architecture="InceptionV3 of 2015, inputs resized to 299 x 299 as by TensorFlow 1, logits without bias",
        seed=0,
    )
    return model, manifest


def _downloaded(published: Published) -> Path:
    try:
        return fetch(published.url, data_root() / "weights" / FILE, sha256=published.sha256)
    except Unavailable as error:
        raise Unavailable(
            f"{error.detail}; without a network: fetch it elsewhere and name its path", field="path"
        ) from error


def to_onnx(network: Inception) -> onnx.ModelProto:
    """`images` uint8 [N, H, W, 1 or 3] -> `features` [N, 2048], `logits` [N, 1008]; folds the network's BatchNorms."""
    example = torch.zeros((2, 40, 48, 3), dtype=torch.uint8)
    outputs = ["features", "logits"]
    return export_graph(network.fold(), {"images": example}, output_names=outputs, dynamic=(0, 1, 2, 3))


def _read(path: Path) -> Inception:
    """The network of a weights' file, which is read without running anything that is in it."""
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen classes, with no common base
        raise DataError(f"{path} holds no weights: {error}", field="path") from error
    if not isinstance(weights, dict):
        raise DataError(f"{path} holds no weights by name, but a {type(weights).__name__}", field="path")
    return load_inception(weights)
