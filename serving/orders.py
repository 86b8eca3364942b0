"""A request and a model become an order: what to draw, checked. Pure; knows nothing of HTTP, engines or caches."""

import secrets
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.errors import Invalid
from models.latents import (
    MAX_SEED,
    Drawn,
    Latents,
    check_classes,
    check_latents,
    check_truncation,
    draw,
    draw_untruncated,
    truncate,
    walk,
)
from models.manifest import Prior, Signature
from serving.loading import LiveModel
from serving.requests import ImageQuery, InterpolateRequest, KeyFrame, Latent, SampleRequest
from serving.sizes import check_answer, check_duration


class Order(NamedTuple):
    """Samples addressed by their seeds.

    Args:
        model: the one that answers, whatever is promoted meanwhile.
        seeds: one for each sample.
        class_idx: one for each sample; None where each seed draws its own, and for unconditional models.
        truncation: None for none.
        repeatable: whether the client chose the seeds, so that the same answer may be asked for again.
    """

    model: LiveModel
    seeds: tuple[int, ...]
    class_idx: tuple[int, ...] | None
    truncation: float | None
    repeatable: bool

    @property
    def leaves_open(self) -> bool:
        """Whether any one sample of the model will do."""
        return not self.repeatable and len(self.seeds) == 1 and self.class_idx is None and self.truncation is None


class LatentOrder(NamedTuple):
    """Samples of given latents: of `z`, or of a walk.

    Args:
        model: the one that answers.
        z: [N, z_dim] float32.
        class_idx: [N] int64; None for an unconditional model.
    """

    model: LiveModel
    z: Latents
    class_idx: NDArray[np.int64] | None

    def draw(self, start: int, stop: int) -> Drawn:
        """Those of samples [start, stop)."""
        return Drawn(self.z[start:stop], None if self.class_idx is None else self.class_idx[start:stop])


def order_samples(request: SampleRequest, model: LiveModel, form: str, *, max_images: int) -> Order | LatentOrder:
    """What POST /sample asks for, as `form`.

    Raises:
        Invalid: fields that contradict each other or the model, more than `max_images` images, or than `form` holds.
    """
    signature = model.manifest
    _check_prior(request.prior, signature.prior)
    given = [name for name in ("seed", "seeds", "z") if getattr(request, name) is not None]
    if len(given) > 1:
        raise Invalid(f"give one of seed, seeds and z, not {' and '.join(given)}", field=given[1])
    listed = given[0] if given in (["seeds"], ["z"]) else None
    if request.num_images is not None and listed:
        raise Invalid(f"the number of images is the length of {listed}: leave num_images out", field="num_images")
    rows = request.seeds if request.z is None else request.z
    count = (request.num_images or 1) if rows is None else len(rows)
    if count > max_images:
        raise Invalid(f"{count} images asked for, at most {max_images} in one request", field=listed or "num_images")
    check_answer(form, signature, count, field=listed or "num_images")
    check_truncation(signature.prior, request.truncation)
    classes = check_classes(signature, request.class_idx, count)
    if request.z is not None:
        return _order_latents(request, model, classes)
    seeds, first = request.seeds, request.seed
    if seeds is None:
        first = secrets.randbelow(MAX_SEED + 1) if first is None else first
        seeds = [(first + i) % (MAX_SEED + 1) for i in range(count)]
    return Order(model, tuple(seeds), _tuple(classes), request.truncation, repeatable=bool(given))


def order_image(seed: int, query: ImageQuery, model: LiveModel, form: str) -> Order:
    """What the image route asks for.

    Raises:
        Invalid: a class or truncation that the model does not have, or an image that `form` does not hold.
    """
    check_answer(form, model.manifest, 1, field="format")
    check_truncation(model.manifest.prior, query.truncation)
    classes = check_classes(model.manifest, query.class_idx, 1)
    return Order(model, (seed,), _tuple(classes), query.truncation, repeatable=True)


