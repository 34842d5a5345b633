"""From the arrays of a detector's file, of whatever layout, to `RegionFeatures` that fit each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from singlestream.data.record import DataError, RegionFeatures

BEYOND = 0.01  # share of a side by which a detector's box may leave the picture; it is then cut to it


def region_features(
    where: str,
    *,
    features: np.ndarray,
    boxes: np.ndarray | None = None,
    size: tuple[int, int] | None = None,
    count: int | None = None,
    objects: np.ndarray | None = None,
    objects_scores: np.ndarray | None = None,
    attributes: np.ndarray | None = None,
    attributes_scores: np.ndarray | None = None,
    distribution: np.ndarray | None = None,
) -> RegionFeatures:
    """Checks arrays against each other and brings boxes into [0, 1].

    Args:
        where: what an error calls them: the file, and the line or picture in it.
        features: [N, F].
        boxes: [N, 4 or more]: (x0, y0, x1, y1, ...) in pixels, or in [0, 1] where none exceeds 1.
        size: height and width of the picture, by which boxes in pixels are divided; without it they are left out.
        count: regions that there are; what follows them is padding. None: all.
        distribution: [N, C], probabilities of all classes, the background first. Of `classes` there is then one: the
            most probable but the background (UNITER's masked region classification).

    Raises:
        DataError: numbers that are not finite, lengths that differ, boxes that leave the picture, no probabilities.
    """
    count = len(features) if count is None else count
    if not 0 < count <= len(features):
        raise DataError(f"{where}: {count} regions are announced, there are features of {len(features)}")
    sizes = (count, len(features))
    if distribution is not None:
        distribution = _probabilities(where, distribution, sizes)
        objects, objects_scores = distribution[:, 1:].argmax(1), distribution[:, 1:].max(1)
        attributes = None
    classes = [each for each in (objects, attributes) if each is not None] if objects is not None else []
    scores = [each for each in (objects_scores, attributes_scores)[: len(classes)] if each is not None]
    for each in (*classes, *scores):
        _check(where, "classes or scores", each, 1, sizes)
    if boxes is not None:
        _check(where, "boxes", boxes, 2, sizes)
    features = features[:count].astype(np.float32, copy=False)
    if not np.isfinite(features).all():
        raise DataError(f"{where}: features hold numbers that are not finite")
    return RegionFeatures(
        features=features,
        boxes=None if boxes is None else _scale(boxes, count, size, where),
        classes=_columns(classes, count, np.int32),
        scores=_columns(scores, count, np.float32) if len(scores) == len(classes) else None,
        distribution=distribution,
    )


def unit_boxes(boxes: Sequence[Sequence[Any]], width: int | float, height: int | float) -> Float[np.ndarray, "M 4"]:
    """Boxes (x0, y0, x1, y1) in pixels, as people drew them, in [0, 1]; what leaves the picture is cut.

    Raises:
        ValueError: no numbers, or a picture without a size.
    """
    if not (width > 0 and height > 0):
        raise ValueError(f"a picture of {width} x {height}")
    corners = np.array(boxes, np.float32).reshape(len(boxes), 4)
    return (corners / np.array([width, height, width, height], np.float32)).clip(0, 1)


def _check(where: str, name: str, array: np.ndarray, rank: int, sizes: tuple[int, int]) -> None:
    if array.ndim != rank or len(array) not in sizes or array.dtype.kind not in "fiu":
        raise DataError(f"{where}: {name} are {array.dtype}{list(array.shape)}, there are {sizes[0]} regions")


def _probabilities(where: str, array: np.ndarray, sizes: tuple[int, int]) -> Float[np.ndarray, "N C"]:
    _check(where, "class probabilities", array, 2, sizes)
    array = array[: sizes[0]].astype(np.float32)
    if array.shape[1] < 2 or not (np.isfinite(array).all() and (array >= 0).all() and array.any(axis=1).all()):
        raise DataError(f"{where}: class probabilities [N, C], the background first, are not all 0 and never below 0")
    return array


def _scale(boxes: np.ndarray, count: int, size: tuple[int, int] | None, where: str) -> np.ndarray | None:
    if boxes.shape[1] < 4:
        raise DataError(f"{where}: boxes are {boxes.dtype}{list(boxes.shape)}, expected [{count}, 4]")
    boxes = boxes[:count, :4].astype(np.float32)
    if not np.isfinite(boxes).all():
        raise DataError(f"{where}: boxes hold numbers that are not finite")
    if boxes.max() > 1 + BEYOND:
        if size is None:
            return None
        height, width = size
        boxes /= np.array([width, height, width, height], np.float32)
    if boxes.min() < -BEYOND or boxes.max() > 1 + BEYOND or (boxes[:, 2:] < boxes[:, :2]).any():
        place = f"a picture of {size[1]} x {size[0]}" if size else "the picture"
        raise DataError(f"{where}: a box leaves {place}, or its corners are not (left, top, right, bottom)")
    return boxes.clip(0, 1)


def _columns(columns: list[np.ndarray], count: int, dtype: type) -> np.ndarray | None:
    """Object and attribute side by side, [N, 1 or 2]; None where the detector named no objects."""
    return np.stack([column[:count].astype(dtype) for column in columns], axis=1) if columns else None
