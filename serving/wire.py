"""What HTTP workers and the engine's process say to each other. Knows no sockets, no HTTP and no engines.

A message is a header (msgpack) and the arrays that it speaks of as raw frames behind it. Both ends are the same code,
started together. Deadlines are absolute: CLOCK_MONOTONIC is one clock for all processes of a machine.
"""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np

from models.errors import GenserveError
from models.generator import DTYPES, Samples
from models.latents import Latents
from models.manifest import Manifest
from models.records import Verdict
from models.repository import Version
from serving.errors import Busy
from serving.loading import LiveModel, Network
from serving.merging import Families
from serving.orders import LatentOrder, Order
from serving.sampler import CacheState, Drawn


class EngineError(Exception):
    """Something unexpected went wrong in the engine's process, whose log knows more."""


class _Message(msgspec.Struct, frozen=True, array_like=True):
    """A header."""


# From a worker.


class Draw(_Message, frozen=True, tag=1):
    """Samples for seeds; answered by Made or Failed. See serving.orders.Order; `model` is a handle."""

    id: int
    model: int
    seeds: tuple[int, ...]
    class_idx: tuple[int, ...] | None
    truncation: float | None
    repeatable: bool
    deadline: float


class DrawLatents(_Message, frozen=True, tag=2):
    """Samples for latents, which follow: z [N, z_dim] float32, then class_idx [N] int64 where it is conditional."""

    id: int
    model: int
    deadline: float


class Withdraw(_Message, frozen=True, tag=3):
    """Nobody waits for an answer any more."""

    id: int


class Find(_Message, frozen=True, tag=4):
    """The model that a reference means; answered by Found or Failed."""

    id: int
    reference: str | None


class Report(_Message, frozen=True, tag=5):
    """A worker's own numbers, each second and when asked.

    Args:
        id: of the Collect that asked; 0 for none.
        seen: number of the last Snapshot that it has taken over.
        held: handles of replaced models that requests still hold.
        loop_share: of a core, that its event loop took since the last one.
        encoding: see Encoding.
        families: its metrics.
    """

    id: int
    seen: int
    held: tuple[int, ...]
    loop_share: float
    encoding: bool
    families: Families


class Scrape(_Message, frozen=True, tag=6):
    """Everybody's metrics; answered by Exposition."""

    id: int


class Encoding(_Message, frozen=True, tag=7):
    """Whether anybody waits for a worker's encoders; sent when it changes."""

    busy: bool


# From the engine's process.


class ModelFacts(msgspec.Struct, frozen=True, array_like=True):
    """A LiveModel without its network. `handle` names it in orders; see serving.loading.LiveModel for the others."""

    handle: int
    name: str
    number: int
    path: str
    manifest: Manifest
    providers: tuple[str, ...]
    numerics: str
    verdict: Verdict | None
    asked: str
    loaded: float
    promised: dict[str, str]
    variant: str | None
    passed_over: str | None


class Snapshot(_Message, frozen=True, tag=16):
    """What a worker knows of models and state; sent when it changes, and each second as a sign of life.

    Args:
        number: grows with each change.
        ready: whether something can answer.
        draining: whether the server is about to stop.
        default: what requests that name no model mean; None where only the engine's process can say.
        champions: what answers for names.
        others: loaded on demand.
        fault: why a model must not answer; None where all may.
    """

    number: int
    ready: bool
    draining: bool
    default: str | None
    champions: tuple[ModelFacts, ...]
    others: tuple[ModelFacts, ...]
    fault: str | None = None


class Alive(_Message, frozen=True, tag=17):
    """Nothing changed."""


class Made(_Message, frozen=True, tag=18):
    """Samples, which follow as one frame, and the PNG of one that was made ahead, where there is one.

    See serving.sampler.Drawn; `seeds` is None where they are the order's.
    """

    id: int
    seeds: tuple[int, ...] | None
    class_idx: tuple[int, ...] | None
    cache: CacheState
    queue_seconds: float
    inference_seconds: float


class Found(_Message, frozen=True, tag=19):
    """The model asked for."""

    id: int
    model: ModelFacts


class Failed(_Message, frozen=True, tag=20):
    """An error of ours; `kind` is its class, "" for what was not foreseen."""

    id: int
    kind: str
    detail: str
    field: str | None
    retry_after_seconds: float


class Collect(_Message, frozen=True, tag=21):
    """Report now."""

    id: int


class Exposition(_Message, frozen=True, tag=22):
    """The metrics' text, which follows."""

    id: int


