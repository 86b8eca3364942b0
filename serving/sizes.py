"""How large an answer may be: in pixels, by its format, and in bytes of samples. Pure; encodes nothing."""

import math

from models.errors import Invalid
from models.manifest import Signature
from serving.cache import Form, value_bytes

MAX_SAMPLE_BYTES = 256 * 1024 * 1024  # of one request's samples; encoding takes about as much again

MAX_EXTENT = {  # pixels each way; the formats that are not here hold anything
    "webp": 16_383,
    "jpeg": 65_500,
    "gif": 65_535,
}


MAX_SECONDS = {"gif": 655}  # a GIF's equal frames become one, which lasts 65,535 hundredths of a second at most


def check_answer(form: str, signature: Signature, samples: int, *, field: str, walk: bool = False) -> None:
    """Check that so many samples can be answered in a format.

    Args:
        form: see serving.formats.
        signature: of the model.
        samples: how many.
        field: what the client chose their number with.
        walk: whether they are the frames of an animation instead of the cells of a grid.

    Raises:
        Invalid: above MAX_SAMPLE_BYTES, or above what the format can hold.
    """
    each = value_bytes(Form(signature.kind, signature.shape))
    if samples * each > MAX_SAMPLE_BYTES:
        fit = MAX_SAMPLE_BYTES // each
        raise Invalid(f"{samples} samples of {each} bytes each: at most {fit} in one request", field=field)
    if signature.kind == "image":
        check_extent(form, signature.shape, 1 if walk else samples, field=field)


def check_duration(form: str, frames: int, fps: float) -> None:
    """Check that an animation's format can hold its duration, even if all frames come out equal.

    Raises:
        Invalid: it lasts too long; it names fps.
    """
    limit = MAX_SECONDS.get(form)
    if limit is not None and frames / fps > limit:
        least = frames / limit
        raise Invalid(
            f"{frames} frames last {frames / fps:.0f} s, {form} holds at most {limit} s: give at least {least:.3g}",
            field="fps",
        )


def check_extent(form: str, shape: tuple[int, ...], samples: int, *, field: str) -> None:
    """Check that a picture fits its format: one image, or a grid of several.

    Args:
        form: png, webp, jpeg or another of serving.formats.
        shape: (H, W, C) of one image.
        samples: how many images are in the grid; 1 for a frame of an animation.
        field: what their number was chosen with.

    Raises:
        Invalid: the picture would be too high or too wide.
    """
    limit = MAX_EXTENT.get(form)
    columns = math.isqrt(samples - 1) + 1
    height, width = shape[0] * -(-samples // columns), shape[1] * columns
    if limit is not None and max(height, width) > limit:
        raise Invalid(
            f"{samples} images make a picture of {width} x {height} pixels, {form} holds at most {limit} each way; "
            "ask for fewer, or for png, npy or zip",
            field=field,
        )
