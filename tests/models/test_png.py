"""PNG files hold what went in, and read the same everywhere."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from models import png
from models.latents import draw
from models.opening import open_version
from models.repository import ZOO, Repository


def pillow_bytes(picture):
    buffer = io.BytesIO()
    Image.fromarray(picture.squeeze()).save(buffer, "PNG", compress_level=1)
    return len(buffer.getvalue())


def read(body):
    image = Image.open(io.BytesIO(body))
    image.load()
    return image


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from([1, 3]), st.integers(1, 40), st.integers(1, 40), st.sampled_from([None, 0, 6, 9]))
def test_what_another_reader_sees_is_what_went_in(data, channels, height, width, level):
    """Any picture at any level, also the smallest; Pillow checks every chunk's CRC."""
    picture = data.draw(arrays(np.uint8, (height, width, channels)))
    image = read(png.encode(picture, level=level))
    assert (np.asarray(image).reshape(picture.shape) == picture).all()
    assert image.mode == {1: "L", 3: "RGB"}[channels]


def test_views_are_encoded_as_what_they_show():
    """A transposed, strided view of a batch."""
    batch = np.random.RandomState(0).randint(0, 256, (4, 3, 10, 12)).astype(np.uint8)
    view = batch[1].transpose(1, 2, 0)[::2]
    assert (np.asarray(read(png.encode(view))) == view).all()


def test_texts_are_kept_in_order():
    """As text chunks, Latin-1."""
    texts = {"seed": "7", "model": "naïve@1", "synthetic": "true"}
    assert list(read(png.encode(np.zeros((2, 2, 1), np.uint8), texts)).text.items()) == list(texts.items())


def test_samples_make_files_as_small_as_pillows():
    """Within 10 % at its level 1, though no row is filtered: what the shipped model draws, and noise."""
    generator, *_ = open_version(Repository(ZOO).resolve("fashion-mnist"))
    noise = np.random.RandomState(0).randint(0, 256, (4, 64, 64, 3)).astype(np.uint8)
    for pictures in (generator.generate(*draw(generator.signature, range(16))), noise):
        ours = sum(len(png.encode(picture)) for picture in pictures)
        assert ours <= 1.1 * sum(pillow_bytes(picture) for picture in pictures)


def test_the_fingerprint_is_of_the_encoder(monkeypatch):
    """Another level, as another processor's routines might be, gives another one."""
    here = png.fingerprint()
    png.fingerprint.cache_clear()
    assert png.fingerprint() == here
    png.fingerprint.cache_clear()
    monkeypatch.setattr(png, "LEVEL", 0)
    assert png.fingerprint() != here
    png.fingerprint.cache_clear()


def test_other_shapes_are_not_pictures():
    """Two channels have no colour type here."""
    with pytest.raises(KeyError):
        png.encode(np.zeros((2, 2, 2), np.uint8))
