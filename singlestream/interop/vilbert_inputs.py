"""What ViLBERT's authors do to regions and texts first: a region for the whole picture, a token for a task."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Int

from singlestream.batch import Array, Regions, Text, count_positions


def with_whole_picture(image: Regions) -> Regions:
    """Regions with one more before those of each picture: their mean feature, and the box of the whole picture.

    ViLBERT pools this region. (`vilbert/datasets/_image_features_reader.py` of vilbert-multi-task; in its pre-training
    the mean leaves masked regions out.) A picture is what has one segment and one index; padding stays padding.

    Args:
        image: regions [B, N]; `segments` default to 1, `index` to 0.

    Returns:
        Regions [B, N + M], M the most pictures that a row has.
    """
    features = np.asarray(image.features)
    rows, regions = features.shape[:2]
    segments, index = _ints(image.segments, (rows, regions), 1), _ints(image.index, (rows, regions), 0)
    boxes = np.zeros((rows, regions, 4), np.float32) if image.boxes is None else np.asarray(image.boxes)
    same = (segments[:, :, None] == segments[:, None]) & (index[:, :, None] == index[:, None])
    first = (segments > 0) & ~(same & np.tri(regions, k=-1, dtype=bool)).any(-1)
    take, new = _grow(first, before=True)
    mean = np.einsum("bij,bjf->bif", same / same.sum(-1, keepdims=True), features).astype(features.dtype)
    whole = np.array([0, 0, 1, 1], boxes.dtype)
    return Regions(
        features=np.where(new[..., None], take(mean), take(features)),
        boxes=np.where(new[..., None], whole, take(boxes)),
        index=take(index),
        segments=take(segments),
        part=take(_ints(image.part, (rows, regions), 0)),
    )


def with_task(text: Text, task: int, *, vocab_size: int) -> Text:
    """Texts with a task's token after the first token of each, for a model with `config.model.num_tasks`.

    (`task_specific_tokens` of vilbert-multi-task; its numbers of tasks are those of `vilbert_tasks.yml`, 1 for VQA.)
    The token's id is `vocab_size + task`; the words after it keep their positions.

    Args:
        text: texts [B, T]; `segments` default to 1, `positions` are counted, `types` are 0.

    Returns:
        Text [B, T + M], M the most texts that a row has.
    """
    ids = np.asarray(text.ids)
    segments, part = _ints(text.segments, ids.shape, 1), _ints(text.part, ids.shape, 0)
    positions = count_positions(segments, part) if text.positions is None else np.asarray(text.positions)
    take, new = _grow((segments > 0) & (positions == 0), before=False)
    return Text(
        ids=np.where(new, vocab_size + task, take(ids)).astype(np.int32),
        # The model reads no position of it; 0 would make it a text's first token.
        positions=np.where(new, 1, take(positions)).astype(np.int32),
        types=take(_ints(text.types, ids.shape, 0)),
        segments=take(segments),
        part=take(part),
    )


def _ints(value: Array | None, shape: tuple[int, ...], default: int) -> Int[np.ndarray, "B N"]:
    return np.full(shape, default, np.int32) if value is None else np.asarray(value)


def _grow(
    where: Bool[np.ndarray, "B N"], *, before: bool
) -> tuple[Callable[[np.ndarray], np.ndarray], Bool[np.ndarray, "B M"]]:
    """Room for one more token beside each True.

    Returns:
        A function that lays an array [B, N, ...] out anew (a new token holds its neighbour's numbers, what is over at
        a row's end zeros), and where the new tokens are.
    """
    rows, length = where.shape
    width = length + int(where.sum(1).max(initial=0))
    source = np.zeros((rows, width), int)
    new, filled = np.zeros((rows, width), bool), np.zeros((rows, width), bool)
    for row, marked in enumerate(where):
        old = np.repeat(np.arange(length), 1 + marked)
        twice = np.flatnonzero(np.diff(old) == 0)
        source[row, : len(old)], filled[row, : len(old)] = old, True
        new[row, twice if before else twice + 1] = True

    def take(values: np.ndarray) -> np.ndarray:
        taken = values[np.arange(rows)[:, None], source]
        return np.where(filled.reshape(*filled.shape, *(1,) * (values.ndim - 2)), taken, 0).astype(values.dtype)

    return take, new
