"""What is said about a scene: questions with their answers, and captions, every word tied to the things it names.

Questions are chosen by `Balance`, so that no answer to a kind, nor to a text, comes up more often than another: what
is asked must not give away the answer. All of it is checked by an independent reader of these sentences in the tests.
"""

from __future__ import annotations

import collections
import itertools
import random
from collections.abc import Callable, Hashable, Iterable
from typing import NamedTuple, TypeVar

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

PLURALS = ("circles", "squares", "triangles", "crosses", "rings", "diamonds")
NUMBERS = ("no", "one", "two", "three", "four", "five")  # in captions; answers are digits
RELATIONS = {"left": "left of", "right": "right of", "above": "above", "below": "below"}
OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}
NAMES = {(c, s): f"{COLOURS[c]} {SHAPES[s]}" for c in range(len(COLOURS)) for s in range(len(SHAPES))}
COUNTED = ("things", *(f"{word} things" for word in (*SIZES, *COLOURS)), *PLURALS)
QUESTION_KINDS = ("colour", "shape", "exist", "where", "spatial", "count")
CAPTION_KINDS = ("complete", "short")
QUESTIONS_PER_KIND = 2
HARD_NEGATIVES = 0.85  # of the "no"s of "is there": colour and shape are both in the picture, on different things


T = TypeVar("T")


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
        chosen = []
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


def bits(scene: Scene, told: Callable[[Thing], bool]) -> int:
    """The things that `told` is true of."""
    return sum(1 << i for i, thing in enumerate(scene) if told(thing))


def ask(scene: Scene, balance: Balance, rng: random.Random) -> list[Said]:
    """The questions of one scene, about two of each kind; about held-out pairs where the scene shows one."""
    heldout = bits(scene, lambda t: t.pair in HELD_OUT)
    questions = balance.choose("colour", _colours(scene, heldout), QUESTIONS_PER_KIND)
    questions += balance.choose("shape", _shapes(scene, heldout), QUESTIONS_PER_KIND)
    if heldout:
        for candidates in _heldout_exists(scene):
            questions += balance.choose("exist", candidates, 1)
    else:
        questions += balance.choose("exist", _exists(scene, rng), QUESTIONS_PER_KIND)
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
    return Candidate(pair, "yes" if things else "no", (f"is there {_article(name)}", (name, things), "?"))


def _hard(absent: Iterable[tuple[int, int]], scene: Scene) -> list[tuple[int, int]]:
    """Those absent pairs whose colour and whose shape are there, on different things."""
    colours, shapes = {t.colour for t in scene}, {t.shape for t in scene}
    return [(c, s) for c, s in absent if c in colours and s in shapes]


def _exists(scene: Scene, rng: random.Random) -> list[Candidate]:
    """ "is there a red ring?" of allowed pairs; a "no" mostly where there is red, and a ring, but no red ring."""
    present: dict[tuple[int, int], int] = {}
    for i, thing in enumerate(scene):
        present[thing.pair] = present.get(thing.pair, 0) | 1 << i
    absent = [pair for pair in ALLOWED if pair not in present]
    hard = _hard(absent, scene)
    if hard and rng.random() < HARD_NEGATIVES:
        absent = hard
    return [_exist(pair, present.get(pair, 0)) for pair in (*present, *absent)]


def _heldout_exists(scene: Scene) -> list[list[Candidate]]:
    """Candidates for a "yes" and for a hard "no" about held-out pairs, or for neither: there are as many of each."""
    present = {t.pair for t in scene}
    hard = _hard(sorted(HELD_OUT - present), scene)
    if not hard:
        return []
    shown = [_exist(pair, bits(scene, lambda t, p=pair: t.pair == p)) for pair in sorted(HELD_OUT & present)]
    return [shown, [_exist(pair, 0) for pair in hard]]


def _named_pairs(scene: Scene, heldout: int) -> list[tuple[int, int]]:
    """Ordered pairs of things that colour and shape name alone, one of them held out where the scene shows such."""
    pairs = [t.pair for t in scene]
    single = [i for i, pair in enumerate(pairs) if pairs.count(pair) == 1]
    return [(i, j) for i, j in itertools.permutations(single, 2) if _concerns(heldout, 1 << i | 1 << j)]


def _wheres(scene: Scene, heldout: int) -> list[Candidate]:
    """ "where is the red ring from the blue square?", where one direction dominates."""
    found = []
    for i, j in _named_pairs(scene, heldout):
        a, b = scene[i].pair, scene[j].pair
        answer = direction(scene[i], scene[j])
        if answer is not None:
            parts = ("where is the", (NAMES[a], 1 << i), "from the", (NAMES[b], 1 << j), "?")
            found.append(Candidate((a, b), answer, parts))
    return found


