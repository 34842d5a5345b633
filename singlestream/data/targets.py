"""What a record knows of its pictures, token by token: the object under a patch, the boxes that a word speaks of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int32

from singlestream.data.record import DataError, Record, Sentence

MAX_BOXES = 5  # boxes that the target "word_boxes" holds for one token; a word that names more keeps the first
MIN_COVER = 1 / 8  # of a patch (or of the object, if that is smaller) that an object has to cover to be named there


def region_targets(
    record: Record, number: int, grid: tuple[int, int], num_attributes: int
) -> tuple[Int32[np.ndarray, "N A"], Float[np.ndarray, "N 2"]] | None:
    """What lies under each patch of picture `number`: the object that covers most of it, if it covers enough.

    Returns:
        classes int32 [N, A] (0: background, else class + 1, -1: that attribute is not known) and the object's centre
        float32 [N, 2] as (x, y) in [0, 1] (-1: background); None where the record knows nothing of its objects.

    Raises:
        DataError: the record's classes have another number of attributes than the source.
    """
    if record.classes.shape[1] == 0:
        return None
    if record.classes.shape[1] != num_attributes:
        raise DataError(
            f"record {record.id}: classes of {record.classes.shape[1]} attributes, the source has {num_attributes}"
        )
    rows, cols = grid
    size = rows * cols
    here = record.index == number
    boxes = record.boxes[here]
    if not len(boxes):
        return np.zeros((size, num_attributes), np.int32), np.full((size, 2), -1, np.float32)
    x0, y0, x1, y1 = boxes.T[..., None]
    left, top = np.arange(cols) / cols, np.arange(rows) / rows
    wide = np.minimum(x1, left + 1 / cols) - np.maximum(x0, left)  # [M, cols], negative where apart
    high = np.minimum(y1, top + 1 / rows) - np.maximum(y0, top)
    cover = (high.clip(0)[:, :, None] * wide.clip(0)[:, None, :]).reshape(len(boxes), size)
    whole = np.minimum((x1 - x0) * (y1 - y0), 1 / size)
    best = cover.argmax(0)
    # An area of 0 passes no threshold, also where the box itself has none.
    named = (cover > 0)[best, np.arange(size)] & (cover >= MIN_COVER * whole)[best, np.arange(size)]
    classes = np.where(named[:, None], record.classes[here][best] + 1, 0)
    classes = np.where((classes == 0) & named[:, None], -1, classes).astype(np.int32)
    centres = np.stack([(x0 + x1)[:, 0], (y0 + y1)[:, 0]], axis=-1) / 2
    return classes, np.where(named[:, None], centres[best], -1).astype(np.float32)


def put_mentions(boxes: Float[np.ndarray, "T 5 4"], spans: Sequence[tuple[int, int]], sentence: Sentence) -> None:
    """Gives each token the boxes of the mention that its characters belong to."""
    for mention in sentence.mentions:
        if mention.index:
            continue  # the target has no place for a picture's number: it speaks of the first picture only
        kept = np.zeros((MAX_BOXES, 4), np.float32)
        kept[: len(mention.boxes)] = mention.boxes[:MAX_BOXES]
        for i, (start, end) in enumerate(spans):
            if start < mention.end and end > mention.start:
                boxes[i] = kept
