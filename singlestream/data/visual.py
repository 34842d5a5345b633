"""A record's pictures as image tokens: patches of pixels, or regions that a detector found."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from singlestream.config import ConfigError, DataConfig, ModelConfig
from singlestream.data.features import read_regions
from singlestream.data.image import (
    AUGMENT,
    Picture,
    longer_side,
    patch_grid,
    patchify,
    read_image,
    resize_to_grid,
    side_grid,
)
from singlestream.data.record import DataError, Record, RegionFeatures
from singlestream.data.sources import source_module

Fields = dict[str, np.ndarray]
# What people hand over for one picture: where the model reads regions, their features (or the file that holds them).
Visual = Picture | RegionFeatures
NO_BOXES = ("none", "constant")  # values of config.model.image_positions that do not look at a region's box


@runtime_checkable
class ImageTokens(Protocol):
    """How a model's image tokens are made of what a record shows."""

    def empty(self, size: int) -> Fields:
        """That many tokens of padding: the fields of `Patches` or `Regions` without those that lay out a row."""

    def count(self, record: Record) -> int:
        """Image tokens that the record takes."""

    def read(self, record: Record) -> Iterator[Fields]:
        """The tokens of each picture.

        Raises:
            DataError: names the record: it has pictures of the other kind only, more than `config.model.num_images`, or
                one that does not fit.
        """

    def given(self, visual: Visual | Sequence[Visual], name: str) -> dict[str, Any]:
        """The fields `images` and `regions` of a record for what somebody handed over as one example."""


def image_tokens(data: DataConfig, model: ModelConfig) -> ImageTokens:
    """What `config.model.image_stem` reads.

    Raises:
        ConfigError: settings that do not go together.
    """
    return RegionTokens(data, model) if model.image_stem == "regions" else PatchTokens(data, model)