def _spatials(scene: Scene, heldout: int) -> list[Candidate]:
    """ "is the red ring left of the blue square?", along an axis where they are clearly apart."""
    found = []
    for i, j in _named_pairs(scene, heldout):
        a, b = scene[i].pair, scene[j].pair
        for side in sides(scene[i], scene[j]):
            for asked, answer in ((side, "yes"), (OPPOSITE[side], "no")):
                parts = ("is the", (NAMES[a], 1 << i), f"{RELATIONS[asked]} the", (NAMES[b], 1 << j), "?")
                found.append(Candidate((a, asked, b), answer, parts))
    return found


def _counts(scene: Scene, heldout: int) -> list[Candidate]:
    """ "how many red things are there?", "... rings ...", "... small things ...", "... things ..."."""
    groups = dict.fromkeys(COUNTED, 0)
    for i, thing in enumerate(scene):
        for phrase in _groups(thing):
            groups[phrase] |= 1 << i
    return [
        Candidate(phrase, str(things.bit_count()), ("how many", (phrase, things), "are there?"))
        for phrase, things in groups.items()
        if not things or _concerns(heldout, things)
    ]


def _groups(thing: Thing) -> tuple[str, ...]:
    """The plural words that count `thing`."""
    return "things", f"{SIZES[thing.size]} things", f"{COLOURS[thing.colour]} things", PLURALS[thing.shape]


def caption(scene: Scene, rng: random.Random) -> list[Said]:
    """A complete caption and two different short ones (one, where the scene allows no other)."""
    forms = rng.sample((_short_thing, _short_relation, _short_group), 3)
    short = [said for said in (form(scene, rng) for form in forms) if said is not None]
    return [_complete(scene, rng), *short[:2]]


def _article(phrase: str) -> str:
    return "an" if phrase[0] in "aeiou" else "a"


def _full(thing: Thing) -> str:
    return f"{SIZES[thing.size]} {NAMES[thing.pair]}"


def _complete(scene: Scene, rng: random.Random) -> Said:
    """Every thing with size, colour and shape, neighbours in the sentence related where a direction dominates.

    Things that are told by the same words are one group, "two small red rings", which words can name.
    """
    groups: dict[tuple[int, int, int], int] = {}
    for i, t in rng.sample(list(enumerate(scene)), len(scene)):
        groups[t[:3]] = groups.get(t[:3], 0) | 1 << i
    order = list(groups.values())
    parts: list[Part] = []
    related = True  # whether the group before is already tied to its own neighbour
    for k, things in enumerate(order):
        before = order[k - 1] if k else 0
        towards = None if related else _direction_of(scene, before, things)
        related = towards is not None
        if towards is not None:
            parts.append(RELATIONS[towards])
        elif k:
            parts.append("and" if k == len(order) - 1 else ",")
        parts += _group(scene, things)
    return say("complete", "", *parts)


def _direction_of(scene: Scene, first: int, second: int) -> str | None:
    if first.bit_count() > 1 or second.bit_count() > 1:
        return None
    return direction(scene[first.bit_length() - 1], scene[second.bit_length() - 1])


def _group(scene: Scene, things: int) -> list[Part]:
    thing = scene[things.bit_length() - 1]
    number = things.bit_count()
    if number == 1:
        return ["a", (_full(thing), things)]
    return [NUMBERS[number], (f"{SIZES[thing.size]} {COLOURS[thing.colour]} {PLURALS[thing.shape]}", things)]


def _short_thing(scene: Scene, rng: random.Random) -> Said | None:
    """ "there is a small red ring", where no other thing is told by these words."""
    single = [i for i, t in enumerate(scene) if sum(o[:3] == t[:3] for o in scene) == 1]
    if not single:
        return None
    i = rng.choice(single)
    return say("short", "", "there is a", (_full(scene[i]), 1 << i))


def _short_relation(scene: Scene, rng: random.Random) -> Said | None:
    """ "a red ring left of a blue square"."""
    related = [(i, j, towards) for i, j in _named_pairs(scene, 0) if (towards := direction(scene[i], scene[j]))]
    if not related:
        return None
    i, j, towards = rng.choice(related)
    a, b = NAMES[scene[i].pair], NAMES[scene[j].pair]
    return say("short", "", _article(a), (a, 1 << i), RELATIONS[towards], _article(b), (b, 1 << j))


def _short_group(scene: Scene, rng: random.Random) -> Said:
    """ "two red things", "three rings", "one small thing": exactly so many."""
    thing = rng.choice(scene)
    phrase = rng.choice(_groups(thing)[1:])
    things = bits(scene, lambda t: phrase in _groups(t))
    one = {"things": "thing", PLURALS[thing.shape]: SHAPES[thing.shape]}
    if things.bit_count() == 1:
        phrase = " ".join(one.get(word, word) for word in phrase.split())
    return say("short", "", NUMBERS[things.bit_count()], (phrase, things))
