"""Hypotheses about a scene: does the picture entail them, contradict them, or leave them open?

"the ring is red" speaks of one ring, but does not say which. Where every ring of the picture is red, it is entailed;
where none is, contradicted; where some are, the picture leaves it open (neutral). So every form of text takes all three
labels, and which of them is right lies in the picture alone. Sentences that nothing could mean are not said.
"""

from __future__ import annotations

import collections
import random
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from singlestream.data.sources.scenes_language import NAMES, RELATIONS, Part, Said, article, bits, named_pairs
from singlestream.data.sources.scenes_questions import OPPOSITE, Balance, Candidate
from singlestream.data.sources.scenes_world import COLOURS, HELD_OUT, SHAPES, SIZES, Scene, Thing, sides

LABELS = ("entailment", "neutral", "contradiction")
PER_FORM = 2  # of a picture
AHEAD = 3  # so many more may a label have than another


class Subject(NamedTuple):
    """What a hypothesis speaks of: "ring" or "red thing", and the things (bits) that it may mean."""

    attribute: str  # "shape" or "colour"
    value: int
    things: int

    @property
    def words(self) -> str:
        return SHAPES[self.value] if self.attribute == "shape" else f"{COLOURS[self.value]} thing"


def entail(scenes: list[Scene], rng: random.Random) -> list[list[tuple[Said, str]]]:
    """The hypotheses of each scene, up to two of each form; labels level in each form."""
    level = _Level(rng)
    return [[(said, "") for said in _hypotheses(scene, level)] for scene in scenes]


class _Level:
    """`Balance`, and no label comes much more often than another, though pictures seldom leave some things open."""

    def __init__(self, rng: random.Random):
        self._balance = Balance(rng)
        self._used: collections.Counter[tuple[str, str]] = collections.Counter()

    def choose(self, form: str, candidates: list[Candidate]) -> list[Said]:
        most = min(self._used[form, label] for label in LABELS) + AHEAD
        open_ones = [each for each in candidates if self._used[form, each.answer] < most]
        chosen = self._balance.choose(form, open_ones, PER_FORM)
        self._used.update((form, said.answer) for said in chosen)
        return chosen


def _hypotheses(scene: Scene, level: _Level) -> Iterator[Said]:
    heldout = bits(scene, lambda t: t.pair in HELD_OUT)
    for attribute, other in (("shape", "colour"), ("colour", "shape")):
        subjects: dict[int, int] = {}
        for i, thing in enumerate(scene):
            subjects[getattr(thing, attribute)] = subjects.get(getattr(thing, attribute), 0) | 1 << i
        for kind, form in ((other, _pairs), ("size", _sizes), ("where", _wheres)):
            found = [
                candidate
                for value, things in subjects.items()
                for candidate in form(scene, Subject(attribute, value, things), heldout)
            ]
            # Words of a shape and of a colour are level each by itself: shapes, being fewer, are more often neutral.
            for said in level.choose(f"{kind} of a {attribute}", found):
                yield said._replace(kind=kind)


def _candidate(subject: Subject, holds: Iterable[bool], *rest: Part) -> Candidate:
    """ "the ring is ...", of which is known whether it `holds` of each ring."""
    true = list(holds)
    label = "entailment" if all(true) else "neutral" if any(true) else "contradiction"
    key = (subject.words, *(part if isinstance(part, str) else part[0] for part in rest))
    return Candidate(key, label, ("the", (subject.words, subject.things), "is", *rest))


def _meant(scene: Scene, subject: Subject) -> list[Thing]:
    return [thing for i, thing in enumerate(scene) if subject.things >> i & 1]


def _pairs(scene: Scene, subject: Subject, heldout: int) -> Iterator[Candidate]:
    """ "the ring is red", "the red thing is a ring"; the colour, or shape, is there, if only on another thing.

    Together they tell a pair of colour and shape: a held-out one where the scene shows such, else an allowed one.
    """
    of_shape = subject.attribute == "shape"
    for value in dict.fromkeys(thing.colour if of_shape else thing.shape for thing in scene):
        pair = (value, subject.value) if of_shape else (subject.value, value)
        if (pair in HELD_OUT) == bool(heldout):
            name = COLOURS[value] if of_shape else f"{article(SHAPES[value])} {SHAPES[value]}"
            yield _candidate(subject, (thing.pair == pair for thing in _meant(scene, subject)), name)


def _sizes(scene: Scene, subject: Subject, heldout: int) -> Iterator[Candidate]:
    """ "the ring is large"."""
    if not heldout or heldout & subject.things:
        for size, name in enumerate(SIZES):
            yield _candidate(subject, (thing.size == size for thing in _meant(scene, subject)), name)


def _wheres(scene: Scene, subject: Subject, heldout: int) -> Iterator[Candidate]:
    """ "the ring is left of the blue square", where each ring is clearly left or clearly right of it."""
    for j in dict.fromkeys(j for j, _ in named_pairs(scene, 0)):
        there = 1 << j
        if there & subject.things or (heldout and not heldout & (subject.things | there)):
            continue
        places = [sides(thing, scene[j]) for thing in _meant(scene, subject)]
        for side, opposite in OPPOSITE.items():
            if all(side in place or opposite in place for place in places):
                parts = (f"{RELATIONS[side]} the", (NAMES[scene[j].pair], there))
                yield _candidate(subject, (side in place for place in places), *parts)
