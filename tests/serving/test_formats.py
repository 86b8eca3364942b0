"""Which format answers."""

import pytest

from models.errors import Invalid
from serving.errors import NotAcceptable
from serving.formats import choose_format


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (None, "png"),
        ("", "png"),
        ("*/*", "png"),
        ("image/*", "png"),
        ("image/webp", "webp"),
        ("image/webp, */*;q=0.1", "webp"),
        ("application/json", "json"),
        ("application/zip, image/jpeg;q=0.9", "zip"),
        ("image/png;q=0, */*", "webp"),
        ("text/html, image/avif, image/webp, */*;q=0.8", "webp"),
        ("IMAGE/JPEG", "jpeg"),
        ("image/*;q=0.2, application/x-npy;q=0.3", "npy"),
        ("nonsense, image/png", "png"),
        ("image/png;q=x, image/webp;q=0.1", "webp"),
    ],
)
def test_accept_chooses_among_what_is_offered(accept, chosen):
    """By quality, then by the order of preference; what is malformed is left out."""
    assert choose_format(None, accept, operation="sample", kind="image") == chosen


@pytest.mark.parametrize("accept", ["text/html", "image/avif", "*/*;q=0", "nonsense"])
def test_nothing_acceptable_is_refused(accept):
    """406."""
    with pytest.raises(NotAcceptable):
        choose_format(None, accept, operation="sample", kind="image")


def test_the_wish_beats_accept():
    """`format` decides whatever Accept says."""
    assert choose_format("npy", "image/png", operation="sample", kind="image") == "npy"


def test_vectors_are_json_by_default_and_never_pictures():
    """A png of a vector model is 400 when wished for and 406 when only that is accepted."""
    assert choose_format(None, "*/*", operation="sample", kind="vector") == "json"
    with pytest.raises(Invalid, match="json, npy"):
        choose_format("png", None, operation="sample", kind="vector")
    with pytest.raises(NotAcceptable):
        choose_format(None, "image/png", operation="sample", kind="vector")


@pytest.mark.parametrize(
    ("accept", "chosen"), [(None, "webp"), ("image/png", "strip"), ("image/gif", "gif"), ("image/apng", "apng")]
)
def test_walks_are_webp_by_default(accept, chosen):
    """And a plain PNG of a walk is its strip."""
    assert choose_format(None, accept, operation="walk", kind="image") == chosen