class Stop(_Message, frozen=True, tag=23):
    """Take no more connections and end with the last answer; at once where `force`."""

    force: bool


FromWorker = Draw | DrawLatents | Withdraw | Find | Report | Scrape | Encoding
FromEngine = Snapshot | Alive | Made | Found | Failed | Collect | Exposition | Stop

encode = msgspec.msgpack.Encoder().encode
decode_from_worker = msgspec.msgpack.Decoder(FromWorker).decode
decode_from_engine = msgspec.msgpack.Decoder(FromEngine).decode


def order_of(message: Draw, model: LiveModel) -> Order:
    """What was asked for."""
    return Order(model, message.seeds, message.class_idx, message.truncation, message.repeatable)


def frames_of(order: LatentOrder) -> list[memoryview]:
    """The frames behind a DrawLatents."""
    frames = [raw(order.z)]
    return frames if order.class_idx is None else [*frames, raw(order.class_idx)]


def latents_of(frames: list[memoryview], model: LiveModel) -> LatentOrder:
    """What the frames behind a DrawLatents ask for; no copy."""
    z: Latents = np.frombuffer(frames[0], np.float32).reshape(-1, model.manifest.z_dim)
    return LatentOrder(model, z, np.frombuffer(frames[1], np.int64) if len(frames) > 1 else None)


def answer_of(number: int, drawn: Drawn, asked: tuple[int, ...] | None) -> list[bytes | memoryview]:
    """The frames of an answer to an order for seeds `asked`; None for one of latents."""
    seeds = None if drawn.seeds == asked else drawn.seeds
    made = Made(number, seeds, drawn.class_idx, drawn.cache, drawn.queue_seconds, drawn.inference_seconds)
    return [encode(made), raw(drawn.samples), *([] if drawn.png is None else [drawn.png])]


def drawn_of(message: Made, frames: list[memoryview], order: Order | LatentOrder) -> Drawn:
    """The answer to an order, of its header and the frames behind it; the samples are no copy."""
    form = order.model.form
    values: Samples = np.frombuffer(frames[0], DTYPES[form.kind]).reshape(-1, *form.shape)
    seeds = order.seeds if message.seeds is None and isinstance(order, Order) else message.seeds
    png = bytes(frames[1]) if len(frames) > 1 else None
    times = (message.queue_seconds, message.inference_seconds)
    return Drawn(values, seeds, message.class_idx, message.cache, *times, png)


def raw(array: Samples) -> memoryview:
    """An array's bytes, without a copy where it is contiguous."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def facts_of(handle: int, model: LiveModel) -> ModelFacts:
    """A model for a worker."""
    version = model.version
    return ModelFacts(
        handle,
        version.name,
        version.number,
        str(version.path),
        model.manifest,
        model.generator.providers,
        model.numerics,
        model.verdict,
        model.asked,
        model.loaded,
        dict(model.promised),
        model.variant,
        model.passed_over,
    )


def model_of(facts: ModelFacts, network: Network) -> LiveModel:
    """A model as a worker has it, with what stands for its network."""
    return LiveModel(
        version=Version(facts.name, facts.number, Path(facts.path)),
        manifest=facts.manifest,
        generator=network,
        numerics=facts.numerics,
        verdict=facts.verdict,
        asked=facts.asked,
        loaded=facts.loaded,
        promised=facts.promised,
        variant=facts.variant,
        passed_over=facts.passed_over,
    )


def failed_of(number: int, error: BaseException) -> Failed:
    """An error for a worker."""
    if not isinstance(error, GenserveError):
        return Failed(number, "", f"{type(error).__name__}: {error}", None, 0.0)
    retry_after = error.retry_after_seconds if isinstance(error, Busy) else 0.0
    return Failed(number, type(error).__name__, error.detail, error.field, retry_after)


def error_of(message: Failed) -> Exception:
    """The same error again, of the same class."""
    kind = _ERRORS.get(message.kind)
    if kind is None:
        return EngineError(message.detail)
    error = kind.__new__(kind)  # constructors differ; what they leave does not
    GenserveError.__init__(error, message.detail, field=message.field)
    if isinstance(error, Busy):
        error.retry_after_seconds = message.retry_after_seconds
    return error


def _tree(root: type[GenserveError]) -> Iterator[tuple[str, type[GenserveError]]]:
    yield root.__name__, root
    for kind in root.__subclasses__():
        yield from _tree(kind)


_ERRORS: dict[str, type[GenserveError]] = dict(_tree(GenserveError))
