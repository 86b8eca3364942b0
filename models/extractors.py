"""Feature extractors: ONNX files that turn samples into the vectors that measures compare. Knows no generators.

An extractor lies in a folder of its own: model.onnx (input `images` uint8 [N, H, W, C] or `samples` float32 [N, d];
outputs `features` float32 [N, D] and, for a classifier, `logits` [N, K]) and manifest.json. Numbers made with
different extractors do not compare, so every extractor has a label, name@digest, that stands beside each number.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np
import onnx
from numpy.typing import NDArray
from scipy.special import softmax

from models import extractor_store, random_features
from models.batches import batches
from models.errors import DataError, GenserveError, LoadError, Refused
from models.extractor_manifest import ExtractorManifest, read_extractor_manifest
from models.files import pretty_json, write_file
from models.graph import external_tensors
from models.labels import INCEPTION, INCEPTION_WEIGHTS
from models.manifest import Kind
from models.runtime import available_cores, make_session

if TYPE_CHECKING:  # a server reads extractors, and no data
    from models.datasets import Dataset

WEIGHTS_KEY = "weights"  # in the ONNX file's metadata: the digest then covers where its weights come from
RANDOM: dict[Kind, str] = {"image": "random-conv", "vector": "random-fourier"}
INPUT_NAMES: dict[Kind, str] = {"image": "images", "vector": "samples"}

Features = NDArray[np.float32]  # [N, D]
Progress = Callable[[int], None]  # called with the number of samples done since the last call


class Extracted(NamedTuple):
    """What an extractor makes of samples.

    Args:
        features: [N, D] float32.
        class_idx: [N] int64, the class that it recognises; None for one that does not classify.
        probabilities: [N, K] float16, how sure it is of each class; None where they were not made or kept.
    """

    features: Features
    class_idx: NDArray[np.int64] | None
    probabilities: NDArray[np.float16] | None = None

    def some(self, rows: NDArray[np.int64]) -> "Extracted":
        """Of some samples."""
        class_idx = None if self.class_idx is None else self.class_idx[rows]
        probabilities = None if self.probabilities is None else self.probabilities[rows]
        return Extracted(self.features[rows], class_idx, probabilities)


class Extractor:
    """One ONNX Runtime session over an extractor's model.

    Args:
        model: the serialised ONNX file.
        manifest: what it says of itself; its digest must be the model's.
        threads: intra-op threads; None for all cores that this process may use.

    Raises:
        LoadError: the file's digest, inputs or outputs are not what the manifest says.
    """

    def __init__(self, model: bytes, manifest: ExtractorManifest, *, threads: int | None = None) -> None:
        digest = hashlib.sha256(model).hexdigest()
        if manifest.digest != digest:
            raise LoadError(f"extractor {manifest.name}: sha256 is {digest[:12]}..., not {manifest.digest[:12]}...")
        try:
            self._session = make_session(model, threads=threads or available_cores())
        except GenserveError:
            raise
        except Exception as error:  # ONNX Runtime raises a dozen classes of its own, with no common base
            raise LoadError(f"extractor {manifest.name}: ONNX Runtime refuses the file: {error}") from error
        self.manifest = manifest
        self.made_of = b""  # the file, where it lies nowhere on disk
        self._outputs = [port.name for port in self._session.get_outputs()]
        wanted = ["features"] if manifest.classes is None else ["features", "logits"]
        inputs = [port.name for port in self._session.get_inputs()]
        if inputs != [INPUT_NAMES[manifest.kind]] or self._outputs != wanted:
            raise LoadError(f"extractor {manifest.name}: has {inputs} -> {self._outputs}, must have {wanted}")
        if manifest.weights != self._session.get_modelmeta().custom_metadata_map.get(WEIGHTS_KEY):
            raise LoadError(f"extractor {manifest.name}: its weights are not those that its manifest names")
        if (manifest.name == INCEPTION) != (manifest.weights == INCEPTION_WEIGHTS):
            raise LoadError(f"extractor {manifest.name}: {INCEPTION} is what the published weights are called, alone")

    @property
    def name(self) -> str:
        """The name without the digest."""
        return self.manifest.name

    @property
    def digest(self) -> str:
        """sha256 of the ONNX file."""
        return self.manifest.digest

    @property
    def label(self) -> str:
        """What stands beside each number made with it: fashion-cnn@1a2b."""
        return self.manifest.label

    @property
    def dim(self) -> int:
        """Features per sample."""
        return self.manifest.dim

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The classes that it recognises, None for one that does not classify."""
        return self.manifest.classes

    def check_shape(self, kind: Kind, shape: Sequence[int]) -> None:
        """Raises DataError where samples of that kind and shape are not what this extractor takes."""
        takes = self.manifest.shape
        fits = len(takes) == len(shape) and all(a in (None, b) for a, b in zip(takes, shape, strict=True))
        if kind != self.manifest.kind or not fits:
            wanted = " x ".join("any" if extent is None else str(extent) for extent in takes)
            given = " x ".join(map(str, shape))
            raise DataError(
                f"{self.label} takes {self.manifest.kind}s of {wanted}, not {kind}s of {given}", field="extractor"
            )

    def extract(self, samples: NDArray[Any], progress: Progress | None = None) -> Extracted:
        """Runs the network over uint8 [N, H, W, C] or float32 [N, d], batch by batch.

        Raises:
            DataError: the samples' shape is not this extractor's, or a feature is not finite.
        """
        self.check_shape("image" if samples.dtype == np.uint8 else "vector", samples.shape[1:])
        features = np.empty((len(samples), self.dim), np.float32)
        class_idx = np.empty(len(samples), np.int64) if self.classes is not None else None
        probabilities = np.empty((len(samples), len(self.classes)), np.float16) if self.classes is not None else None
        for rows in batches(len(samples), samples.shape[1:], self.manifest.batch_size):
            outputs = self._session.run(self._outputs, {INPUT_NAMES[self.manifest.kind]: samples[rows]})
            features[rows] = outputs[0]
            if class_idx is not None and probabilities is not None:
                class_idx[rows] = outputs[1].argmax(1)
                probabilities[rows] = softmax(outputs[1], axis=1)
            if progress is not None:
                progress(len(outputs[0]))
        if not np.isfinite(features).all():
            raise DataError(f"{self.label} makes features that are not finite of these samples", field="extractor")
        return Extracted(features, class_idx, probabilities)

    def features(self, samples: NDArray[Any]) -> Features:
        """The features alone: [N, D] float32."""
        return self.extract(samples).features

    def classify(self, samples: NDArray[Any]) -> NDArray[np.int64] | None:
        """The recognised classes alone: [N], None for an extractor that does not classify."""
        return self.extract(samples).class_idx


