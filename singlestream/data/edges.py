"""Edges between the tokens of an example: of objects in a relation, of words in an arc.

Functions here count the tokens of a text, and those of its pictures, from 0; `Processor` gives them their places in a
row (`singlestream.model.attention.edges` says what a row holds). Where nothing is known, everything is joined.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, Int32

from singlestream.batch import ALL
from singlestream.data.record import DataError, Record, Sentence, Span
from singlestream.data.targets import objects_of_patches

Edges = Int32[np.ndarray, "E 2"]
MIN_OVERLAP = 0.5  # of a region with an object (intersection over union) from which on it shows that object


@dataclasses.dataclass(frozen=True, kw_only=True)
class Places:
    """Where image tokens lie: the `index` of their picture, and its `grid` of patches or, of regions, their `boxes`."""

    index: Int32[np.ndarray, " N"]
    grid: Int32[np.ndarray, "N 2"] | None = None
    boxes: Float[np.ndarray, "N 4"] | None = None

    def objects(self, record: Record) -> Int32[np.ndarray, " N"]:
        """The number of the record's box that each token shows, -1: none."""
        shown = np.full(len(self.index), -1, np.int32)
        for number in np.unique(self.index):
            known, here = np.flatnonzero(record.index == number), self.index == number
            if len(known):
                found = self._of_one(record.boxes[known], here)
                shown[here] = np.where(found >= 0, known[found], -1)
        return shown

    def _of_one(self, objects: Float[np.ndarray, "M 4"], here: Bool[np.ndarray, " N"]) -> Int32[np.ndarray, " n"]:
        if self.boxes is not None:
            return objects_of_regions(objects, self.boxes[here])
        rows, cols = self.grid[here][0].tolist()  # type: ignore[index]
        return objects_of_patches(objects, (rows, cols))


def objects_of_regions(objects: Float[np.ndarray, "M 4"], boxes: Float[np.ndarray, "N 4"]) -> Int32[np.ndarray, " N"]:
    """Of each region the object that it agrees with best, if it agrees enough (`MIN_OVERLAP`), else -1."""
    found = iou(objects, boxes)
    return np.where(found.max(0) >= MIN_OVERLAP, found.argmax(0), -1).astype(np.int32)


def iou(one: Float[np.ndarray, "M 4"], other: Float[np.ndarray, "N 4"]) -> Float[np.ndarray, "M N"]:
    """`model.boxes.iou` of each pair in numpy: data knows no jax."""

    def area(corners: np.ndarray) -> np.ndarray:
        return (corners[..., 2:] - corners[..., :2]).clip(0).prod(-1)

    low = np.maximum(one[:, None, :2], other[:, :2])
    high = np.minimum(one[:, None, 2:], other[:, 2:])
    common = area(np.concatenate([low, high], axis=-1))
    return common / np.maximum(area(one)[:, None] + area(other) - common, np.finfo(np.float32).tiny)


def relation_edges(shown: Int32[np.ndarray, " N"], relations: Int[np.ndarray, "R 2"] | None) -> Edges:
    """Edges between image tokens, of which token i shows object `shown[i]` (-1: none).

    Tokens of one object are joined with each other, and with those of the objects that it has a relation with.
    """
    if relations is None:
        return join_all(np.arange(len(shown)))
    related = np.eye(1 + max(shown.max(initial=0), relations.max(initial=0)), dtype=bool)
    for one, other in relations:
        related[one, other] = related[other, one] = True
    there = shown >= 0
    return _pairs(there[:, None] & there & related[shown[:, None], shown])


def arc_edges(spans: Sequence[Span], sentence: Sentence) -> Edges:
    """Edges between the tokens of a text, of which token i stands for the characters `spans[i]`.

    The pieces of a word are joined with each other, and with those of the words that it has an arc with; special tokens
    ((0, 0)) with all: an example's vector is read there.

    Raises:
        DataError: an arc of characters that the text does not have.
    """
    if sentence.arcs is None:
        return join_all(np.arange(len(spans)))
    joined = np.zeros((len(spans), len(spans)), bool)
    for words in sentence.arcs:
        if not all(0 <= first < last <= len(sentence.text) for first, last in words):
            raise DataError(
                f"text {sentence.id}: the arc {words} is not of two words, each by its first character and the one "
                f"after its last, of the text's {len(sentence.text)} characters"
            )
        of_both = np.array([any(start < last and end > first for first, last in words) for start, end in spans])
        joined |= of_both[:, None] & of_both
    special = np.flatnonzero([start == end for start, end in spans])
    return np.concatenate([join_all(special), _pairs(joined)])


def join_all(tokens: Int[np.ndarray, " N"]) -> Edges:
    """What joins each of these tokens with every one of its modality."""
    return np.stack([tokens, np.full_like(tokens, ALL)], axis=1).astype(np.int32)


def moved(edges: Edges, first: int) -> Edges:
    """The same edges between tokens that count from `first`."""
    return np.where(edges >= 0, edges + first, edges).astype(np.int32)


def _pairs(joined: Bool[np.ndarray, "N N"]) -> Edges:
    return np.argwhere(np.triu(joined, 1)).astype(np.int32)
