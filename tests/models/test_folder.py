"""A folder of images: what becomes of any size and mode, what is left out, and what is told of it."""

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.datasets import Dataset, load_dataset
from models.errors import DataError
from models.folder import common_resolution, list_files, read_folder

ROOT = Path(__file__).parents[2]


def noise(count: int, side: int = 8, channels: int = 1, seed: int = 0) -> np.ndarray:
    return np.random.RandomState(seed).randint(0, 256, (count, side, side, channels), dtype=np.uint8)


def pixels(path: Path, resolution: int | None = None) -> np.ndarray:
    """The one image of a folder, [R, R, C]."""
    return load_dataset(str(path), resolution=resolution).samples[0]


def test_a_folder_of_any_images(tmp_path: Path) -> None:
    """Sizes and modes may differ: grey, palette, transparent, 16 bit and portrait images become one RGB array."""
    (tmp_path / "cats").mkdir()
    (tmp_path / "dogs").mkdir()
    Image.new("L", (40, 40), 128).save(tmp_path / "cats" / "grey.png")
    Image.new("RGBA", (50, 40), (255, 0, 0, 0)).save(tmp_path / "cats" / "clear.png")
    Image.fromarray(np.full((40, 40), 128 * 257, np.uint16)).save(tmp_path / "dogs" / "deep.png")
    palette = Image.new("P", (40, 60))
    palette.putpalette([255, 0, 0])
    palette.save(tmp_path / "dogs" / "palette.gif")
    data = load_dataset(str(tmp_path))
    assert data.shape == (40, 40, 3)
    assert data.class_names == ("cats", "dogs")
    np.testing.assert_array_equal(data.labels, [0, 0, 1, 1])
    assert np.unique(data.samples[0]).tolist() == [255]  # nothing but transparency, over white
    assert np.unique(data.samples[1]).tolist() == [128]
    assert np.unique(data.samples[2]).tolist() == [128]
    assert data.samples[3, 0, 0].tolist() == [255, 0, 0]
    modes = {"grey": 1, "colour with alpha": 1, "16-bit grey": 1, "palette": 1}
    assert data.inventory.modes == modes
    assert data.inventory.sizes == {"40 x 40": 2, "50 x 40": 1, "40 x 60": 1}


