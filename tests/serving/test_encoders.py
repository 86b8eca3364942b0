"""Every format decodes to the samples that went in, and the same samples give the same bytes."""

import io
import zipfile

import numpy as np
import pytest
from PIL import Image, ImageSequence

from serving import encoders


def samples(n=5, channels=3, height=6, width=8):
    return np.random.RandomState(0).randint(0, 256, (n, height, width, channels)).astype(np.uint8)


def opened(body):
    return Image.open(io.BytesIO(body))


def pixels(body):
    array = np.asarray(opened(body))
    return array[:, :, None] if array.ndim == 2 else array


@pytest.mark.parametrize("channels", [1, 3])
def test_png_is_lossless_and_carries_texts(channels):
    """Grey stays grey; the texts are text chunks."""
    body = encoders.png(samples(channels=channels)[0], {"seed": "7", "model": "naïve@1"})
    assert (pixels(body) == samples(channels=channels)[0]).all()
    assert opened(body).mode == {1: "L", 3: "RGB"}[channels]
    assert opened(body).text == {"seed": "7", "model": "naïve@1"}


@pytest.mark.parametrize("channels", [1, 3])
def test_webp_is_lossless(channels):
    """Grey comes back as three equal channels: WebP has no grey."""
    assert (pixels(encoders.webp(samples(channels=channels)[0])) == samples(channels=channels)[0]).all()


def test_jpeg_is_not_subsampled():
    """4:4:4, and near the original on something smooth."""
    smooth = np.linspace(0, 255, 64 * 64 * 3).reshape(64, 64, 3).astype(np.uint8)
    body = encoders.jpeg(smooth)
    assert all(layer[1:3] == (1, 1) for layer in opened(body).layer)  # (id, horizontal, vertical, table)
    assert np.abs(pixels(body).astype(int) - smooth).mean() < 2


@pytest.mark.parametrize("n", [1, 4])
def test_npy_holds_all_dimensions(n):
    """[N, H, W, C], N = 1 included."""
    loaded = np.load(io.BytesIO(encoders.npy(samples(n))), allow_pickle=False)
    assert (loaded == samples(n)).all()
    assert loaded.shape == (n, 6, 8, 3)


def test_the_archive_is_stored_with_fixed_times():
    """One PNG each; nothing of the present moment."""
    names = [f"{i:05d}-{i + 7}.png" for i in range(3)]
    body = encoders.archive(samples(3), names)
    with zipfile.ZipFile(io.BytesIO(body)) as file:
        assert file.namelist() == names
        assert all(entry.compress_type == zipfile.ZIP_STORED for entry in file.infolist())
        assert {entry.date_time for entry in file.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert (pixels(file.read(names[2])) == samples(3)[2]).all()


@pytest.mark.parametrize(
    ("n", "columns", "rows"), [(1, 1, 1), (2, 2, 1), (3, 2, 2), (4, 2, 2), (5, 3, 2), (7, 3, 3), (16, 4, 4), (17, 5, 4)]
)
def test_a_grid_has_the_root_of_n_columns(n, columns, rows):
    """Row-major, no padding, blanks black."""
    grid = encoders.grid(samples(n))
    assert grid.shape == (rows * 6, columns * 8, 3)
    for i in range(rows * columns):
        row, column = divmod(i, columns)
        cell = grid[row * 6 : row * 6 + 6, column * 8 : column * 8 + 8]
        assert (cell == (samples(n)[i] if i < n else 0)).all()


def test_a_strip_is_one_row():
    """Frame i is at i widths."""
    strip = encoders.strip(samples(3))
    assert strip.shape == (6, 24, 3)
    assert (strip[:, 8:16] == samples(3)[1]).all()


@pytest.mark.parametrize("fps", [7, 24, 30, 60])
@pytest.mark.parametrize("encode", [encoders.animated_webp, encoders.gif, encoders.apng])
def test_an_animation_lasts_as_long_as_its_frames(encode, fps):
    """Equal neighbours may be merged, but their time stays, within the format's tick; it repeats for ever."""
    frames = samples(25, channels=1)
    frames[10:14] = frames[10]
    animation = opened(encode(frames, fps))
    duration = 0.0
    for frame in ImageSequence.Iterator(animation):
        frame.load()  # Pillow knows a WebP frame's duration only then
        duration += frame.info["duration"]
    assert abs(duration - 25 * 1000 / fps) <= 10
    assert animation.info["loop"] == 0


@pytest.mark.parametrize(("n", "fps"), [(2, 24), (25, 10), (256, 1)])
@pytest.mark.parametrize("encode", [encoders.animated_webp, encoders.gif, encoders.apng])
def test_a_walk_that_stands_still_lasts_as_long(encode, n, fps):
    """All frames equal: still an animation of the whole duration, of the same pixels, that repeats for ever."""
    frames = samples(1, height=5, width=7).repeat(n, axis=0)
    animation = opened(encode(frames, fps))
    duration = 0.0
    for frame in ImageSequence.Iterator(animation):
        frame.load()
        duration += frame.info["duration"]
        assert (np.asarray(frame.convert("RGB")) == frames[0]).all()
    assert abs(duration - 1000 * n / fps) <= 10
    assert animation.info["loop"] == 0


def test_a_long_still_is_cut_where_webp_cannot_count_further(monkeypatch):
    """A frame's duration has 24 bits; what is longer becomes more frames."""
    monkeypatch.setattr(encoders, "MAX_WEBP_FRAME_MS", 3000)
    assert opened(encoders.animated_webp(samples(1).repeat(10, axis=0), 1)).n_frames == 4


@pytest.mark.parametrize("encode", [encoders.animated_webp, encoders.apng])
def test_lossless_animations_keep_their_pixels(encode):
    """First and last frame."""
    frames = samples(5)
    decoded = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(opened(encode(frames, 24)))]
    assert (decoded[0] == frames[0]).all()
    assert (decoded[-1] == frames[-1]).all()


def test_the_same_samples_give_the_same_bytes():
    """Every encoder, twice."""
    frames = samples(4)
    for encode in (
        lambda: encoders.png(frames[0], {"a": "b"}),
        lambda: encoders.webp(frames[0]),
        lambda: encoders.jpeg(frames[0]),
        lambda: encoders.npy(frames),
        lambda: encoders.archive(frames, list("abcd")),
        lambda: encoders.gif(frames, 24),
        lambda: encoders.animated_webp(frames, 24),
        lambda: encoders.apng(frames, 24),
    ):
        assert encode() == encode()
