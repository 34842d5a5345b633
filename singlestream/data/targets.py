"""What a record knows: the object under each patch, the boxes that a word speaks of, what each annotator answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int32

from singlestream.config import DataConfig
from singlestream.data.official_vqa import points
from singlestream.data.record import DataError, Record, Sentence

MAX_BOXES = 5  # boxes that the target "word_boxes" holds for one token; a word that names more keeps the first
MAX_ANSWERS = 10  # different answers to one question that get points: VQA asks ten annotators
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
    here = record.index == number
    boxes = record.boxes[here]
    shown = objects_of_patches(boxes, grid)
    named = (shown >= 0)[:, None]
    if not len(boxes):
        return np.zeros((len(shown), num_attributes), np.int32), np.full((len(shown), 2), -1, np.float32)
    classes = np.where(named, record.classes[here][shown] + 1, 0)
    classes = np.where((classes == 0) & named, -1, classes).astype(np.int32)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    return classes, np.where(named, centres[shown], -1).astype(np.float32)


def objects_of_patches(boxes: Float[np.ndarray, "M 4"], grid: tuple[int, int]) -> Int32[np.ndarray, " N"]:
    """Of each patch of a picture the box that covers most of it, if it covers enough (`MIN_COVER`), else -1."""
    rows, cols = grid
    size = rows * cols
    if not len(boxes):
        return np.full(size, -1, np.int32)
    x0, y0, x1, y1 = boxes.T[..., None]
    left, top = np.arange(cols) / cols, np.arange(rows) / rows
    wide = np.minimum(x1, left + 1 / cols) - np.maximum(x0, left)  # [M, cols], negative where apart
    high = np.minimum(y1, top + 1 / rows) - np.maximum(y0, top)
    cover = (high.clip(0)[:, :, None] * wide.clip(0)[:, None, :]).reshape(len(boxes), size)
    whole = np.minimum((x1 - x0) * (y1 - y0), 1 / size)
    best = cover.argmax(0)
    # An area of 0 passes no threshold, also where the box itself has none.
    named = ((cover > 0) & (cover >= MIN_COVER * whole))[best, np.arange(size)]
    return np.where(named, best, -1).astype(np.int32)


def detected_classes(record: Record, number: int, data: DataConfig, num_attributes: int) -> Int32[np.ndarray, "N A"]:
    """What a detector says of the regions of picture `number` that are read: class + 1, -1 where it says nothing.

    That is how `region_targets` counts, whose 0 is the background.

    Raises:
        DataError: the detector's classes have another number of attributes than the source.
    """
    found = record.regions[number]
    classes = np.full((len(found.features), num_attributes), -1, np.int32)
    if found.classes is not None:
        if found.classes.shape[1] != num_attributes:
            raise DataError(
                f"record {record.id}: regions with classes of {found.classes.shape[1]} attributes, the source has "
                f"{num_attributes}"
            )
        classes = np.where(found.classes >= 0, found.classes + 1, -1).astype(np.int32)
    mean = np.full((int(data.mean_region), num_attributes), -1, np.int32)
    return np.concatenate([mean, classes])[: data.max_patches]


def detected_distribution(record: Record, number: int, data: DataConfig, num_classes: int) -> Float[np.ndarray, "N C"]:
    """A detector's probabilities of the background and of each class for the regions of picture `number` that are read.

    All 0 where it says nothing: a mean of regions, a picture without probabilities.

    Raises:
        DataError: probabilities of another number of classes than the source.
    """
    found = record.regions[number]
    size = 1 + num_classes
    shares = np.zeros((len(found.features), size), np.float32) if found.distribution is None else found.distribution
    if shares.shape[1] != size:
        raise DataError(
            f"record {record.id}: regions with probabilities of {shares.shape[1]} classes, the source's first picture "
            f"has {size}"
        )
    mean = np.zeros((int(data.mean_region), size), np.float32)
    return np.concatenate([mean, shares])[: data.max_patches]


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


def labels_of(answer: str | None, separator: str) -> tuple[str, ...]:
    """The labels in a text's answer: what `separator` separates, without spaces around; "": the answer itself."""
    if not answer or not separator:
        return (answer,) if answer else ()
    return tuple(dict.fromkeys(part.strip() for part in answer.split(separator) if part.strip()))


def label_points(
    answer_ids: Mapping[str, int], labels: Sequence[str], text: Sentence
) -> tuple[Int32[np.ndarray, " 10"], Float[np.ndarray, " 10"]]:
    """The labels in the form of `answer_points`: 1 for each that is known.

    Raises:
        DataError: more labels than there is room for.
    """
    known = [answer_ids[label] for label in labels if label in answer_ids]
    if len(known) > MAX_ANSWERS:
        raise DataError(f"text {text.id} has {len(known)} labels, more than {MAX_ANSWERS}: {text.answer!r}")
    ids = np.full(MAX_ANSWERS, -1, np.int32)
    ids[: len(known)] = known
    return ids, (ids >= 0).astype(np.float32)


def answer_points(
    answer_ids: Mapping[str, int], answers: Sequence[str]
) -> tuple[Int32[np.ndarray, " 10"], Float[np.ndarray, " 10"]]:
    """Which of the known answers get points where annotators said `answers`, and how many: the VQA accuracy of each.

    Teney et al. 2018 (section 3.1) and ViLT (section 4.3) take min(1, n / 3) of the n who said it; this is the official
    average over annotators left out (`official_vqa.accuracy`), of ten 0.3, 0.6, 0.9 and 1, so that it is what the
    evaluation counts.

    Returns:
        ids int32 [10], the answers with most points first and -1 where there is none left, and points float32 [10].
    """
    ids, found = np.full(MAX_ANSWERS, -1, np.int32), np.zeros(MAX_ANSWERS, np.float32)
    known = [(answer_ids[said], score) for said, score in points(answers).items() if said in answer_ids]
    for i, (number, score) in enumerate(known[:MAX_ANSWERS]):
        ids[i], found[i] = number, score
    return ids, found
