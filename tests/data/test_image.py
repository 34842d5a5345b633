"""Pictures of any kind and size: read, resized within a budget, cut into windows, augmented with their truth."""

from __future__ import annotations

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from PIL import Image

from singlestream.config import ConfigError
from singlestream.data.image import (
    brightness,
    choose_augmentations,
    patch_grid,
    patchify,
    patchify_batch,
    read_image,
    resize_to_budget,
    shift,
)
from singlestream.data.record import DataError, Mention, Record, Sentence

sides = st.integers(1, 3000)


@hypothesis.given(sides, sides, st.integers(1, 40), st.integers(1, 300))
@hypothesis.settings(max_examples=300)
def test_any_picture_fits_the_budget_undistorted(height, width, patch, budget):
    rows, cols = patch_grid(height, width, patch, budget)
    assert rows >= 1 and cols >= 1 and rows * cols <= budget
    # There is one scale at which both sides are within one patch of the picture's own.
    low = max((rows - 1) * patch / height, (cols - 1) * patch / width)
    high = min((rows + 1) * patch / height, (cols + 1) * patch / width)
    assert low < high
    # And the budget is used: at no scale that is a patch larger each way would it fit, unless the picture is smaller.
    smaller = rows * patch >= height - patch and cols * patch >= width - patch
    assert smaller or (rows + 1) * (cols + 1) > budget


@pytest.mark.parametrize(
    ("size", "grid"),
    [
        ((48, 48), (6, 6)),
        ((96, 96), (6, 6)),
        ((24, 48), (3, 6)),
        ((40, 20), (5, 2)),
        ((3, 9000), (1, 36)),
        ((1, 1), (1, 1)),
    ],
)
def test_grids_of_common_sizes(size, grid):
    assert patch_grid(*size, 8, 36) == grid


def test_a_picture_of_whole_patches_is_left_alone():
    image = np.random.default_rng(0).integers(0, 256, (48, 48, 3)).astype(np.uint8)
    assert resize_to_budget(image, 8, 36) is image
    assert resize_to_budget(np.tile(image, (3, 5, 1)), 8, 36).shape == (40, 56, 3)


def test_windows_are_in_raster_order():
    image = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    pixels, yx, grid = patchify(image, 2)
    assert grid == (2, 3)
    assert yx.tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]
    for (y, x), window in zip(yx, pixels, strict=True):
        np.testing.assert_array_equal(window.reshape(2, 2, 3), image[2 * y : 2 * y + 2, 2 * x : 2 * x + 2])


def test_margins_show_the_neighbours_and_repeat_the_border():
    image = np.random.default_rng(0).integers(0, 256, (16, 24, 3)).astype(np.uint8)
    pixels, yx, _ = patchify(image, 8, margin=3)
    wide = np.pad(image, ((3, 3), (3, 3), (0, 0)), mode="edge")
    for (y, x), window in zip(yx, pixels, strict=True):
        np.testing.assert_array_equal(window.reshape(14, 14, 3), wide[8 * y : 8 * y + 14, 8 * x : 8 * x + 14])


def test_a_batch_of_pictures_is_patched_like_each():
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 64, 3)).astype(np.uint8)
    patches = patchify_batch(images, patch_size=16, margin=1)
    for i in range(3):
        pixels, yx, grid = patchify(images[i], 16, 1)
        np.testing.assert_array_equal(patches.pixels[i], pixels)
        np.testing.assert_array_equal(patches.yx[i], yx)
        assert (patches.grid[i] == grid).all()


def test_pictures_that_do_not_divide_are_refused():
    with pytest.raises(DataError, match="30 x 48 pixels does not divide into patches of 16"):
        patchify(np.zeros((30, 48, 3), np.uint8), 16)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F"])
def test_every_mode_of_a_file_becomes_rgb(mode, tmp_path):
    grey = np.full((5, 7), 51, np.uint8)
    if mode == "I;16":
        image = Image.fromarray(grey.astype(np.uint16) * 257)
    else:
        image = Image.fromarray(grey).convert(mode)
    path = tmp_path / ("a.tiff" if mode in ("CMYK", "F", "I") else "a.png")
    image.save(path)
    for read in (read_image(path), read_image(str(path)), read_image(image)):
        assert read.shape == (5, 7, 3) and read.dtype == np.uint8
        if mode != "1":
            assert np.abs(read.astype(int) - 51).max() <= 1


