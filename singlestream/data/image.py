"""Pictures to patches: reading whatever comes, resizing by budget or by sides, windows of pixels, augmentation."""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Int32, UInt8
from PIL import Image, ImageOps

from singlestream.batch import Patches
from singlestream.config import ConfigError
from singlestream.data.record import DataError, Record

Picture = str | os.PathLike | Image.Image | np.ndarray


def read_image(image: Picture, name: str = "") -> UInt8[np.ndarray, "H W 3"]:
    """A picture as RGB bytes.

    Args:
        image: a path, a PIL image (any mode; transparency is laid over white, 16 bits are cut to 8), or an array
            [H, W], [H, W, 1], [H, W, 3] or [H, W, 4] of bool, uint8, uint16, or float in [0, 1].
        name: what an error calls the picture; by default its path or "the image".

    Raises:
        DataError: no such file, no picture, damaged, or an array of another form; names the picture.
    """
    if isinstance(image, (str, os.PathLike)):
        name = name or os.fspath(image)
        if not pathlib.Path(image).is_file():
            raise DataError(f"{name}: no such image file")
    name = name or "the image"
    if isinstance(image, np.ndarray):
        return _array_to_rgb(image, name)
    try:
        if isinstance(image, Image.Image):
            return _pil_to_rgb(image)
        with Image.open(image) as opened:
            return _pil_to_rgb(opened)
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise DataError(f"{name}: not a readable image ({error})") from error


def _pil_to_rgb(image: Image.Image) -> np.ndarray:
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        deep = np.asarray(image)
        # PIL would clip 16 bits at 255 and show a white picture.
        grey = (deep / 257 if image.mode.startswith("I") and deep.max(initial=0) > 255 else deep).clip(0, 255)
        return np.repeat(grey.round().astype(np.uint8)[..., None], 3, axis=-1)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema() != (255, 255):
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("RGB"))


def _array_to_rgb(array: np.ndarray, name: str) -> np.ndarray:
    wanted = "expected [H, W], [H, W, 1], [H, W, 3] or [H, W, 4] of bool, uint8, uint16 or float in [0, 1]"
    array = array[..., None] if array.ndim == 2 else array
    if array.ndim != 3 or array.shape[-1] not in (1, 3, 4) or 0 in array.shape:
        raise DataError(f"{name}: an array of shape {array.shape}; {wanted}")
    if array.dtype == np.bool_:
        array = array * np.uint8(255)
    elif array.dtype == np.uint16:
        array = (array / 257).round().astype(np.uint8)
    elif array.dtype.kind == "f":
        if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
            raise DataError(f"{name}: floats outside [0, 1]; {wanted}")
        array = (array * 255).round().astype(np.uint8)
    elif array.dtype != np.uint8:
        raise DataError(f"{name}: an array of {array.dtype}; {wanted}")
    if array.shape[-1] == 4:
        return _pil_to_rgb(Image.fromarray(array, "RGBA"))
    return np.ascontiguousarray(np.broadcast_to(array, (*array.shape[:2], 3)))


def patch_grid(height: int, width: int, patch_size: int, max_patches: int) -> tuple[int, int]:
    """Rows and columns of patches for a picture of that many pixels.

    A picture that is larger than the budget is scaled down until it fits, a smaller one keeps its scale. Both sides are
    then rounded to whole patches: neither differs by a whole patch or more from the picture scaled as it was.
    """
    scale = min(
        1.0, patch_size * math.sqrt(max_patches / (height * width)), patch_size * max_patches / max(height, width)
    )
    rows, cols = height * scale / patch_size, width * scale / patch_size
    near = (max(1, round(rows)), max(1, round(cols)))
    low = (max(1, math.floor(rows)), max(1, math.floor(cols)))
    # A thin picture can be below one patch high, and then take more than its share of the budget.
    for grid in (near, (near[0], low[1]), (low[0], near[1]), low):
        if grid[0] * grid[1] <= max_patches:
            return grid
    raise AssertionError("the rounded-down grid always fits")


def resize_to_budget(
    image: UInt8[np.ndarray, "H W 3"], patch_size: int, max_patches: int
) -> UInt8[np.ndarray, "h w 3"]:
    """The picture at whole patches, at most `max_patches` of them, its aspect kept to within one patch."""
    height, width = image.shape[:2]
    return resize_to_grid(image, patch_size, patch_grid(height, width, patch_size, max_patches))


def longer_side(shorter_side: int) -> int:
    """The most that a picture's longer side may have: COCO's usual aspect, 1333 to 800 (639 for ViLT's 384)."""
    return int(1333 / 800 * shorter_side)


def side_grid(height: int, width: int, patch_size: int, shorter_side: int) -> tuple[int, int]:
    """Rows and columns of patches for a picture scaled as ViLT does, up or down.

    The shorter side becomes `shorter_side`, unless the longer one would exceed `longer_side(shorter_side)` and is made
    that; then both are cut to whole patches, but to one at least (where the original fails). Kim et al. 2021, section
    4.2; arithmetic and rounding are those of `transformers.ViltImageProcessor` and of the authors' `MinMaxResize`.
    """
    scale = shorter_side / min(height, width)
    high, wide = (shorter_side, scale * width) if height < width else (scale * height, shorter_side)
    limit = longer_side(shorter_side)
    if max(high, wide) > limit:
        scale = limit / max(high, wide)
        high, wide = scale * high, scale * wide
    rows, cols = (max(1, int(side + 0.5) // patch_size) for side in (high, wide))
    return rows, cols


def resize_to_grid(
    image: UInt8[np.ndarray, "H W 3"], patch_size: int, grid: tuple[int, int]
) -> UInt8[np.ndarray, "h w 3"]:
    """The picture at exactly so many rows and columns of patches, by PIL's bicubic filter."""
    height, width = grid[0] * patch_size, grid[1] * patch_size
    if image.shape[:2] == (height, width):
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))