def resolve_extractor(
    wanted: str | os.PathLike[str] | None,
    dataset: "Dataset",
    *,
    repository: Path | None = None,
    digest: str | None = None,
) -> Extractor:
    """The extractor that a person named, or the one that suits a data set.

    The default is a shipped one only for the very data set that it was trained on; everything else gets random
    features: convolutional for images, Fourier for vectors.

    Args:
        wanted: a name or name@digest, "random-conv", "random-fourier", an extractor's folder, or None.
        dataset: what it is to look at; random features are made for its shape.
        repository: the folder whose own extractors count too.
        digest: of the very one that is needed, if it is anywhere: see models.extractor_store.

    Raises:
        NotFound, Invalid: no such extractor, or several of that name.
        DataError: it does not take this data set's samples.
        LoadError: its files are damaged.
        Refused: it failed the ladder.
    """
    name = default_extractor(dataset) if wanted is None else os.fspath(wanted)
    if name == "random-conv" and dataset.kind == "image":
        extractor = make_extractor(random_features.convolutional(dataset.shape), _random_manifest(name, dataset))
    elif name == "random-fourier" and dataset.kind == "vector":
        train = dataset.split("train").samples.astype(np.float32)
        extractor = make_extractor(random_features.fourier(train), _random_manifest(name, dataset))
    elif wanted is None:
        extractor = open_extractor(extractor_store.SHIPPED / name)
    else:
        extractor = open_extractor(extractor_store.find(name, repository=repository, digest=digest))
    extractor.check_shape(dataset.kind, dataset.shape)
    return extractor


def default_extractor(dataset: "Dataset") -> str:
    """The name of the extractor that suits a data set."""
    for folder in extractor_store.folders(None):
        if read_extractor_manifest(folder).data_hash == dataset.content_hash:
            return folder.name
    return RANDOM[dataset.kind]


def open_extractor(
    name_or_path: str | os.PathLike[str], *, threads: int | None = None, refused: bool = False
) -> Extractor:
    """Opens a shipped extractor by name, or any by its folder (or the model.onnx in it).

    Args:
        name_or_path: see models.extractor_store.find.
        threads: intra-op threads; None for all cores that this process may use.
        refused: open it even where it failed the ladder and nobody accepted it.

    Raises:
        NotFound: there is none; the detail lists those that are shipped.
        LoadError: its files are damaged, or its weights lie outside the file.
        Refused: it failed the ladder.
    """
    folder = extractor_store.find(os.fspath(name_or_path))
    manifest = read_extractor_manifest(folder)
    if manifest.refused and manifest.ladder is not None and not refused:
        raise Refused(f"extractor {manifest.label} failed the ladder: {'; '.join(manifest.ladder.reasons)}")
    try:
        model = (folder / "model.onnx").read_bytes()
        outside = external_tensors(onnx.load_model_from_string(model))
    except Exception as error:  # protobuf's DecodeError is no public name
        raise LoadError(f"extractor {manifest.name}: model.onnx is not readable: {error}") from error
    if outside:
        raise LoadError(f"extractor {manifest.name}: external data is refused (tensor {outside[0]!r})")
    return Extractor(model, manifest, threads=threads)


def make_extractor(model: onnx.ModelProto, manifest: ExtractorManifest, *, threads: int | None = None) -> Extractor:
    """An extractor straight from a graph, never written to disk; its digest is set here."""
    data = model.SerializeToString(deterministic=True)
    digest = hashlib.sha256(data).hexdigest()
    extractor = Extractor(data, msgspec.structs.replace(manifest, digest=digest), threads=threads)
    extractor.made_of = data
    return extractor


def write_extractor(folder: Path, model: onnx.ModelProto, manifest: ExtractorManifest) -> Path:
    """Writes model.onnx and manifest.json (with the digest set) into a folder, made where it is missing; returns it."""
    data = model.SerializeToString(deterministic=True)
    complete = msgspec.structs.replace(manifest, digest=hashlib.sha256(data).hexdigest())
    Extractor(data, complete, threads=1)
    folder.mkdir(parents=True, exist_ok=True)
    write_file(folder / "model.onnx", data)
    write_file(folder / "manifest.json", pretty_json(complete))
    return folder


def _random_manifest(name: str, dataset: "Dataset") -> ExtractorManifest:
    architecture, dim = random_features.DESCRIPTIONS[name]
    return ExtractorManifest(
        name=name, kind=dataset.kind, dim=dim, shape=dataset.shape, architecture=architecture, seed=random_features.SEED
    )