def test_transparency_lies_over_white(tmp_path):
    image = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (10, 20, 30, 255))
    assert read_image(image).tolist() == [[[255, 255, 255], [10, 20, 30]]]
    assert read_image(np.asarray(image)).tolist() == [[[255, 255, 255], [10, 20, 30]]]


def test_a_photograph_is_turned_upright(tmp_path):
    image = Image.new("RGB", (6, 4))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg").shape == (6, 4, 3)


@pytest.mark.parametrize(
    "array",
    [
        np.full((4, 5), 128, np.uint8),
        np.full((4, 5, 1), 128, np.uint8),
        np.full((4, 5, 3), 128 * 257, np.uint16),
        np.full((4, 5, 3), 128 / 255, np.float32),
    ],
)
def test_arrays_of_every_kind_become_rgb(array):
    assert read_image(array).tolist() == np.full((4, 5, 3), 128).tolist()
    assert read_image(np.ones((2, 2), bool)).min() == 255


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 5, 2), np.uint8), r"shape \(4, 5, 2\)"),
        (np.zeros((0, 5, 3), np.uint8), r"shape \(0, 5, 3\)"),
        (np.full((4, 5, 3), 128.0), r"floats outside \[0, 1\]"),
        (np.full((4, 5, 3), np.nan), r"floats outside \[0, 1\]"),
        (np.zeros((4, 5, 3), np.int64), "an array of int64"),
    ],
)
def test_other_arrays_are_refused_by_name(array, message):
    with pytest.raises(DataError, match="cat: .*" + message):
        read_image(array, "cat")


def test_missing_and_damaged_files_are_named(tmp_path):
    with pytest.raises(DataError, match=r"none\.png: no such image file"):
        read_image(tmp_path / "none.png")
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(DataError, match=r"text\.png: not a readable image"):
        read_image(tmp_path / "text.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)).save(tmp_path / "cut.png")
    whole = (tmp_path / "cut.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"cut\.png: not a readable image"):
        read_image(tmp_path / "cut.png")


def _marked(y: int, x: int) -> Record:
    """A black picture with a white square of 4 pixels, its object and a word that names it."""
    image = np.zeros((64, 32, 3), np.uint8)
    image[y : y + 4, x : x + 4] = 255
    boxes = np.array([[x / 32, y / 64, (x + 4) / 32, (y + 4) / 64]], np.float32)
    text = Sentence(id="t", text="the square", mentions=(Mention(start=4, end=10, boxes=boxes),))
    index = np.zeros(1, np.int32)
    return Record(id="r", images=(image,), texts=(text,), picture=1, boxes=boxes, classes=index[:, None], index=index)


@hypothesis.given(st.integers(0, 2**32))
def test_shift_moves_boxes_with_the_picture(seed):
    moved = shift(_marked(30, 14), np.random.default_rng(seed))
    y, x = np.nonzero(moved.images[0][..., 0])
    box = np.array([x.min() / 32, y.min() / 64, (x.max() + 1) / 32, (y.max() + 1) / 64])
    np.testing.assert_allclose(moved.boxes[0], box, atol=1e-6)
    np.testing.assert_allclose(moved.texts[0].mentions[0].boxes[0], box, atol=1e-6)
    assert abs(y.min() - 30) <= 4 and abs(x.min() - 14) <= 2


def test_brightness_scales_by_a_fifth_at_most():
    record = _marked(0, 0)
    bright = [brightness(record, np.random.default_rng(i)).images[0].max() for i in range(20)]
    assert 204 <= min(bright) < 240 and max(bright) == 255


def test_unknown_augmentations_list_the_known():
    with pytest.raises(ConfigError, match="config.data.augment has 'spin': choose from box_order, brightness, shift"):
        choose_augmentations(("spin",), {"box_order": shift})
