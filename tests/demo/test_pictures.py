"""Which pictures the demo reads, and what it makes of them."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from shmexec.demo import pictures


def grey(height=30, width=40, dtype=np.uint8):
    return (np.arange(height * width).reshape(height, width) % 251).astype(dtype)


def load_one(path, megapixels=0.01):
    loaded, problems = pictures.load(path.parent, megapixels, 10)
    assert not problems
    assert len(loaded) == 1
    return loaded[0].pixels


def test_the_photographs_lie_on_disk_and_are_enlarged_to_the_wanted_size(monkeypatch):
    def refuse(*_):
        raise AssertionError("the network was used")

    monkeypatch.setattr("socket.socket.connect", refuse)
    loaded, problems = pictures.load(None, 16, 1)
    assert not problems
    height, width, channels = loaded[0].pixels.shape
    assert height * width >= 16e6
    assert channels == 3
    assert len(pictures.load(None, 0.05, 100)[0]) >= 6


def test_every_kind_of_file_is_read(tmp_path):
    np.save(tmp_path / "a.npy", grey())
    np.savez(tmp_path / "b.npz", first=grey(), second=grey(50, 60))
    Image.fromarray(grey()).save(tmp_path / "c.PNG")
    tifffile.imwrite(tmp_path / "d.tif", grey())
    Image.fromarray(grey()).save(tmp_path / "e.jpg")
    loaded, problems = pictures.load(tmp_path, 0.01, 10)
    assert not problems
    assert [p.name for p in loaded] == ["a.npy", "b.npz: first", "b.npz: second", "c.PNG", "d.tif", "e.jpg"]
    assert all(p.pixels.shape[2] == 3 for p in loaded)
    assert all(p.pixels.dtype == np.uint8 for p in loaded)


def test_of_an_npz_only_arrays_of_two_or_three_dimensions_are_pictures(tmp_path):
    np.savez(tmp_path / "a.npz", exposure=np.zeros(5), picture=grey(), label=np.array("cat"))
    loaded, problems = pictures.load(tmp_path, 0.01, 10)
    assert [p.name for p in loaded] == ["a.npz: picture"]
    assert not problems


def test_a_grey_picture_gets_three_equal_channels(tmp_path):
    np.save(tmp_path / "a.npy", grey(200, 300))
    pixels = load_one(tmp_path / "a.npy")
    for channel in range(3):
        np.testing.assert_array_equal(pixels[:, :, channel], grey(200, 300))


@pytest.mark.parametrize("channels", [2, 4])
def test_transparency_is_dropped(tmp_path, channels):
    values = np.random.default_rng(2).integers(0, 256, (200, 300, channels), dtype=np.uint8)
    Image.fromarray(values, "LA" if channels == 2 else "RGBA").save(tmp_path / "a.png")
    np.testing.assert_array_equal(load_one(tmp_path / "a.png"), values[:, :, [0, 0, 0] if channels == 2 else [0, 1, 2]])


@pytest.mark.parametrize("suffix", [".png", ".tif", ".npy"])
def test_sixteen_bits_keep_their_depth_and_fill_the_range(tmp_path, suffix):
    values = np.arange(200 * 300, dtype=np.uint16).reshape(200, 300) // 16  # as from a camera of 12 bits
    path = tmp_path / f"a{suffix}"
    if suffix == ".png":
        Image.fromarray(values).save(path)
    elif suffix == ".tif":
        tifffile.imwrite(path, values)
    else:
        np.save(path, values)
    pixels = load_one(path)
    assert pixels.dtype == np.float32
    assert (pixels.min(), pixels.max()) == (0, 1)
    assert len(np.unique(pixels)) == len(np.unique(values))


def test_floats_between_0_and_1_stay_as_they_are(tmp_path):
    values = np.linspace(0.25, 0.5, 200 * 300).reshape(200, 300)
    np.save(tmp_path / "a.npy", values)
    np.testing.assert_array_equal(load_one(tmp_path / "a.npy")[:, :, 1], values.astype(np.float32))


@pytest.mark.parametrize("dtype", [bool, np.int8, np.int64, ">u2", ">f4", np.float16, np.float64])
def test_any_type_of_number_becomes_a_picture(dtype):
    pixels = pictures.as_picture(grey().astype(dtype))
    assert pixels.shape == (30, 40, 3)
    assert pixels.flags.c_contiguous
    assert pixels.dtype == (np.uint8 if dtype is bool else np.float32)
    assert np.isfinite(pixels).all()


def test_huge_infinite_and_missing_values_are_brought_into_range():
    values = np.array([[-1e308, 1e308, np.nan], [np.inf, -np.inf, 0]])
    expected = np.array([[0, 1, 0], [1, 0, 0.5]], np.float32)
    np.testing.assert_array_equal(pictures.as_picture(values)[:, :, 0], expected)


def test_planes_that_come_first_are_moved_last():
    values = np.random.default_rng(3).integers(0, 256, (3, 20, 30), dtype=np.uint8)
    np.testing.assert_array_equal(pictures.as_picture(values), np.moveaxis(values, 0, 2))


def test_a_palette_picture_is_read_in_its_colours(tmp_path):
    Image.new("RGB", (300, 200), (10, 200, 30)).convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "a.png")
    assert load_one(tmp_path / "a.png")[0, 0].tolist() == [10, 200, 30]


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_small_pictures_are_enlarged_and_large_ones_left_alone(dtype):
    small = np.random.default_rng(4).integers(0, 2, (30, 40, 3)).astype(dtype)
    larger = pictures.enlarged(small, 0.05)
    assert larger.shape[0] * larger.shape[1] >= 50_000
    assert larger.shape[1] / larger.shape[0] == pytest.approx(40 / 30, rel=0.02)
    assert larger.dtype == dtype
    assert 0 <= larger.min() <= larger.max() <= 1 or dtype == np.uint8
    assert pictures.enlarged(larger, 0.05) is larger
