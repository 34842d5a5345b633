"""Scenes with texts of other tasks in place of its own: the same pictures, `config.data.options.task`.

    entail   hypotheses, "entailment", "neutral" or "contradiction"                              scenes_entail.py
    pairs    a sentence about this picture and the next one, "true" or "false"                   scenes_pairs.py
    labels   questions with any number of labels as their answer, "blue, red"                    scenes_labels.py
    label    questions with one label
    choose   records of one question: four answers to it, of which one is true                   scenes_choose.py

Nothing of it lies in the folder: texts are made from the scenes of `BLOCK` successive records, when one of these is
first asked for, so that labels can be kept level among them. What a record says depends on its block alone.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from singlestream.data.record import Mention, Record, Sentence
from singlestream.data.sources.scenes_choose import QUESTIONS, choose
from singlestream.data.sources.scenes_entail import entail
from singlestream.data.sources.scenes_labels import label, labels
from singlestream.data.sources.scenes_language import Said
from singlestream.data.sources.scenes_pairs import pairs, partner
from singlestream.data.sources.scenes_world import Scene

Told = tuple[Said, str]  # a text, and the group whose texts are right together or not at all; "": none
TASKS: dict[str, Callable[[list[Scene], random.Random], list[list[Told]]]] = {
    "entail": entail,
    "pairs": pairs,
    "labels": labels,
    "label": label,
    "choose": choose,
}
BLOCK = 500  # records whose labels are kept level together


@runtime_checkable
class Pictures(Protocol):
    """What is read of Scenes."""

    region_classes: dict[str, tuple[str, ...]]

    def __len__(self) -> int: ...

    def __getitem__(self, i: int) -> Record: ...

    def scene(self, i: int) -> Scene:
        """The things of record i, its picture left alone."""


class TaskSource:
    """One split by random access, with the texts of a task.

    Args:
        source: a split as it lies in the folder.
        task: one of `TASKS`.
        split: the split's name, and
        seed: of the data, both of which what is asked depends on.
    """

    def __init__(self, source: Pictures, task: str, split: str, seed: int):
        self.region_classes = source.region_classes
        self._source, self._task, self._split, self._seed = source, task, split, seed
        self._parts = QUESTIONS if task == "choose" else 1  # records of one picture
        self._blocks: dict[int, list[list[Told]]] = {}

    def __len__(self) -> int:
        return len(self._source) * self._parts

    def __getitem__(self, i: int) -> Record:
        shown = self._shown(i)
        record, *others = (self._source[k] for k in shown)
        for number, other in enumerate(others, start=1):
            record = _beside(record, other, number)
        return dataclasses.replace(record, id=self._name(i), texts=self._texts(i, shown))

    def texts(self, i: int) -> tuple[Sentence, ...]:
        """The texts of record i, its pictures left alone."""
        return self._texts(i, self._shown(i))

    def _name(self, i: int) -> str:
        number, part = divmod(i, self._parts)
        return f"{self._split}-{number}" + (f"-{part}" if self._parts > 1 else "")

    def _shown(self, i: int) -> tuple[int, ...]:
        """The pictures of record i: their numbers in the folder."""
        i //= self._parts
        if self._task != "pairs":
            return (i,)
        start, size = self._block(i)
        return i, start + partner(i - start, size)

    def _block(self, i: int) -> tuple[int, int]:
        """The first record of record i's block, and how many it has."""
        start = i - i % BLOCK
        return start, min(BLOCK, len(self._source) - start)

    def _texts(self, i: int, shown: Sequence[int]) -> tuple[Sentence, ...]:
        boxes = [np.array([thing.box for thing in self._source.scene(k)], np.float32) for k in shown]
        number, part = divmod(i, self._parts)
        told = self._told(number)
        share = len(told) // self._parts
        return tuple(
            Sentence(
                id=f"{self._split}-{number}-{k}",
                text=said.text,
                answer=said.answer,
                kind=said.kind,
                mentions=tuple(_mentions(said, boxes)),
                group=group,
            )
            for k, (said, group) in list(enumerate(told))[part * share : (part + 1) * share]
        )

    def _told(self, i: int) -> list[Told]:
        start, size = self._block(i)
        if start not in self._blocks:  # two threads may make it at once: they make the same
            rng = random.Random(f"{self._task} {self._seed} {self._split} {start}")
            scenes = [self._source.scene(k) for k in range(start, start + size)]
            told = TASKS[self._task](scenes, rng)
            self._blocks[start] = [
                [(said, f"{self._split}-{start}-{g}" if g else "") for said, g in one] for one in told
            ]
        return self._blocks[start][i - start]


def _mentions(said: Said, boxes: Sequence[np.ndarray]) -> list[Mention]:
    """Of several pictures, the things of the first have the lowest bits, and so on."""
    found = []
    for start, end, things in said.mentions:
        for index, here in enumerate(boxes):
            chosen = [k for k in range(len(here)) if things >> k & 1]
            things >>= len(here)
            if chosen:
                found.append(Mention(start=start, end=end, boxes=here[chosen], index=index))
    return found


def _beside(record: Record, other: Record, number: int) -> Record:
    """The record with another's picture as its picture of that number; it stays the one that `picture` identifies."""
    return dataclasses.replace(
        record,
        images=record.images + other.images,
        regions=record.regions + other.regions,
        boxes=np.concatenate([record.boxes, other.boxes]),
        classes=np.concatenate([record.classes, other.classes]),
        index=np.concatenate([record.index, np.full(len(other.boxes), number, np.int32)]),
        relations=np.concatenate([record.relations, other.relations + len(record.boxes)]),  # type: ignore[operator,list-item]
    )
