"""Sentences about two scenes side by side, true or false, as NLVR2 has them.

What a sentence says follows from how many things of some words each picture shows. Each group of texts is one sentence
with `TIMES` pairs of pictures of which it is true and as many of which it is false: the words alone tell nothing.
"""

from __future__ import annotations

import itertools
import random
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from singlestream.data.sources.scenes_language import NAMES, PLURALS, Part, Said, article, bits, say
from singlestream.data.sources.scenes_world import COLOURS, HELD_OUT, SHAPES, SIZES, Scene, Thing

TEXTS = 8  # of a record, about
TIMES = 2
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
EXIST = {
    "left": "on the left",
    "right": "on the right",
    "both": "on the left and on the right",
    "only left": "only on the left",
    "only right": "only on the right",
}
COMPARE = ("left", "right", "as many")


class Words(NamedTuple):
    """What is counted: words of one thing and of several, and the attributes that they tell (-1: any)."""

    one: str
    several: str
    colour: int = -1
    shape: int = -1
    size: int = -1

    def told(self, thing: Thing) -> bool:
        wanted = (self.colour, self.shape, self.size)
        return all(w in (-1, has) for w, has in zip(wanted, thing[:3], strict=True))


class Form(NamedTuple):
    """A sentence: its kind, the number of its `Words`, and what it says of them."""

    kind: str
    words: int
    says: str


PAIRS = [Words(name, "", *pair) for pair, name in NAMES.items()]
COUNTED = [
    Words("thing", "things"),
    *(Words(f"{name} thing", f"{name} things", size=i) for i, name in enumerate(SIZES)),
    *(Words(f"{name} thing", f"{name} things", colour=i) for i, name in enumerate(COLOURS)),
    *(Words(name, PLURALS[i], shape=i) for i, name in enumerate(SHAPES)),
]
WORDS = [*PAIRS, *COUNTED]


def partner(i: int, count: int) -> int:
    """The scene that is shown to the right of scene i of so many."""
    return (i + 1) % count


def pairs(scenes: list[Scene], rng: random.Random) -> list[list[tuple[Said, str]]]:
    """The sentences about each scene with its partner, and the group of each."""
    right = [partner(i, len(scenes)) for i in range(len(scenes))]
    draw = np.random.default_rng(rng.getrandbits(64))
    counts, sayable = _count(scenes)
    truth = _truth(counts, counts[right], sayable | sayable[right])
    forms = {kind: [form for form in truth if form.kind == kind] for kind in ("exist", "compare", "total")}
    told: list[list[tuple[Said, str]]] = [[] for _ in scenes]
    load = np.zeros(len(scenes))
    for group, kind in zip(range(1, len(scenes) * TEXTS // (2 * TIMES) + 1), itertools.cycle(forms)):
        if not forms[kind]:
            continue
        form = rng.choice(forms[kind])
        free = [np.flatnonzero(some) for some in truth[form]]
        if min(map(len, free)) < TIMES:
            continue
        for answer, some, left in zip(("true", "false"), free, truth[form], strict=True):
            chosen = some[np.argsort(load[some] + draw.random(len(some)))[:TIMES]]  # where the fewest texts are
            left[chosen] = False  # not asked again
            load[chosen] += 1
            for i in chosen.tolist():
                told[i].append((_say(form, answer, scenes[i], scenes[right[i]]), f"{group}"))
    return told


def _count(scenes: list[Scene]) -> tuple[Int[np.ndarray, "R W"], Bool[np.ndarray, "R W"]]:
    """How many things of each scene each of the words tells, and whether the words may be said because of the scene.

    They may where such a thing is there; of a pair, also where its colour and its shape are, on different things. Where
    scenes show held-out pairs it must be a held-out thing or pair, elsewhere an allowed one.
    """
    most = max(map(len, scenes))
    things = np.array([[thing[:3] for thing in scene] + [(-1, -1, -1)] * (most - len(scene)) for scene in scenes])
    held = np.any([(things[..., :2] == pair).all(-1) for pair in HELD_OUT], axis=0)
    counts, sayable = [], []
    for words in WORDS:
        told = things[..., 0] >= 0
        for attribute, value in enumerate(words[2:]):
            told &= (things[..., attribute] == value) | (value < 0)
        counts.append(told.sum(-1))
        if words in PAIRS:
            near = (things[..., 0] == words.colour).any(-1) & (things[..., 1] == words.shape).any(-1)
            sayable.append(near & (((words.colour, words.shape) in HELD_OUT) == held.any()))
        else:
            sayable.append((told & (held | ~held.any())).any(-1))
    return np.stack(counts, -1), np.stack(sayable, -1)


def _truth(
    left: Int[np.ndarray, "R W"], right: Int[np.ndarray, "R W"], sayable: Bool[np.ndarray, "R W"]
) -> dict[Form, Bool[np.ndarray, "2 R"]]:
    """Of every sentence, of which pairs of pictures it is true, and of which it may be said and is false."""
    found: dict[Form, Bool[np.ndarray, " R"]] = {}
    for w in np.flatnonzero(sayable.any(0)).tolist():
        a, b = left[:, w], right[:, w]
        if w < len(PAIRS):
            true = (a > 0, b > 0, (a > 0) & (b > 0), (a > 0) & (b == 0), (a == 0) & (b > 0))
            found |= {Form("exist", w, says): value for says, value in zip(EXIST, true, strict=True)}
            continue
        found |= {Form("compare", w, says): x for says, x in zip(COMPARE, (a > b, a < b, a == b), strict=True)}
        found |= {Form("total", w, number): a + b == n for n, number in enumerate(NUMBERS) if n}
    sides = {form: np.stack([true, ~true]) & sayable[:, form.words] for form, true in found.items()}
    return {form: both for form, both in sides.items() if both.sum(-1).min() >= TIMES}


def _say(form: Form, answer: str, left: Scene, right: Scene) -> Said:
    """Puts a sentence together; words name what they count, in the picture that they are said of.

    They are mostly the words of the questions, so that what learned those may go on with these.
    """
    words = WORDS[form.words]
    here, there = bits(left, words.told), bits(right, words.told) << len(left)
    parts: tuple[Part, ...]
    if form.kind == "total":
        verb, name = ("is", words.one) if form.says == "one" else ("are", words.several)
        parts = (f"there {verb} {form.says}", (name, here | there), "in all")
    elif form.says == "as many":
        parts = ("there are as many", (words.several, here | there), "on the left as on the right")
    elif form.kind == "compare":
        other = "right" if form.says == "left" else "left"
        parts = ("there are more", (words.several, here | there), f"on the {form.says} than on the {other}")
    else:
        shown = {"left": here, "right": there}.get(form.says.removeprefix("only "), here | there)
        parts = (f"{EXIST[form.says]} there is {article(words.one)}", (words.one, shown))
    return say(form.kind, answer, *parts)
