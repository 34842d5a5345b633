"""Reads sentences about Scenes, knowing nothing of how they are made: what is true, and what each word names.

`read(seen(record, classes), text)` gives the answer to a question, or "true" for a caption, and for each word that
names something the numbers of the things it names. Whatever is ambiguous, false or no sentence of that language raises
`Untrue`.
"""

from __future__ import annotations

import collections
import itertools
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
ONE = ("thing", *dict.fromkeys(shape for shape in NOUNS.values() if shape))  # nouns of one thing
NUMBERS = {"a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5}
# Two things lie clearly apart from an eighth of the picture on, and more in one direction than in another where that is
# one and a half times as far; less than a hundredth of a pixel is for the rounding of boxes.
CLEAR, DOMINANT = 1 / 8 - 1e-4, 1.5 - 1e-4
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
    if not text.endswith("?"):
        named = _hold(things, text, phrases, named)
    words = {
        (phrase.start() + word.start(), phrase.start() + word.end()): found
        for phrase, found in zip(phrases, named, strict=True)
        for word in re.finditer(r"\w+", phrase.group())
        if found
    }
    if not text.endswith("?"):
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
        place = _direction(first, second)
        if place is None:
            raise Untrue(f"{text!r} has no clear answer")
        return place
    hold(text.startswith("is the "), f"{text!r} is no question of Scenes")
    asked = DIRECTIONS[text[phrases[0].end() : phrases[1].start()].removesuffix(" the ").strip()]
    answers = {"yes": _lies(first, asked, second), "no": _lies(second, asked, first)}
    hold(any(answers.values()), f"{text!r} is hard to tell")
    return "yes" if answers["yes"] else "no"


def _hold(
    things: list[Seen], text: str, phrases: list[re.Match[str]], named: list[frozenset[int]]
) -> list[frozenset[int]]:
    """Holds a caption, and says what each phrase of it names.

    Phrases of the same words share the things that these words name, "two red rings" as well as "a red ring above a red
    ring", and tell of all of them: "a red ring" is not true where there are two. No thing is told of twice. They are
    shared out so that each relation holds, and from left to right where that leaves a choice. A relation holds where
    it is the clear direction, as "where is the red ring from the blue square?" asks for it.
    """
    numbers, relations, end = [], [], 0
    for k, phrase in enumerate(phrases):
        *between, number = text[end : phrase.start()].replace(",", " ").split() or [""]
        hold(number in NUMBERS, f"{number} {phrase.group()!r} in {text!r} says no number")
        hold((phrase["noun"] in ONE) == (NUMBERS[number] == 1), f"{number} {phrase.group()!r} in {text!r} do not agree")
        relation = " ".join(between)
        related = relation in DIRECTIONS and k > 0
        hold(related or relation in (("", "and") if k else ("", "there is")), f"{relation!r} in {text!r} joins nothing")
        numbers.append(NUMBERS[number])
        relations.append(DIRECTIONS[relation] if related else None)
        end = phrase.end()
    hold(bool(phrases) and end == len(text), f"{text!r} says nothing, or more than it names")
    alike = collections.defaultdict(list)
    for k, phrase in enumerate(phrases):
        alike[phrase["size"], phrase["colour"], NOUNS[phrase["noun"]]].append(k)
    for places in alike.values():
        told, there = sum(numbers[k] for k in places), len(named[places[0]])
        hold(told == there, f"{phrases[places[0]].group()!r} in {text!r} tells of {told}: there are {there}")
    across = sorted(range(len(things)), key=lambda i: round(things[i].box[0] + things[i].box[2], 6))
    found = [[i for i in across if i in named[places[0]]] for places in alike.values()]
    for orders in itertools.product(*map(itertools.permutations, found)):
        shares = [frozenset[int]()] * len(phrases)
        for places, order in zip(alike.values(), orders, strict=True):
            left = iter(order)
            for k in places:
                shares[k] = frozenset(itertools.islice(left, numbers[k]))
        if len(frozenset().union(*shares)) == sum(numbers) and all(
            relation is None or all(_direction(things[i], things[j]) == relation for i in first for j in second)
            for relation, first, second in zip(relations[1:], shares, shares[1:], strict=False)
        ):
            return shares
    raise Untrue(f"{text!r} tells of a thing twice, or a relation in it does not hold")


def _offset(a: Seen, b: Seen) -> tuple[float, float]:
    """How far a's centre lies right of and below b's, as a share of the picture."""
    right, below = ((a.box[i] + a.box[i + 2] - b.box[i] - b.box[i + 2]) / 2 for i in (0, 1))
    return right, below


def _lies(a: Seen, direction: str, b: Seen) -> bool:
    """Whether `a` lies clearly left of `b`, say; it may lie above it as well."""
    offset = _offset(a, b)[int(direction in ("above", "below"))]
    return (-offset if direction in ("left", "above") else offset) >= CLEAR


def _direction(a: Seen, b: Seen) -> str | None:
    """Where `a` lies from `b`, more than in any other direction; None where that is not clear."""
    dx, dy = _offset(a, b)
    far, near = max(abs(dx), abs(dy)), min(abs(dx), abs(dy))
    if far < CLEAR or far < DOMINANT * near:
        return None
    if abs(dx) > abs(dy):
        return "right" if dx > 0 else "left"
    return "below" if dy > 0 else "above"
