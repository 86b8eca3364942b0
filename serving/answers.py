"""Drawn samples to a body in a format, with the texts and names that go with it. Knows nothing of HTTP or caches."""

import base64
from typing import Any, NamedTuple

import msgspec

from serving import encoders
from serving.formats import MEDIA_TYPES
from serving.loading import LiveModel
from serving.sampler import Drawn


class Answer(NamedTuple):
    """A body and its media type."""

    body: bytes
    media_type: str


def encoded_ahead(drawn: Drawn, form: str) -> Answer | None:
    """The answer of one sample that was encoded as it was made ahead; None of any other."""
    return Answer(drawn.png, MEDIA_TYPES[form]) if form == "png" and drawn.png is not None else None


def encode_samples(model: LiveModel, drawn: Drawn, form: str, *, truncation: float | None) -> Answer:
    """The answer of POST /sample and of the image route."""
    if form in ("png", "webp", "jpeg"):
        alone = len(drawn.samples) == 1
        picture = drawn.samples[0] if alone else encoders.grid(drawn.samples)
        if form == "png":
            body = encoders.png(picture, texts(model, drawn, truncation) if alone else None)
        else:
            body = encoders.webp(picture) if form == "webp" else encoders.jpeg(picture)
    else:
        body = _encode_each(model, drawn, form)
    return Answer(body, MEDIA_TYPES[form])


def encode_walk(model: LiveModel, drawn: Drawn, form: str, *, fps: float) -> Answer:
    """The answer of POST /interpolate."""
    animate = {"webp": encoders.animated_webp, "gif": encoders.gif, "apng": encoders.apng}
    if form in animate:
        body = animate[form](drawn.samples, fps)
    elif form == "strip":
        body = encoders.png(encoders.strip(drawn.samples))
    else:
        body = _encode_each(model, drawn, form)
    return Answer(body, MEDIA_TYPES[form])


def texts(model: LiveModel, drawn: Drawn, truncation: float | None) -> dict[str, str]:
    """The text chunks of a PNG that answers alone."""
    known: dict[str, str] = {}
    if drawn.seeds:
        known["seed"] = str(drawn.seeds[0])
    if drawn.class_idx:
        known["class"] = str(drawn.class_idx[0])
    if truncation is not None:
        known["truncation"] = str(truncation)
    return {**known, "model": str(model.version), "digest": model.manifest.digest, "synthetic": "true"}


def _encode_each(model: LiveModel, drawn: Drawn, form: str) -> bytes:
    """The formats that hold every sample apart: npy, zip, json."""
    if form == "npy":
        return encoders.npy(drawn.samples)
    if form == "zip":
        return encoders.archive(drawn.samples, _names(drawn))
    return msgspec.json.encode(_document(model, drawn))


def _names(drawn: Drawn) -> list[str]:
    if drawn.seeds is None:
        return [f"{i:05d}.png" for i in range(len(drawn.samples))]
    return [f"{i:05d}-{seed}.png" for i, seed in enumerate(drawn.seeds)]


def _document(model: LiveModel, drawn: Drawn) -> dict[str, Any]:
    entries = []
    for i, sample in enumerate(drawn.samples):
        entry: dict[str, Any] = {
            "seed": drawn.seeds[i] if drawn.seeds else None,
            "class_idx": drawn.class_idx[i] if drawn.class_idx else None,
        }
        if model.manifest.kind == "image":
            entry["png"] = base64.b64encode(encoders.png(sample)).decode()
        else:
            entry["values"] = sample.tolist()
        entries.append(entry)
    return {
        "model": model.version.name,
        "version": model.version.number,
        "digest": model.manifest.digest,
        "numerics": model.numerics,
        "images": entries,
    }
