"""Questions about a scene, with their answers.

`Balance` chooses them so that no answer to a kind, nor to a text, comes up more often than another: what is asked must
not give away the answer. All of it is checked by an independent reader of the sentences in the tests.
"""

from __future__ import annotations

import collections
import random
from collections.abc import Callable, Hashable, Iterable
from typing import NamedTuple, TypeVar

from singlestream.data.sources.scenes_language import (
    NAMES,
    PLURALS,
    RELATIONS,
    Part,
    Said,
    article,
    bits,
    groups,
    named_pairs,
    say,
)
from singlestream.data.sources.scenes_world import (
    ALLOWED,
    COLOURS,
    HELD_OUT,
    SHAPES,
    SIZES,
    Scene,
    Thing,
    direction,
    sides,
)

COUNTED = ("things", *(f"{word} things" for word in (*SIZES, *COLOURS)), *PLURALS)
OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}
QUESTIONS_PER_KIND = 2
NEAR_NEGATIVES = 0.95  # share of the "no"s of "is there" that name a colour and a shape that are both to be seen

T = TypeVar("T")


class Candidate(NamedTuple):
    """A question that could be asked, and the parts that `say` puts together; `key` stands for its text."""

    key: Hashable
    answer: str
    parts: tuple[Part, ...]


class Balance:
    """Chooses questions so that answers stay level, in each kind and in each text of it."""

    def __init__(self, rng: random.Random):
        self._rng = rng
        self._used: collections.Counter = collections.Counter()

    def choose(self, kind: str, candidates: list[Candidate], count: int) -> list[Said]:
        """Up to `count` different questions: of the rarest answer so far, and of those the rarest text."""
        chosen: list[Said] = []
        while candidates and len(chosen) < count:
            answer = self._rarest(list(dict.fromkeys(c.answer for c in candidates)), lambda a: (kind, a))
            best = self._rarest([c for c in candidates if c.answer == answer], lambda c: (kind, c.key, c.answer))
            self._used[kind, best.answer] += 1
            self._used[kind, best.key, best.answer] += 1
            chosen.append(say(kind, best.answer, *best.parts))
            candidates = [c for c in candidates if c.key != best.key]
        return chosen

    def _rarest(self, items: list[T], key: Callable[[T], Hashable]) -> T:
        """One of those that were used least, by chance."""
        used = [self._used[key(item)] for item in items]
        least = min(used)
        return self._rng.choice([item for item, n in zip(items, used, strict=True) if n == least])


def ask(scene: Scene, balance: Balance, rng: random.Random) -> list[Said]:
    """The questions of one scene, about two of each kind; about held-out pairs where the scene shows one."""
    heldout = bits(scene, lambda t: t.pair in HELD_OUT)
    questions = balance.choose("colour", _colours(scene, heldout), QUESTIONS_PER_KIND)
    questions += balance.choose("shape", _shapes(scene, heldout), QUESTIONS_PER_KIND)
    for candidates in _heldout_exists(scene) if heldout else _exists(scene, rng):
        questions += balance.choose("exist", candidates, 1)
    questions += balance.choose("where", _wheres(scene, heldout), QUESTIONS_PER_KIND)
    questions += balance.choose("spatial", _spatials(scene, heldout), QUESTIONS_PER_KIND)
    questions += balance.choose("count", _counts(scene, heldout), QUESTIONS_PER_KIND)
    return questions


def _concerns(heldout: int, things: int) -> bool:
    """A scene with held-out things is asked about those; any other about anything."""
    return not heldout or bool(heldout & things)


def _colours(scene: Scene, heldout: int) -> list[Candidate]:
    """ "what colour is the ring?"; "the small ring" where only the size makes it unique."""
    found = []
    for i, thing in enumerate(scene):
        size = _needed_size(thing, [t for t in scene if t.shape == thing.shape])
        if size is not None and _concerns(heldout, 1 << i):
            phrase = size + SHAPES[thing.shape]
            parts = ("what colour is the", (phrase, 1 << i), "?")
            found.append(Candidate(phrase, COLOURS[thing.colour], parts))
    return found


def _shapes(scene: Scene, heldout: int) -> list[Candidate]:
    """ "what shape is the red thing?"; "the small red thing" where only the size makes it unique."""
    found = []
    for i, thing in enumerate(scene):
        size = _needed_size(thing, [t for t in scene if t.colour == thing.colour])
        if size is not None and _concerns(heldout, 1 << i):
            phrase = f"{size}{COLOURS[thing.colour]} thing"
            parts = ("what shape is the", (phrase, 1 << i), "?")
            found.append(Candidate(phrase, SHAPES[thing.shape], parts))
    return found


