"""What the routes share: the parts of the application, and the way from a request to an answer. Knows no routes."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, TypeVar

from models.errors import Invalid
from models.repository import Repository
from serving.alarm import Alarm
from serving.answers import Answer, encode_samples, encode_walk, encoded_ahead
from serving.asgi import Headers, Incoming, Reply
from serving.bodies import LARGE_BODY_BYTES, Outline, SampleOutline, WalkOutline, json_body
from serving.cache import value_bytes
from serving.cache_memory import Address, Kept
from serving.calls import Done, Leave, nothing
from serving.encoding import Encoders, Place
from serving.errors import DeadlineExceeded, QueueTooLong
from serving.formats import choose_format
from serving.loading import LiveModel
from serving.metrics import Metrics
from serving.offload import offload
from serving.orders import LatentOrder, Order, order_samples, order_walk
from serving.ports import Draws, Models
from serving.replies import reply_of
from serving.requests import InterpolateRequest, SampleRequest, decode_body
from serving.sampler import Drawn
from serving.schedule import Deadline
from serving.settings import Settings
from serving.timed import TOO_LATE, Timed

# Up to so many bytes of samples are encoded on the event loop, in 0.1 ms at most: a thread's two hops cost as much.
INLINE_BYTES = {"png": 16 * 1024, "npy": 64 * 1024}
OTHER_INLINE_BYTES = 2 * 1024
MAX_KEPT_BODY_BYTES = 1024  # of a request that its answer is kept by; longer ones are seldom of one seed
MAX_KEPT_HEADER_BYTES = 512  # likewise, of each header that decides the answer, too
MAX_LEFT_OPEN = 256  # different words of such requests that are known at once

T = TypeVar("T")
R = TypeVar("R", SampleRequest, InterpolateRequest)
Encode = Callable[[Drawn], Answer]


def nothing_ahead(model: LiveModel) -> Reply | None:
    """No answer is ready."""
    return None


class Keeping(NamedTuple):
    """How an answer is kept.

    Args:
        key: what finds it again.
        reference: the model that was asked for.
    """

    key: Hashable
    reference: str | None


@dataclass
class State:
    """What changes in the life of an application."""

    draining: bool = False


@dataclass(frozen=True, kw_only=True)
class Service:
    """The parts of one application, put together in serving.app.

    Args:
        settings: what a person set.
        repository: read for /models.
        live: the models that answer.
        sampler: draws.
        metrics: where numbers go.
        scrape: what /metrics answers.
        encoders: threads for encoding.
        made_ahead: hands out a whole answer to a request that leaves everything open; None where none is ready.
        reader: a thread for large bodies: with several at once the event loop would wait for each of them.
        state: the one thing that changes: whether the server is draining.
        left_open: words of requests that an image of the stock answered: what model they name, and which one that was.
    """

    settings: Settings
    repository: Repository
    live: Models
    sampler: Draws
    metrics: Metrics
    scrape: Callable[[], Awaitable[bytes]]
    encoders: Encoders
    made_ahead: Callable[[LiveModel], Reply | None] = nothing_ahead
    reader: ThreadPoolExecutor = field(default_factory=partial(ThreadPoolExecutor, 1, thread_name_prefix="reader"))
    state: State = field(default_factory=State)
    left_open: dict[Hashable, tuple[str | None, Address]] = field(default_factory=dict)

    def close(self) -> None:
        """Let threads end."""
        self.encoders.close()
        self.reader.shutdown(wait=False, cancel_futures=True)

    @property
    def ready(self) -> bool:
        """Whether new requests should be sent here."""
        return self.live.ready and not self.state.draining

    def recall(self, request: Incoming) -> Reply | None:
        """POST /sample's answer where the same words had it before and mean the same model, or had one of the stock."""
        if len(request.body) > MAX_KEPT_BODY_BYTES or b"x-request-timeout" in request.headers:
            return None
        words = _words(request)
        left_open = self.left_open.get(words)
        if left_open is not None:
            return self._from_stock(*left_open)
        kept = self.sampler.find_answer(words)
        if kept is None:
            return None
        model = self.live.at_hand(kept.reference)
        if model is None or model.address != kept.model:
            return None
        self.metrics.recalled(model.version.name, kept.images)
        return kept.reply

    async def sample(self, request: Incoming) -> Reply:
        """POST /sample."""
        deadline = self.deadline(request)
        return await self.within(deadline, self._sample(request, deadline))

    async def _sample(self, request: Incoming, deadline: Deadline) -> Reply:
        asked, model = await self._read(request, SampleRequest, SampleOutline)
        kind = model.manifest.kind
        form = choose_format(asked.format, request.header(b"accept"), operation="sample", kind=kind)
        max_images = self.settings.max_images
        order = await offload(len(request.body), order_samples, asked, model, form, max_images=max_images)
        reference = asked.model
        del asked  # its latents are twice as large as the order's
        if isinstance(order, Order):
            keeping = Keeping(_words(request), reference) if self._keeps(request) else None
            return await self._answer_order(order, form, deadline, keeping)
        encode = partial(encode_samples, model, form=form, truncation=None)
        return await self._answer_latents(order, form, deadline, encode)

    async def _read(
        self, request: Incoming, kind: type[R], outline: Callable[[bytes, int], Outline[R]]
    ) -> tuple[R, LiveModel]:
        """What is asked, and the model that it means, which says how long latents are."""
        body = json_body(request)
        if len(body) <= LARGE_BODY_BYTES:
            asked = decode_body(body, kind)
            return asked, await self.live.get(asked.model)
        loop = asyncio.get_running_loop()
        outlined = await loop.run_in_executor(self.reader, outline, body, self.settings.max_images)
        model = await self.live.get(outlined.model)
        return await loop.run_in_executor(self.reader, outlined.request, model.manifest.z_dim), model

    def _from_stock(self, reference: str | None, answered: Address) -> Reply | None:
        """What was right to ask of one model is checked anew for another: its prior, kind or size may differ."""
        model = self.live.at_hand(reference)
        if model is None or model.address != answered:
            return None
        reply = self.made_ahead(model)
        if reply is not None:
            self.metrics.served(model.version.name, 1)
        return reply

    def sample_one(self, request: Incoming, done: Done[Reply]) -> Leave | None:
        """POST /sample of one small sample by its seed, or of one from the stock, which most requests are: `sample` by
        calling back.

        Returns:
            None where this request is none of them; nothing was done then.
        """
        if len(request.body) > MAX_KEPT_BODY_BYTES:
            return None
        deadline = self.deadline(request)
        asked = decode_body(json_body(request), SampleRequest)
        model = self.live.at_hand(asked.model)
        if model is None:
            return None
        form = choose_format(asked.format, request.header(b"accept"), operation="sample", kind=model.manifest.kind)
        order = order_samples(asked, model, form, max_images=self.settings.max_images)
        if not isinstance(order, Order) or len(order.seeds) > 1:
            return None
        if form == "png" and order.leaves_open and (reply := self._from_stock(asked.model, model.address)) is not None:
            if _short(request):
                if len(self.left_open) >= MAX_LEFT_OPEN:
                    self.left_open.clear()
                self.left_open[_words(request)] = (asked.model, model.address)
            done(reply)
            return nothing
        if not _inline(value_bytes(model.form), form):
            return None
        keeping = Keeping(_words(request), asked.model) if self._keeps(request) else None

        encode = partial(encode_samples, model, form=form, truncation=order.truncation)

        def answered(drawn: Drawn) -> Reply:
            return self._finish(order, drawn, self._encode_now(drawn, encode, form), keeping)

        return Timed(deadline, partial(self.sampler.begin, order, deadline), answered, done).begin()

    async def interpolate(self, request: Incoming) -> Reply:
        """POST /interpolate."""
        deadline = self.deadline(request)
        return await self.within(deadline, self._interpolate(request, deadline))

    async def _interpolate(self, request: Incoming, deadline: Deadline) -> Reply:
        asked, model = await self._read(request, InterpolateRequest, WalkOutline)
        form = choose_format(asked.format, request.header(b"accept"), operation="walk", kind=model.manifest.kind)
        # Up to 10 ms for the longest walk: too long for the event loop.
        order = await asyncio.to_thread(order_walk, asked, model, form, max_images=self.settings.max_images)
        return await self._answer_latents(order, form, deadline, partial(encode_walk, model, form=form, fps=asked.fps))

    async def answer_image(self, order: Order, form: str, deadline: Deadline, etag: str, headers: Headers) -> Reply:
        """The image route: like `sample`, kept by its validator, which covers all that decides it."""
        kept = self.sampler.find_answer(etag)
        if kept is not None:
            self.metrics.recalled(order.model.version.name, kept.images)
            return kept.reply
        keeping = Keeping(etag, None)
        return await self.within(deadline, self._answer_order(order, form, deadline, keeping, headers))

    async def _answer_order(
        self, order: Order, form: str, deadline: Deadline, keeping: "Keeping | None", more: Headers | None = None
    ) -> Reply:
        """Samples by seed.

        Args:
            order: what to draw.
            form: of the answer.
            deadline: of the answer.
            keeping: how the answer is kept in the local tier, where the client chose its seeds; None for not at all.
            more: headers.
        """
        draw = partial(self.sampler.sample, order, deadline)
        encode = partial(encode_samples, order.model, form=form, truncation=order.truncation)
        drawn, encoded = await self._make(order.model, len(order.seeds), form, deadline, draw, encode)
        return self._finish(order, drawn, encoded, keeping, more)

    async def _answer_latents(self, order: LatentOrder, form: str, deadline: Deadline, encode: Encode) -> Reply:
        draw = partial(self.sampler.sample_latents, order, deadline)
        drawn, (answer, seconds) = await self._make(order.model, len(order.z), form, deadline, draw, encode)
        return self.respond(order.model, drawn, answer, seconds)

    async def _make(
        self,
        model: LiveModel,
        images: int,
        form: str,
        deadline: Deadline,
        draw: Callable[[], Awaitable[Drawn]],
        encode: Encode,
    ) -> tuple[Drawn, tuple[Answer, float]]:
        """Samples, and their encoding with the seconds that it took: on a thread where they are not small."""
        size = images * value_bytes(model.form)
        if _inline(size, form):
            drawn = await draw()
            return drawn, self._encode_now(drawn, encode, form)
        with self._place(form, images, size, deadline) as place:
            drawn = await draw()
            if (ahead := encoded_ahead(drawn, form)) is not None:
                return drawn, (ahead, 0.0)
            began = time.perf_counter()
            answer = await place.encode(partial(encode, drawn))
        seconds = time.perf_counter() - began
        self.metrics.encoded(seconds)
        return drawn, (answer, seconds)

    def _place(self, form: str, images: int, size: int, deadline: Deadline) -> Place:
        """A place in the encoders' queue; images that have none are not drawn."""
        try:
            return self.encoders.place(form, size, deadline)
        except (QueueTooLong, DeadlineExceeded) as error:
            self.metrics.rejected(images, error.reason)
            raise

    def _encode_now(self, drawn: Drawn, encode: Encode, form: str) -> tuple[Answer, float]:
        """The answer and the seconds that it took, of few bytes."""
        if (ahead := encoded_ahead(drawn, form)) is not None:
            return ahead, 0.0
        began = time.perf_counter()
        answer = encode(drawn)
        seconds = time.perf_counter() - began
        self.metrics.encoded(seconds)
        return answer, seconds

    def _finish(
        self,
        order: Order,
        drawn: Drawn,
        encoded: tuple[Answer, float],
        keeping: "Keeping | None",
        more: Headers | None = None,
    ) -> Reply:
        """The reply, kept where it may be asked for again."""
        model, (answer, seconds) = order.model, encoded
        if order.repeatable and keeping is not None:
            known = drawn._replace(cache="hit", queue_seconds=0.0, inference_seconds=0.0)
            reply = reply_of(model, known, answer, more=more)
            kept = Kept(reply, len(order.seeds), keeping.reference, model.address)
            self.sampler.keep_answer(keeping.key, kept)
        return self.respond(model, drawn, answer, seconds, more)

    def _keeps(self, request: Incoming) -> bool:
        return bool(self.settings.cache_bytes) and _short(request)

    def deadline(self, request: Incoming) -> Deadline:
        """When the request's time is over: X-Request-Timeout seconds from now, at most the server's own limit."""
        limit = self.settings.request_timeout_seconds
        text = request.headers.get(b"x-request-timeout")
        if text is None:
            return Deadline(time.monotonic() + limit)
        try:
            seconds = float(text)
        except ValueError:
            seconds = math.nan
        if not 0 < seconds < math.inf:
            raise Invalid("expected a positive number of seconds", field="x-request-timeout")
        return Deadline(time.monotonic() + min(seconds, limit))

    async def within(self, deadline: Deadline, work: Awaitable[T]) -> T:
        """The work's result.

        Raises:
            DeadlineExceeded: it was not done in time; what had not started is not run.
        """
        alarm = Alarm(deadline.at - time.monotonic())
        try:
            return await work
        except asyncio.CancelledError:
            if not alarm.stop():
                raise
            raise DeadlineExceeded(TOO_LATE) from None
        finally:
            alarm.stop()
            del alarm  # it knows the task, which knows the error, which knows this frame: no cycles

    def respond(
        self, model: LiveModel, drawn: Drawn, answer: Answer, encode_seconds: float, more: Headers | None = None
    ) -> Reply:
        """The answer with what is said about it, counted."""
        self.metrics.served(model.version.name, len(drawn.seeds or drawn.samples))
        return reply_of(model, drawn, answer, encode_seconds=encode_seconds, more=more)


def _inline(size: int, form: str) -> bool:
    """Whether so many bytes of samples are encoded on the event loop."""
    return size <= INLINE_BYTES.get(form, OTHER_INLINE_BYTES)


def _words(request: Incoming) -> Hashable:
    """All of a request that decides its answer, but for the models that there are."""
    get = request.headers.get
    return (request.body, get(b"accept"), get(b"content-type"), get(b"content-encoding"))


def _short(request: Incoming) -> bool:
    """Whether its words are few enough to be kept: serving.cache_memory counts all keys as equally long."""
    get = request.headers.get
    return len(request.body) <= MAX_KEPT_BODY_BYTES and all(
        len(get(name, b"")) <= MAX_KEPT_HEADER_BYTES for name in (b"accept", b"content-type", b"content-encoding")
    )
