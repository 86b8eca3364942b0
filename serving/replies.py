"""A drawn and encoded answer as a reply, with all that is said about it. Knows no requests and counts nothing."""

from functools import lru_cache

from serving.answers import Answer
from serving.asgi import Headers, Reply
from serving.loading import LiveModel
from serving.sampler import Drawn


def reply_of(
    model: LiveModel, drawn: Drawn, answer: Answer, *, encode_seconds: float = 0.0, more: Headers | None = None
) -> Reply:
    """Status 200.

    Args:
        model: which drew.
        drawn: what, and how long that took.
        answer: the body.
        encode_seconds: that making it took.
        more: headers.
    """
    queue, inference, encode = 1000 * drawn.queue_seconds, 1000 * drawn.inference_seconds, 1000 * encode_seconds
    timing = b"queue;dur=%.3f, inference;dur=%.3f, encode;dur=%.3f" % (queue, inference, encode)
    headers = [
        (b"content-type", answer.media_type.encode()),
        *_model_headers(str(model.version), model.manifest.digest, model.numerics),
        (b"x-cache", drawn.cache.encode()),
        (b"server-timing", timing),
        *(more or ()),
    ]
    if drawn.seeds:
        headers.append((b"x-seed", b"%d" % drawn.seeds[0]))
    return Reply(200, headers, answer.body)


@lru_cache(maxsize=64)
def _model_headers(version: str, digest: str, numerics: str) -> tuple[tuple[bytes, bytes], ...]:
    return (
        (b"x-model", version.encode()),
        (b"x-model-digest", digest.encode()),
        (b"x-numerics", numerics.encode()),
    )
