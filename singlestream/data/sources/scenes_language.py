"""The words of Scenes, and texts whose every word is tied to the things it names."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple

from singlestream.data.sources.scenes_world import COLOURS, SHAPES, SIZES, Scene, Thing

PLURALS = ("circles", "squares", "triangles", "crosses", "rings", "diamonds")
RELATIONS = {"left": "left of", "right": "right of", "above": "above", "below": "below"}
NAMES = {(c, s): f"{COLOURS[c]} {SHAPES[s]}" for c in range(len(COLOURS)) for s in range(len(SHAPES))}


class Said(NamedTuple):
    """A text; `mentions` are (start, end, things): characters of a word and the things it names, a bit each."""

    kind: str
    text: str
    answer: str
    mentions: tuple[tuple[int, int, int], ...]


Part = str | tuple[str, int]  # words, and the things (bits) that each of them names


def say(kind: str, answer: str, *parts: Part) -> Said:
    """Puts a text together; "," and "?" join the word before them."""
    text, mentions = "", []
    for part in parts:
        words, things = part if isinstance(part, tuple) else (part, 0)
        for word in words.split():
            text += word if not text or word[0] in ",?" else " " + word
            if things:
                mentions.append((len(text) - len(word), len(text), things))
    return Said(kind, text, answer, tuple(mentions))


def article(phrase: str) -> str:
    return "an" if phrase[0] in "aeiou" else "a"


def groups(thing: Thing) -> tuple[str, ...]:
    """The plural words that count `thing`."""
    return "things", f"{SIZES[thing.size]} things", f"{COLOURS[thing.colour]} things", PLURALS[thing.shape]


def bits(scene: Scene, told: Callable[[Thing], bool]) -> int:
    """The things that `told` is true of."""
    return sum(1 << i for i, thing in enumerate(scene) if told(thing))


def named_pairs(scene: Scene, heldout: int) -> list[tuple[int, int]]:
    """Ordered pairs of things that colour and shape name alone, one of them held out where the scene shows such."""
    pairs = [t.pair for t in scene]
    single = [i for i, pair in enumerate(pairs) if pairs.count(pair) == 1]
    return [(i, j) for i, j in itertools.permutations(single, 2) if not heldout or heldout & (1 << i | 1 << j)]