def _needed_size(thing: Thing, alike: list[Thing]) -> str | None:
    """What must be said before a word that `alike` share, to mean `thing`: "", its size, or None: it cannot be."""
    if len(alike) == 1:
        return ""
    return f"{SIZES[thing.size]} " if sum(t.size == thing.size for t in alike) == 1 else None


def _exist(pair: tuple[int, int], things: int) -> Candidate:
    name = NAMES[pair]
    return Candidate(pair, "yes" if things else "no", (f"is there {article(name)}", (name, things), "?"))


def _present(scene: Scene) -> dict[tuple[int, int], int]:
    """The pairs that are there, each with its things."""
    present: dict[tuple[int, int], int] = {}
    for i, thing in enumerate(scene):
        present[thing.pair] = present.get(thing.pair, 0) | 1 << i
    return present


def _hard(absent: Iterable[tuple[int, int]], scene: Scene) -> list[tuple[int, int]]:
    """Those absent pairs whose colour and whose shape are there, on different things: hard to deny."""
    colours, shapes = {t.colour for t in scene}, {t.shape for t in scene}
    return [(c, s) for c, s in absent if c in colours and s in shapes]


def _exists(scene: Scene, rng: random.Random) -> list[list[Candidate]]:
    """Candidates for a "yes" and for a "no" to "is there a red ring?", of allowed pairs.

    Each picture gets one of each, so that neither the text nor the picture alone tells the answer. The "no" is mostly
    a hard one; where all things share their colour or their shape, there is none, and half of it must do.
    """
    present = _present(scene)
    absent = [pair for pair in ALLOWED if pair not in present]
    near = _hard(absent, scene)
    if not near:
        colours, shapes = {t.colour for t in scene}, {t.shape for t in scene}
        near = [(c, s) for c, s in absent if c in colours or s in shapes]
    if near and rng.random() < NEAR_NEGATIVES:
        absent = near
    return [[_exist(pair, things) for pair, things in present.items()], [_exist(pair, 0) for pair in absent]]


def _heldout_exists(scene: Scene) -> list[list[Candidate]]:
    """Candidates for a "yes" and for a hard "no" about held-out pairs, or for neither: there are as many of each."""
    present = _present(scene)
    hard = _hard([pair for pair in sorted(HELD_OUT) if pair not in present], scene)
    if not hard:
        return []
    shown = [_exist(pair, things) for pair, things in present.items() if pair in HELD_OUT]
    return [shown, [_exist(pair, 0) for pair in hard]]


def _wheres(scene: Scene, heldout: int) -> list[Candidate]:
    """ "where is the red ring from the blue square?", where one direction dominates."""
    found = []
    for i, j in named_pairs(scene, heldout):
        a, b = scene[i].pair, scene[j].pair
        answer = direction(scene[i], scene[j])
        if answer is not None:
            parts = ("where is the", (NAMES[a], 1 << i), "from the", (NAMES[b], 1 << j), "?")
            found.append(Candidate((a, b), answer, parts))
    return found


def _spatials(scene: Scene, heldout: int) -> list[Candidate]:
    """ "is the red ring left of the blue square?", along an axis where they are clearly apart."""
    found = []
    for i, j in named_pairs(scene, heldout):
        a, b = scene[i].pair, scene[j].pair
        for side in sides(scene[i], scene[j]):
            for asked, answer in ((side, "yes"), (OPPOSITE[side], "no")):
                parts = ("is the", (NAMES[a], 1 << i), f"{RELATIONS[asked]} the", (NAMES[b], 1 << j), "?")
                found.append(Candidate((a, asked, b), answer, parts))
    return found


def _counts(scene: Scene, heldout: int) -> list[Candidate]:
    """ "how many red things are there?", "... rings ...", "... small things ...", "... things ..."."""
    counted = dict.fromkeys(COUNTED, 0)
    for i, thing in enumerate(scene):
        for phrase in groups(thing):
            counted[phrase] |= 1 << i
    return [
        Candidate(phrase, str(things.bit_count()), ("how many", (phrase, things), "are there?"))
        for phrase, things in counted.items()
        if not things or _concerns(heldout, things)
    ]