class PatchTokens:
    """Pictures, resized by `data.max_patches` or `data.shorter_side`, in patches."""

    def __init__(self, data: DataConfig, model: ModelConfig):
        self._data, self._model = data, model
        size, shorter = model.patch_size, data.shorter_side
        need = max(1, shorter // size) * max(1, longer_side(shorter) // size)
        if shorter and data.max_patches < need:
            raise ConfigError(
                f"config.data.max_patches={data.max_patches}: with config.data.shorter_side={shorter} and "
                f"config.model.patch_size={size} a picture has up to {need}"
            )
        if data.mean_region:
            raise ConfigError(
                f"config.data.mean_region=True: config.model.image_stem={model.image_stem!r} reads no regions"
            )

    def empty(self, size: int) -> Fields:
        return {
            "pixels": np.zeros((size, self._model.window**2 * 3), np.uint8),
            "yx": np.zeros((size, 2), np.int32),
            "grid": np.ones((size, 2), np.int32),  # never 0: a position encoding may divide by it
        }

    def count(self, record: Record) -> int:
        return sum(rows * cols for rows, cols in map(self._grid, record.images))

    def read(self, record: Record) -> Iterator[Fields]:
        size = self._model.patch_size
        for image in _all(record, record.images, "pictures", self._model):
            pixels, yx, grid = patchify(resize_to_grid(image, size, self._grid(image)), size, self._model.patch_margin)
            yield {"pixels": pixels, "yx": yx, "grid": np.broadcast_to(np.array(grid, np.int32), yx.shape)}

    def given(self, visual: Visual | Sequence[Visual], name: str) -> dict[str, Any]:
        parts = [visual] if isinstance(visual, Visual) else visual
        if any(isinstance(part, RegionFeatures) for part in parts):
            raise DataError(
                f"{name}: region features, but config.model.image_stem={self._model.image_stem!r} reads pixels"
            )
        if isinstance(visual, Visual):
            picture = read_image(visual, _name(visual, name))  # type: ignore[arg-type]
            divide = getattr(source_module(self._data.name), "pictures", None) if self._model.num_images > 1 else None
            return {"images": tuple(divide(picture, _name(visual, name))) if divide else (picture,)}
        images = (read_image(part, _name(part, f"{name}, picture {n}")) for n, part in enumerate(parts))  # type: ignore[arg-type]
        return {"images": tuple(images)}

    def _grid(self, image: np.ndarray) -> tuple[int, int]:
        height, width = image.shape[:2]
        if self._data.shorter_side:
            return side_grid(height, width, self._model.patch_size, self._data.shorter_side)
        return patch_grid(height, width, self._model.patch_size, self._data.max_patches)


class RegionTokens:
    """Regions in their file's order, the first `data.max_patches` of each picture."""

    def __init__(self, data: DataConfig, model: ModelConfig):
        self._data, self._model = data, model
        if data.shorter_side:
            raise ConfigError(
                f"config.data.shorter_side={data.shorter_side}: config.model.image_stem='regions' reads no pixels"
            )
        named = [*data.augment, *(name for corpus in data.corpora.values() for name in corpus.augment)]
        if pixels := [name for name in named if name in AUGMENT]:
            raise ConfigError(
                f"config.data.augment has {pixels[0]!r}: config.model.image_stem='regions' reads no pixels to change"
            )

    def empty(self, size: int) -> Fields:
        return {
            "features": np.zeros((size, self._model.region_dim), np.float32),
            "boxes": np.zeros((size, 4), np.float32),
        }

    def count(self, record: Record) -> int:
        extra = int(self._data.mean_region)
        return sum(min(len(each.features) + extra, self._data.max_patches) for each in record.regions)

    def read(self, record: Record) -> Iterator[Fields]:
        for each in _all(record, record.regions, "sets of region features", self._model):
            size = each.features.shape[1]
            if size != self._model.region_dim:
                raise DataError(
                    f"record {record.id}: regions of {size} numbers, config.model.region_dim is "
                    f"{self._model.region_dim}"
                )
            if each.boxes is None and self._model.image_positions not in NO_BOXES:
                raise DataError(
                    f"record {record.id}: regions without boxes (or without their picture's size); "
                    f"config.model.image_positions={self._model.image_positions!r} reads them"
                )
            yield self._fields(each)

    def given(self, visual: Visual | Sequence[Visual], name: str) -> dict[str, Any]:
        parts = [visual] if isinstance(visual, Visual) else visual
        return {"images": (), "regions": tuple(_regions(part, name) for part in parts)}

    def _fields(self, each: RegionFeatures) -> Fields:
        whole = np.array([[0, 0, 1, 1]], np.float32)
        features = each.features
        boxes = np.repeat(whole, len(features), axis=0) if each.boxes is None else each.boxes
        if self._data.mean_region:
            features = np.concatenate([features.mean(axis=0, keepdims=True), features])
            boxes = np.concatenate([whole, boxes])
        most = self._data.max_patches
        return {"features": features[:most], "boxes": boxes[:most]}


def _all(record: Record, parts: Sequence[Any], what: str, model: ModelConfig) -> Sequence[Any]:
    if not record.images and not record.regions:
        return ()  # a text alone
    if not 0 < len(parts) <= model.num_images:
        raise DataError(
            f"record {record.id} has {len(parts)} {what}, config.model.num_images is {model.num_images} "
            f"(config.model.image_stem={model.image_stem!r})"
        )
    return parts


def _regions(part: Any, name: str) -> RegionFeatures:
    if isinstance(part, RegionFeatures):
        return part
    if isinstance(part, (str, os.PathLike)):
        if os.path.splitext(part)[1] not in (".npz", ".npy"):
            raise DataError(
                f"{os.fspath(part)}: config.model.image_stem='regions' reads region features, a file .npz or .npy"
            )
        return read_regions(part)
    if isinstance(part, np.ndarray) and part.ndim == 2 and part.dtype.kind == "f":
        return RegionFeatures(features=part.astype(np.float32, copy=False))
    raise DataError(
        f"{name}: config.model.image_stem='regions' reads RegionFeatures, an array [N, F] of floats, or a file .npz "
        "or .npy"
    )


def _name(image: Any, name: str) -> str:
    """What errors call an image: a path by itself, one in memory by its place."""
    return str(image) if isinstance(image, (str, os.PathLike)) else name