def write_colour(folder: Path, suffix: str, side: int, count: int = 40) -> None:
    """Blobs of colour on dark ground, two classes by their place."""
    random = np.random.RandomState(side)
    for i in range(count):
        grid = np.indices((side, side)) / side
        centre = np.array([0.3 if i % 2 else 0.7, random.uniform(0.3, 0.7)])
        blob = np.exp(-((grid - centre[:, None, None]) ** 2).sum(0) / 0.02)
        image = (blob[:, :, None] * random.uniform(80, 255, 3)).astype(np.uint8)
        (folder / f"class{i % 2}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"class{i % 2}" / f"{i}{suffix}")


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("side", [32, 64])
def test_colour_png_and_jpeg_at_32_and_64(tmp_path: Path, suffix: str, side: int) -> None:
    """Files of the common size keep it, and every pixel is what the file holds."""
    write_colour(tmp_path, suffix, side)
    data = load_dataset(str(tmp_path))
    assert data.shape == (side, side, 3)
    assert data.inventory.labels == {"class0": 20, "class1": 20}
    written = np.asarray(Image.open(tmp_path / "class0" / f"0{suffix}"))
    np.testing.assert_array_equal(data.samples[0], written)
    assert any("their common size" in line for line in data.inventory.lines())


def test_photographs_are_read_at_the_resolution_asked_for(tmp_path: Path) -> None:
    """A JPEG of 900 x 600 becomes its averaged centre, within 6 levels, though decoded at a fraction of its size."""
    y, x = np.indices((600, 900)) / 600
    photo = np.stack([x * 120, y * 250, 128 + 100 * np.sin(6 * x)], axis=2).astype(np.uint8)
    Image.fromarray(photo).save(tmp_path / "a.jpg", quality=95)
    averaged = photo[:, 150:750].reshape(24, 25, 24, 25, 3).mean((1, 3))
    assert np.abs(pixels(tmp_path, 24) - averaged).max() < 6


def test_grey_images_stay_grey_at_the_resolution_asked_for(tmp_path: Path) -> None:
    """A folder without subfolders has no labels, and one channel if all are grey."""
    for i in range(3):
        Image.fromarray(noise(1, 20, seed=i)[0, :, :, 0]).save(tmp_path / f"{i}.png")
    data = load_dataset(str(tmp_path), resolution=16)
    assert data.shape == (16, 16, 1)
    assert data.labels is None


def test_grey_is_decided_by_pixels_not_by_modes(tmp_path: Path) -> None:
    """Grey pictures that were stored as colour train one channel; a single coloured one makes all three."""
    for i in range(30):
        grey = Image.fromarray(noise(1, 16, seed=i)[0, :, :, 0])
        grey.convert("RGB").save(tmp_path / (f"{i:02}.jpg" if i % 2 else f"{i:02}.png"))
    data = load_dataset(str(tmp_path))
    assert data.shape == (16, 16, 1)
    assert "grey: no image has a coloured pixel" in data.inventory.lines()
    before = data.samples[:20]
    Image.new("RGB", (16, 16), (10, 200, 30)).save(tmp_path / "20b.png")
    data = load_dataset(str(tmp_path))
    assert data.shape == (16, 16, 3)
    assert "colour: 1 images have any" in data.inventory.lines()
    np.testing.assert_array_equal(data.samples[:20], np.repeat(before, 3, axis=3))
    assert data.samples[21, 0, 0].tolist() == [10, 200, 30]


def test_resizing_is_antialiased_and_centred(tmp_path: Path) -> None:
    """A fine checkerboard becomes an even grey, and what lies outside the centre square is gone."""
    board = np.indices((64, 64)).sum(0) % 2 * 255
    wide = np.concatenate([np.full((64, 32), 255), board, np.full((64, 32), 255)], axis=1).astype(np.uint8)
    Image.fromarray(wide).save(tmp_path / "a.png")
    assert np.abs(pixels(tmp_path, 8).astype(int) - 127).max() <= 12  # the filter has less to average at the edges


def test_16_bits_are_scaled_even_where_an_image_is_dark(tmp_path: Path) -> None:
    """Level 200 of 65,535 is 1 of 255, not 200."""
    Image.fromarray(np.full((8, 8), 200, np.uint16)).save(tmp_path / "dark.png")
    assert np.unique(pixels(tmp_path)).tolist() == [1]


def test_exif_orientation_is_followed(tmp_path: Path) -> None:
    """A photograph that was taken with the camera on its side comes out upright."""
    upright = np.zeros((16, 16, 3), np.uint8)
    upright[:8] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by 90 degrees
    Image.fromarray(np.rot90(upright)).save(tmp_path / "a.png", exif=exif)
    assert np.abs(pixels(tmp_path).astype(int) - upright[:, :, :1]).max() == 0


def test_half_transparency_is_laid_over_white(tmp_path: Path) -> None:
    """Black at half opacity is a middle grey; one with alpha whose colour is grey stays grey."""
    Image.new("LA", (8, 8), (0, 128)).save(tmp_path / "a.png")
    data = load_dataset(str(tmp_path))
    assert data.shape == (8, 8, 1)
    assert np.unique(data.samples).tolist() == [127]
    assert "transparency laid over white: 1 images have it" in data.inventory.lines()


def test_cmyk_becomes_colour(tmp_path: Path) -> None:
    """Full cyan is no red and all green and blue."""
    Image.new("CMYK", (8, 8), (255, 0, 0, 0)).save(tmp_path / "a.tif")
    assert pixels(tmp_path)[0, 0].tolist() == [0, 255, 255]


def test_of_animations_the_first_frame_is_taken(tmp_path: Path) -> None:
    """GIF, WebP, APNG and TIFF of two frames are one image each, the first, and the inventory says so."""
    red, blue = (Image.new("RGB", (8, 8), colour) for colour in ((255, 0, 0), (0, 0, 255)))
    for suffix in ("gif", "png", "tif"):
        red.save(tmp_path / f"a.{suffix}", save_all=True, append_images=[blue])
    red.save(tmp_path / "a.webp", save_all=True, append_images=[blue], lossless=True)
    data = load_dataset(str(tmp_path))
    assert len(data.samples) == 4
    assert (data.samples == np.array([255, 0, 0], np.uint8)).all()
    assert "first frame alone: 4 files hold several" in data.inventory.lines()


def test_values_without_an_agreed_range_are_told(tmp_path: Path) -> None:
    """A TIFF of floats could mean anything: it is named with what to do."""
    Image.fromarray(np.zeros((8, 8), np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match=r"a\.tif \(32-bit values have no agreed range: convert"):
        load_dataset(str(tmp_path))


# Broken files.


def broken_folder(folder: Path, sound: int) -> Path:
    for i in range(sound):
        Image.fromarray(noise(1, 16, seed=i)[0, :, :, 0]).save(folder / f"{i:03}.png")
    Image.fromarray(noise(1, 64)[0, :, :, 0]).save(folder / "cut.png")
    (folder / "cut.png").write_bytes((folder / "cut.png").read_bytes()[:200])
    (folder / "text.jpg").write_text("not an image")
    return folder


def test_a_few_broken_images_are_skipped_and_told(tmp_path: Path) -> None:
    """2 of 42 are within the 5 %: the other 40 are read as if those were not there, and both are named with why."""
    with_broken = load_dataset(str(broken_folder(tmp_path, 40)))
    told = with_broken.inventory.lines()[-1]
    assert told.startswith("skipped 2 broken files (4.8%): cut.png (")
    assert told.endswith("text.jpg (not an image)")
    (tmp_path / "cut.png").unlink()
    (tmp_path / "text.jpg").unlink()
    assert load_dataset(str(tmp_path)).content_hash == with_broken.content_hash


def test_too_many_broken_images_are_an_error_that_names_them(tmp_path: Path) -> None:
    """2 of 12 are more than the 5 %; what may be skipped can be raised, and not beyond the whole."""
    broken_folder(tmp_path, 10)
    with pytest.raises(DataError, match=r"2 of 12 image files are broken, more than the 5%.*cut\.png.*text\.jpg"):
        load_dataset(str(tmp_path))
    assert len(load_dataset(str(tmp_path), max_skipped=0.2).samples) == 10
    with pytest.raises(DataError, match=r"max_skipped: 1\.5 is outside 0 \.\. 1"):
        load_dataset(str(tmp_path), max_skipped=1.5)


def test_a_folder_of_broken_images_alone_is_an_error(tmp_path: Path) -> None:
    """Even where all may be skipped there must be something left."""
    (tmp_path / "a.png").write_text("not an image")
    with pytest.raises(DataError, match="no samples"):
        load_dataset(str(tmp_path), max_skipped=1)


def test_a_file_that_cannot_be_opened_stops_at_once(tmp_path: Path) -> None:
    """A dangling link is not a broken image: the error names the file and what the system says."""
    broken_folder(tmp_path, 40)
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(DataError, match=r"gone\.png: No such file"):
        load_dataset(str(tmp_path))


def test_a_folder_that_cannot_be_read_stops_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A class is not left out without a word."""
    for name in "abc":
        (tmp_path / name).mkdir()
        broken_folder(tmp_path / name, 5)
    scandir = os.scandir

    def refusing(path: Any) -> Any:
        if Path(path).name == "b":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(DataError, match=r"/b: Permission denied"):
        load_dataset(str(tmp_path))


@pytest.mark.filterwarnings("ignore:.*[Tt]ag:UserWarning")  # Pillow's, of what it reads all the same
def test_damaged_files_never_end_in_another_error(tmp_path: Path) -> None:
    """Whatever bytes of a PNG, JPEG, GIF, TIFF, BMP or WebP are changed, it is read, or skipped with a reason."""
    random = np.random.RandomState(0)
    for suffix in ("png", "jpg", "gif", "tif", "bmp", "webp"):
        Image.fromarray(noise(1, 16, 3)[0]).save(tmp_path / f"sound.{suffix}")
        sound = (tmp_path / f"sound.{suffix}").read_bytes()
        for i in range(40):
            damaged = bytearray(sound)
            for place in random.randint(0, len(sound), 3):
                damaged[place] = random.randint(256)
            (tmp_path / f"{i}.{suffix}").write_bytes(damaged)
    read = read_folder(tmp_path, 16, max_skipped=1)
    assert len(read.samples) + len(read.inventory.skipped) == 6 * 41
    assert len(read.inventory.skipped) > 20
    assert all(file.reason for file in read.inventory.skipped)


# Which files, which classes.


def test_other_files_are_counted_and_hidden_ones_are_not(tmp_path: Path) -> None:
    """Texts and files without an ending are told by number; a hidden folder is never entered."""
    broken_folder(tmp_path, 40)
    for name in ("a.txt", "b.TXT", "LICENSE", ".DS_Store"):
        (tmp_path / name).write_text("")
    (tmp_path / ".thumbnails").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / ".thumbnails" / "a.png")
    inventory = load_dataset(str(tmp_path)).inventory
    assert inventory.ignored == {".txt": 2, "without an ending": 1}
    assert inventory.lines()[-1] == "ignored 3 files that are no images: .txt (2), without an ending (1)"


def test_a_folder_without_images_says_what_it_holds(tmp_path: Path) -> None:
    """A format that is not read is named."""
    (tmp_path / "a.heic").write_text("")
    with pytest.raises(DataError, match=r"no image files .*; it holds \.heic files"):
        load_dataset(str(tmp_path))


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    """A class folder may be a link; one that leads back up does not lead round in circles."""
    (tmp_path / "elsewhere").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "elsewhere" / "1.png")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "up").symlink_to(tmp_path / "data")
    assert [path.relative_to(tmp_path / "data") for path in list_files(tmp_path / "data").images] == [Path("a/1.png")]


def two_classes(folder: Path, *names: str) -> Dataset:
    for name in names:
        (folder / name).mkdir()
        Image.new("L", (8, 8), len(name)).save(folder / name / "1.png")
    return load_dataset(str(folder))


def test_classes_that_are_numbers_keep_their_order(tmp_path: Path) -> None:
    """10 comes after 9."""
    assert two_classes(tmp_path, "10", "9", "0").class_names == ("0", "9", "10")


def test_one_subfolder_makes_no_classes(tmp_path: Path) -> None:
    """All images in images/ are unlabelled, and the inventory says so."""
    data = two_classes(tmp_path, "images")
    assert data.labels is None
    assert data.inventory.lines()[-1] == "no classes: all images lie in one subfolder, images"


def test_images_beside_class_folders_are_refused(tmp_path: Path) -> None:
    """An image that belongs to no class, where others do, is an accident."""
    Image.new("L", (8, 8)).save(tmp_path / "2.png")
    with pytest.raises(DataError, match="beside the class folders a"):
        two_classes(tmp_path, "a")


def test_parts_of_a_split_are_no_classes(tmp_path: Path) -> None:
    """Labels "test" and "train" say nothing, and what was set aside for a test would be trained on."""
    with pytest.raises(DataError, match=r"Test, train are the parts of a split, not classes: give one of them"):
        two_classes(tmp_path, "train", "Test")
    assert two_classes(tmp_path, "cat").class_names == ("Test", "cat", "train")


@pytest.mark.parametrize(("sides", "resolution"), [([28, 28], 28), ([64, 500], 64), ([100, 100], 64), ([9, 50], 28)])
def test_the_common_resolution(sides: list[int], resolution: int) -> None:
    """The common size where there is one up to 64 pixels, else a usual size that the median image has."""
    assert common_resolution(sides) == resolution


@pytest.mark.skipif(sys.platform != "linux", reason="a process's peak memory is read from /proc")
def test_few_images_are_decoded_at_once(tmp_path: Path) -> None:
    """16 images of 1536 x 1536, 9 MiB each once decoded, are read in less than the memory of 7: 4 at once, and room."""
    for i in range(16):
        Image.new("RGB", (1536, 1536), (i, 0, 0)).save(tmp_path / f"{i}.png", compress_level=1)
    code = (
        "import re, sys; from pathlib import Path; from models.folder import read_folder\n"
        "peak = lambda: int(re.search(r'VmHWM:\\s+(\\d+) kB', Path('/proc/self/status').read_text())[1])\n"
        "before = peak(); samples = read_folder(Path(sys.argv[1])).samples\n"
        "print(len(samples), (peak() - before) // 1024)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    count, mebibytes = map(int, done.stdout.split())
    assert count == 16
    assert mebibytes < 7 * 9
