"""Captions of Scenes told anew while training: other words, another order, as true as those that lie in the data."""

from __future__ import annotations

import dataclasses
import random

import numpy as np

from singlestream.data.record import Mention, Record, Sentence
from singlestream.data.sources.scenes_captions import caption, complete
from singlestream.data.sources.scenes_language import Said
from singlestream.data.sources.scenes_world import CANVAS, Scene, Thing

COMPLETE = "complete"
SURE = 4 / 3  # how much clearer than true a direction has to be before `left_to_right` tells it


def retell(record: Record, rng: np.random.Generator) -> Record:
    """Each caption becomes another one of its kind (complete or short); questions stay what they are."""
    draw = random.Random(int(rng.integers(2**63)))
    scene = _scene(record)

    def told(text: Sentence) -> Sentence:
        if text.answer != "":
            return text
        found = caption(scene, draw)
        said = found[0] if text.kind == COMPLETE else draw.choice(found[1:] or found)
        return _sentence(text.id, said, record.boxes)

    return dataclasses.replace(record, texts=tuple(told(text) for text in record.texts))


def left_to_right(record: Record, rng: np.random.Generator) -> Record:
    """Each complete caption tells its things from left to right: which comes next can be seen, and is not drawn.

    It tells of a direction only where it is clearer than it has to be, so that who learns from it, and sees a little
    less well than the data does, stays with what is true.
    """
    scene = _scene(record)
    order = sorted(range(len(scene)), key=lambda i: scene[i].x + scene[i].diameter / 2)

    def told(text: Sentence) -> Sentence:
        if text.answer != "" or text.kind != COMPLETE:
            return text
        return _sentence(text.id, complete(scene, order, SURE), record.boxes)

    return dataclasses.replace(record, texts=tuple(told(text) for text in record.texts))


def _scene(record: Record) -> Scene:
    places = np.rint(record.boxes * CANVAS).astype(int)
    return tuple(
        Thing(colour, shape, size, x0, y0, x1 - x0)
        for (colour, shape, size), (x0, y0, x1, _) in zip(record.classes.tolist(), places.tolist(), strict=True)
    )


def _sentence(name: str, said: Said, boxes: np.ndarray) -> Sentence:
    mentions = tuple(
        Mention(start=start, end=end, boxes=boxes[[k for k in range(len(boxes)) if things >> k & 1]])
        for start, end, things in said.mentions
    )
    return Sentence(id=name, text=said.text, kind=said.kind, mentions=mentions)