def patchify(
    image: UInt8[np.ndarray, "H W 3"], patch_size: int, margin: int = 0
) -> tuple[UInt8[np.ndarray, "N C"], Int32[np.ndarray, "N 2"], tuple[int, int]]:
    """Windows of a picture in raster order.

    Args:
        image: sides are multiples of `patch_size` (`resize_to_budget` makes them so).
        patch_size: side P of a patch in pixels.
        margin: pixels m around it that a window shows too; beyond the picture's border its edge is repeated.

    Returns:
        pixels [N, (P + 2m)^2 * 3] (row by row, channels last), yx [N, 2] (row and column of each patch), and the grid
        (rows, columns).

    Raises:
        DataError: a side is no multiple of the patch size.
    """
    pixels, yx, grid = _windows(image[None], patch_size, margin)
    return pixels[0], yx, grid


def patchify_batch(images: UInt8[np.ndarray, "B H W 3"], patch_size: int = 32, margin: int = 0) -> Patches:
    """The patches of pictures of one size, as a model takes them (see `patchify`)."""
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
        raise DataError(f"images: expected uint8 [B, H, W, 3], got {images.dtype} {list(images.shape)}")
    pixels, yx, grid = _windows(images, patch_size, margin)
    shape = (*pixels.shape[:2], 2)
    return Patches(
        pixels=pixels,
        yx=np.broadcast_to(yx, shape),
        grid=np.broadcast_to(np.asarray(grid, np.int32), shape),
    )


def _windows(images: np.ndarray, patch_size: int, margin: int) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    count, height, width, channels = images.shape
    if height % patch_size or width % patch_size or not height or not width:
        raise DataError(
            f"a picture of {height} x {width} pixels does not divide into patches of {patch_size}: "
            "resize_to_budget makes one that does"
        )
    rows, cols, side = height // patch_size, width // patch_size, patch_size + 2 * margin
    y = np.clip(np.arange(rows)[:, None] * patch_size + np.arange(side) - margin, 0, height - 1)
    x = np.clip(np.arange(cols)[:, None] * patch_size + np.arange(side) - margin, 0, width - 1)
    windows = images[:, y[:, None, :, None], x[None, :, None, :]]  # [B, rows, cols, side, side, channels]
    yx = np.stack(np.divmod(np.arange(rows * cols, dtype=np.int32), np.int32(cols)), axis=-1)
    return windows.reshape(count, rows * cols, side * side * channels), yx, (rows, cols)


def brightness(record: Record, rng: np.random.Generator) -> Record:
    """All pictures of the record brighter or darker by up to a fifth."""
    table = (np.arange(256) * rng.uniform(0.8, 1.2)).round().clip(0, 255).astype(np.uint8)
    return dataclasses.replace(record, images=tuple(table[image] for image in record.images))


def shift(record: Record, rng: np.random.Generator) -> Record:
    """Each picture moved by up to a sixteenth of its sides, the border repeated; boxes move with it."""
    moves = [rng.uniform(-1 / 16, 1 / 16, size=2) for _ in record.images]
    images, offsets = [], []
    for image, move in zip(record.images, moves, strict=True):
        height, width = image.shape[:2]
        dy, dx = (move * (height, width)).round().astype(int)
        y, x = np.arange(height) - dy, np.arange(width) - dx
        images.append(image[y.clip(0, height - 1)[:, None], x.clip(0, width - 1)])
        offsets.append(np.array([dx / width, dy / height] * 2, np.float32))
    boxes = record.boxes
    if len(boxes):
        boxes = (boxes + np.stack(offsets)[record.index]).clip(0, 1).astype(np.float32)
    texts = tuple(
        dataclasses.replace(
            text,
            mentions=tuple(
                dataclasses.replace(m, boxes=(m.boxes + offsets[m.index]).clip(0, 1)) for m in text.mentions
            ),
        )
        for text in record.texts
    )
    return dataclasses.replace(record, images=tuple(images), boxes=boxes, texts=texts)


Augmentation = Callable[[Record, np.random.Generator], Record]
AUGMENT: dict[str, Augmentation] = {"brightness": brightness, "shift": shift}


def choose_augmentations(names: tuple[str, ...], offered: dict[str, Any]) -> tuple[Augmentation, ...]:
    """The functions of `config.data.augment`: those of this file and those that the source offers.

    Raises:
        ConfigError: an unknown name, with the valid ones.
    """
    known = {**AUGMENT, **offered}
    for name in names:
        if name not in known:
            raise ConfigError(f"config.data.augment has {name!r}: choose from {', '.join(sorted(known))}")
    return tuple(known[name] for name in names)