def order_walk(request: InterpolateRequest, model: LiveModel, form: str, *, max_images: int) -> LatentOrder:
    """What POST /interpolate asks for, as `form`: first the walk, then the truncation.

    Raises:
        Invalid: fields that contradict each other or the model, more than `max_images` frames, or than `form` holds.
    """
    signature = model.manifest
    _check_prior(request.prior, signature.prior)
    stops = len(request.keyframes)
    if stops > max_images:
        raise Invalid(f"{stops} key frames, at most {max_images} in one request", field="keyframes")
    total = stops * request.frames if request.loop else (stops - 1) * request.frames + 1
    if total > max_images:
        raise Invalid(f"the walk has {total} frames, at most {max_images} in one request", field="frames")
    check_answer(form, signature, total, field="frames", walk=True)
    check_duration(form, total, request.fps)
    check_truncation(signature.prior, request.truncation)
    if signature.classes is None:
        check_classes(signature, request.class_idx, total)
    stations = np.stack([_station(signature, stop, i) for i, stop in enumerate(request.keyframes)])
    path = walk(stations, request.frames, loop=request.loop, method=request.method, prior=signature.prior)
    z = path.astype(np.float32) if request.truncation is None else truncate(path, signature.prior, request.truncation)
    if signature.classes is None:
        return LatentOrder(model, z, None)
    class_idx = request.class_idx if request.class_idx is not None else _class_of(signature, request.keyframes[0])
    return LatentOrder(model, z, check_classes(signature, class_idx, total))


def _order_latents(request: SampleRequest, model: LiveModel, classes: NDArray[np.int64] | None) -> LatentOrder:
    if request.truncation is not None:
        raise Invalid("truncation applies to drawn latents: leave it out beside z", field="truncation")
    if model.manifest.classes is not None and classes is None:
        raise Invalid("a conditional model needs class_idx beside z", field="class_idx")
    z = _latents(model.manifest, [] if request.z is None else request.z, "z")
    return LatentOrder(model, z.astype(np.float32), classes)


def _station(signature: Signature, stop: KeyFrame, i: int) -> NDArray[np.float64]:  # [z_dim]
    """The latent of a key frame."""
    if (stop.seed is None) == (stop.z is None):
        raise Invalid("give exactly one of seed and z", field=f"keyframes[{i}]")
    if stop.z is not None:
        given: NDArray[np.float64] = _latents(signature, [stop.z], f"keyframes[{i}].z")[0]
        return given
    latent: NDArray[np.float64] = draw_untruncated(signature, [stop.seed or 0])[0]
    return latent


def _class_of(signature: Signature, stop: KeyFrame) -> int:
    """The class that the first key frame's seed draws."""
    if stop.seed is None:
        raise Invalid("a conditional model needs class_idx where the first key frame is a z", field="class_idx")
    drawn = draw(signature, [stop.seed]).class_idx
    return int(drawn[0]) if drawn is not None else 0


def _latents(signature: Signature, rows: Sequence[Latent], field: str) -> NDArray[np.float64]:  # [N, z_dim]
    for i, row in enumerate(rows):
        if len(row) != signature.z_dim:
            where = f"{field}[{i}]" if field == "z" else field
            raise Invalid(f"{len(row)} values, the model's z_dim is {signature.z_dim}", field=where)
    z: NDArray[np.float64] = np.asarray(rows, np.float64)
    try:
        check_latents(signature, z)
    except Invalid as error:
        raise Invalid(error.detail, field=field) from error
    return z


def _check_prior(asked: Prior | None, prior: Prior) -> None:
    if asked is not None and asked != prior:
        raise Invalid(f"the model's prior is {prior}, not {asked}", field="prior")


def _tuple(classes: NDArray[np.int64] | None) -> tuple[int, ...] | None:
    return None if classes is None else tuple(classes.tolist())
