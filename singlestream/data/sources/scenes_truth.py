"""Reads sentences about Scenes, knowing nothing of how they are made: what is true, and what each word names.

`read(seen(record, classes), text)` gives the answer to a question, or "true" for a caption, and for each word that
names something the numbers of the things it names. Whatever is ambiguous, false or no sentence of that language raises
`Untrue`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from singlestream.data.record import Record

COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "white")
NOUNS: dict[str, str | None] = {"things": None, "thing": None}
for _shape in ("circle", "square", "triangle", "cross", "ring", "diamond"):
    NOUNS[_shape] = NOUNS["crosses" if _shape == "cross" else _shape + "s"] = _shape
PHRASE = re.compile(
    rf"(?:\b(?P<size>small|large) )?(?:\b(?P<colour>{'|'.join(COLOURS)}) )?\b(?P<noun>{'|'.join(NOUNS)})\b"
)
NUMBERS = {"a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5}
DIRECTIONS = {"left of": "left", "right of": "right", "above": "above", "below": "below"}


class Untrue(ValueError):
    """A sentence that does not hold of its picture; the message says why."""


def hold(condition: bool, why: str) -> None:
    if not condition:
        raise Untrue(why)


class Seen(NamedTuple):
    """One thing in a picture; `box` as in `Record`."""

    colour: str
    shape: str
    size: str
    box: tuple[float, ...]


def seen(record: Record, classes: Mapping[str, Sequence[str]]) -> list[Seen]:
    """The things of a record by name."""
    names = [[classes[a][c] for a, c in zip(classes, row, strict=True)] for row in record.classes]
    boxes = record.boxes.tolist()
    return [Seen(colour, shape, size, tuple(box)) for (colour, shape, size), box in zip(names, boxes, strict=True)]


def read(things: list[Seen], text: str) -> tuple[str, dict[tuple[int, int], frozenset[int]]]:
    """The answer, or "true", and what each naming word names, by its characters; words that name nothing are left out.

    Raises:
        Untrue: "the ..." or "a ..." means no thing or several, or a caption is not true.
    """
    phrases = list(PHRASE.finditer(text))
    named = [_named(things, phrase) for phrase in phrases]
    words = {
        (phrase.start() + word.start(), phrase.start() + word.end()): found
        for phrase, found in zip(phrases, named, strict=True)
        for word in re.finditer(r"\w+", phrase.group())
        if found
    }
    if not text.endswith("?"):
        _hold(things, text, phrases, named)
        return "true", words
    for phrase, found in zip(phrases, named, strict=True):
        if text[: phrase.start()].endswith("the "):
            hold(len(found) == 1, f"{phrase.group()!r} in {text!r} means {len(found)} things")
    return _answer(things, text, phrases, named), words


def _named(things: list[Seen], phrase: re.Match[str]) -> frozenset[int]:
    size, colour, shape = phrase["size"], phrase["colour"], NOUNS[phrase["noun"]]
    return frozenset(
        i
        for i, thing in enumerate(things)
        if size in (None, thing.size) and colour in (None, thing.colour) and shape in (None, thing.shape)
    )


def _answer(things: list[Seen], text: str, phrases: list[re.Match[str]], named: list[frozenset[int]]) -> str:
    first = things[min(named[0])] if named[0] else None
    if text.startswith("is there a"):
        return "yes" if named[0] else "no"
    if text.startswith("how many "):
        return str(len(named[0]))
    if first is None:
        raise Untrue(f"{text!r} is about a thing that is not there")
    if text.startswith("what colour "):
        return first.colour
    if text.startswith("what shape "):
        return first.shape
    second = things[min(named[1])]
    if text.startswith("where is "):
        return _direction(first, second)
    hold(text.startswith("is the "), f"{text!r} is no question of Scenes")
    asked = DIRECTIONS[text[phrases[0].end() : phrases[1].start()].removesuffix(" the ").strip()]
    offset = _offset(first, second)[int(asked in ("above", "below"))]
    hold(abs(offset) > 0.1, f"{text!r} is hard to tell")
    return "yes" if (offset < 0) == (asked in ("left", "above")) else "no"


def _hold(things: list[Seen], text: str, phrases: list[re.Match[str]], named: list[frozenset[int]]) -> None:
    """Holds a caption: each phrase means as many things as it says, and each relation holds."""
    end = 0
    for k, (phrase, found) in enumerate(zip(phrases, named, strict=True)):
        *between, number = text[end : phrase.start()].replace(",", " ").split() or [""]
        hold(NUMBERS.get(number) == len(found), f"{number} {phrase.group()!r} in {text!r}: there are {len(found)}")
        relation = " ".join(between)
        if relation not in ("", "and", "there is"):
            hold(relation in DIRECTIONS and k > 0, f"{relation!r} in {text!r} relates nothing")
            place = _direction(things[min(named[k - 1])], things[min(found)])
            hold(place == DIRECTIONS[relation], f"{relation!r} in {text!r}: it is {place}")
        end = phrase.end()
    hold(bool(phrases) and end == len(text), f"{text!r} says nothing, or more than it names")


def _offset(a: Seen, b: Seen) -> tuple[float, float]:
    """How far a's centre lies right of and below b's, as a share of the picture."""
    right, below = ((a.box[i] + a.box[i + 2] - b.box[i] - b.box[i + 2]) / 2 for i in (0, 1))
    return right, below


def _direction(a: Seen, b: Seen) -> str:
    dx, dy = _offset(a, b)
    far, near = max(abs(dx), abs(dy)), min(abs(dx), abs(dy))
    hold(far > 1.4 * near and far > 0.1, "no clear direction")
    if abs(dx) > abs(dy):
        return "right" if dx > 0 else "left"
    return "below" if dy > 0 else "above"
