"""`genserve sample` and `genserve interpolate`: the server's own answers, into files. Knows nothing of HTTP.

Requests are checked, drawn and encoded by the same code as in the server, so the same digest, numerics and seed give
the same bytes here as there. Only the verdict is not asked for: what is looked at before it is judged is drawn here.
"""

import argparse
from pathlib import Path
from typing import TypeVar

import msgspec

from genserve.context import readable_repository
from models.batches import generate_all
from models.errors import Invalid
from models.latents import Drawn as Latent
from models.latents import draw
from serving.answers import Answer, encode_samples, encode_walk
from serving.formats import OFFERED, Operation
from serving.loading import LiveModel, load
from serving.orders import LatentOrder, Order, order_samples, order_walk
from serving.requests import InterpolateRequest, SampleRequest, invalid
from serving.sampler import Drawn

MAX_SAMPLES = 65536

T = TypeVar("T")


def sample(args: argparse.Namespace) -> int:
    """Draw samples; several images in a picture format become a grid."""
    model = _open(args.model)
    form = _form(args.output, "sample", model)
    asked = {"seed": args.seed, "num_images": args.num_images}
    order = order_samples(_request(args, asked, SampleRequest), model, form, max_images=MAX_SAMPLES)
    drawn = _draw(order)
    truncation = order.truncation if isinstance(order, Order) else None
    _write(args.output, encode_samples(model, drawn, form, truncation=truncation))
    print(f"{args.output}: {len(drawn.samples)} samples of {model.version}")
    return 0


def interpolate(args: argparse.Namespace) -> int:
    """Walk between the latents of seeds."""
    model = _open(args.model)
    form = _form(args.output, "walk", model)
    keyframes = [{"seed": seed} for seed in args.seeds]
    asked = {"keyframes": keyframes, "frames": args.frames, "fps": args.fps, "loop": args.loop, "method": args.method}
    request = _request(args, asked, InterpolateRequest)
    drawn = _draw(order_walk(request, model, form, max_images=MAX_SAMPLES))
    _write(args.output, encode_walk(model, drawn, form, fps=request.fps))
    print(f"{args.output}: {len(drawn.samples)} frames of {model.version}")
    return 0


def _open(reference: str) -> LiveModel:
    """A version that has passed its golden samples on this machine."""
    repository = readable_repository()
    return load(repository, repository.resolve(reference), allow_unjudged=True)


def _form(output: str, operation: Operation, model: LiveModel) -> str:
    """The format that a file's ending stands for, as the server names it; a PNG of a walk is a strip."""
    suffix = Path(output).suffix.lower().removeprefix(".")
    form = {"jpg": "jpeg", "png": "strip" if operation == "walk" else "png"}.get(suffix, suffix)
    offered = OFFERED[operation, model.manifest.kind]
    if form not in offered:
        endings = ", ".join(".png" if name == "strip" else f".{name}" for name in offered)
        raise Invalid(f"a file of {model.version} ends in one of {endings}", field="output")
    return form


def _request(args: argparse.Namespace, asked: dict[str, object], kind: type[T]) -> T:
    """The request that a client would have sent, checked as strictly."""
    fields = {**asked, "class_idx": args.class_idx, "truncation": args.truncation}
    try:
        return msgspec.convert({name: value for name, value in fields.items() if value is not None}, kind)
    except msgspec.ValidationError as error:
        raise invalid(error) from error


def _draw(order: Order | LatentOrder) -> Drawn:
    model = order.model
    seeds = order.seeds if isinstance(order, Order) else None
    if isinstance(order, Order):
        signature = model.generator.signature
        latent = draw(signature, order.seeds, class_idx=order.class_idx, truncation=order.truncation)
    else:
        latent = Latent(order.z, order.class_idx)
    classes = None if latent.class_idx is None else tuple(latent.class_idx.tolist())
    return Drawn(generate_all(model.generator, *latent), seeds, classes, "miss", 0.0, 0.0)


def _write(output: str, answer: Answer) -> None:
    Path(output).write_bytes(answer.body)
