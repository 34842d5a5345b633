"""What is said about a scene: questions with their answers, and captions, every word tied to the things it names.

Questions are chosen by `Balance`, so that no answer to a kind, nor to a text, comes up more often than another: what
is asked must not give away the answer. All of it is checked by an independent reader of these sentences in the tests.
"""

from __future__ import annotations

import collections
import itertools
import random
from collections.abc import Callable, Iterable
from typing import NamedTuple

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
QUESTION_KINDS = ("colour", "shape", "exist", "where", "spatial", "count")
CAPTION_KINDS = ("complete", "short")
QUESTIONS_PER_KIND = 2
HARD_NEGATIVES = 0.85  # of the "no"s of "is there": colour and shape are both in the picture, on different things


class Said(NamedTuple):
    """A text; `mentions` are (start, end, things): characters of a word and the things it names, a bit each."""

    kind: str
    text: str
    answer: str
    mentions: tuple[tuple[int, int, int], ...]


Part = str | tuple[str, int]  # words, and the things (bits) that each of them names


def say(kind: str, answer: str, *parts: Part) -> Said:
    """Puts a text together; marks beginning a part (", ?") join the word before them."""
    text, mentions = "", []
    for part in parts:
        words, things = part if isinstance(part, tuple) else (part, 0)
        for word in words.split():
            text += word if not text or word[0] in ",?" else " " + word
            if things:
                mentions.append((len(text) - len(word), len(text), things))
    return Said(kind, text, answer, tuple(mentions))


class Candidate(NamedTuple):
    """A question that could be asked: `key` stands for its text, `build` makes it."""

    key: tuple
    answer: str
    build: Callable[[], Said]


class Balance:
    """Chooses questions so that answers stay level, in each kind and in each text of it."""

    def __init__(self, rng: random.Random):
        self._rng = rng
        self._used: collections.Counter = collections.Counter()

    def choose(self, kind: str, candidates: list[Candidate], count: int) -> list[Said]:
        """Up to `count` different questions: of the rarest answer so far, and of those the rarest text."""
        chosen = []
        for _ in range(count):
            if not candidates:
                break
            self._rng.shuffle(candidates)
            answer = min({c.answer: None for c in candidates}, key=lambda a: self._used[kind, a])
            best = min((c for c in candidates if c.answer == answer), key=lambda c: self._used[kind, c.key, answer])
            self.count(kind, best)
            chosen.append(best.build())
            candidates = [c for c in candidates if c.key != best.key]
        return chosen

    def count(self, kind: str, candidate: Candidate) -> None:
        self._used[kind, candidate.answer] += 1
        self._used[kind, candidate.key, candidate.answer] += 1


def bits(scene: Scene, told: Callable[[Thing], bool]) -> int:
    return sum(1 << i for i, thing in enumerate(scene) if told(thing))


def ask(scene: Scene, balance: Balance, rng: random.Random) -> list[Said]:
    """The questions of one scene, about two of each kind; about held-out pairs where the scene shows one."""
    heldout = bits(scene, lambda t: t.pair in HELD_OUT)
    kinds = {
        "colour": lambda: _colours(scene, heldout),
        "shape": lambda: _shapes(scene, heldout),
        "where": lambda: _wheres(scene, heldout),
        "spatial": lambda: _spatials(scene, heldout),
        "count": lambda: _counts(scene, heldout),
    }
    questions = []
    for kind in QUESTION_KINDS:
        if kind != "exist":
            questions += balance.choose(kind, kinds[kind](), QUESTIONS_PER_KIND)
        elif heldout:
            questions += _heldout_exists(scene, balance)
        else:
            questions += balance.choose("exist", _exists(scene, rng), QUESTIONS_PER_KIND)
    return questions


def _concerns(heldout: int, things: int) -> bool:
    """A scene with held-out things is asked about those; any other about anything."""
    return not heldout or bool(heldout & things)


def _colours(scene: Scene, heldout: int) -> list[Candidate]:
    """ "what colour is the ring?"; "the small ring" where only the size makes it unique."""
    found = []
    for i, thing in enumerate(scene):
        name = _unique(scene, thing, lambda t: t.shape)
        if name is None or not _concerns(heldout, 1 << i):
            continue
        phrase = f"{name}{SHAPES[thing.shape]}"
        found.append(_about("colour", "what colour is the", phrase, 1 << i, COLOURS[thing.colour]))
    return found


def _shapes(scene: Scene, heldout: int) -> list[Candidate]:
    """ "what shape is the red thing?"; "the small red thing" where only the size makes it unique."""
    found = []
    for i, thing in enumerate(scene):
        name = _unique(scene, thing, lambda t: t.colour)
        if name is None or not _concerns(heldout, 1 << i):
            continue
        phrase = f"{name}{COLOURS[thing.colour]} thing"
        found.append(_about("shape", "what shape is the", phrase, 1 << i, SHAPES[thing.shape]))
    return found


def _about(kind: str, start: str, phrase: str, things: int, answer: str, end: str = "?") -> Candidate:
    return Candidate((phrase,), answer, lambda: say(kind, answer, start, (phrase, things), end))


def _unique(scene: Scene, thing: Thing, attribute: Callable[[Thing], object]) -> str | None:
    """What has to stand before the attribute to mean this thing alone: nothing, its size, or None: it cannot be."""
    same = [t for t in scene if attribute(t) == attribute(thing)]
    if len(same) == 1:
        return ""
    return f"{SIZES[thing.size]} " if sum(t.size == thing.size for t in same) == 1 else None


def _exist(pair: tuple[int, int], things: int) -> Candidate:
    colour = COLOURS[pair[0]]
    start = "is there an" if colour[0] in "aeiou" else "is there a"
    return _about("exist", start, f"{colour} {SHAPES[pair[1]]}", things, "yes" if things else "no")


def _exists(scene: Scene, rng: random.Random) -> list[Candidate]:
    """ "is there a red ring?" of allowed pairs; a "no" mostly where there is red, and a ring, but no red ring."""
    present = {pair: bits(scene, lambda t, pair=pair: t.pair == pair) for pair in {t.pair: None for t in scene}}
    absent = [pair for pair in ALLOWED if pair not in present]
    colours, shapes = {c for c, _ in present}, {s for _, s in present}
    hard = [(c, s) for c, s in absent if c in colours and s in shapes]
    absent = hard if hard and rng.random() < HARD_NEGATIVES else absent
    return [_exist(pair, present.get(pair, 0)) for pair in (*present, *absent)]


def _heldout_exists(scene: Scene, balance: Balance) -> list[Said]:
    """One "yes" and one hard "no" about held-out pairs, or neither: so that there are as many of each."""
    present = {t.pair: None for t in scene}
    colours, shapes = {c for c, _ in present}, {s for _, s in present}
    hard = [(c, s) for c, s in sorted(HELD_OUT - present.keys()) if c in colours and s in shapes]
    if not hard:
        return []
    shown = [_exist(p, bits(scene, lambda t, p=p: t.pair == p)) for p in present if p in HELD_OUT]
    return balance.choose("exist", shown, 1) + balance.choose("exist", [_exist(p, 0) for p in hard], 1)


def _named_pairs(scene: Scene, heldout: int) -> Iterable[tuple[int, int]]:
    """Ordered pairs of things that colour and shape name alone, one of them held out where the scene shows such."""
    pairs = collections.Counter(t.pair for t in scene)
    single = [i for i, t in enumerate(scene) if pairs[t.pair] == 1]
    return ((i, j) for i, j in itertools.permutations(single, 2) if _concerns(heldout, 1 << i | 1 << j))


def _name(thing: Thing) -> str:
    return f"{COLOURS[thing.colour]} {SHAPES[thing.shape]}"


def _wheres(scene: Scene, heldout: int) -> list[Candidate]:
    """ "where is the red ring from the blue square?", where one direction dominates."""
    found = []
    for i, j in _named_pairs(scene, heldout):
        a, b = scene[i], scene[j]
        answer = direction(a, b)
        if answer is not None:
            build = _saying("where", answer, "where is the", (_name(a), 1 << i), "from the", (_name(b), 1 << j), "?")
            found.append(Candidate((a.pair, b.pair), answer, build))
    return found


def _spatials(scene: Scene, heldout: int) -> list[Candidate]:
    """ "is the red ring left of the blue square?", along an axis where they are clearly apart."""
    found = []
    for i, j in _named_pairs(scene, heldout):
        a, b = scene[i], scene[j]
        for side in sides(a, b):
            for asked, answer in ((side, "yes"), (OPPOSITE[side], "no")):
                first, second = (_name(a), 1 << i), (_name(b), 1 << j)
                build = _saying("spatial", answer, "is the", first, f"{RELATIONS[asked]} the", second, "?")
                found.append(Candidate((a.pair, asked, b.pair), answer, build))
    return found


def _saying(kind: str, answer: str, *parts: Part) -> Callable[[], Said]:
    return lambda: say(kind, answer, *parts)


def _counts(scene: Scene, heldout: int) -> list[Candidate]:
    """ "how many red things are there?", "... rings ...", "... small things ...", "... things ..."."""
    groups = [("things", (1 << len(scene)) - 1)]
    groups += [(f"{size} things", bits(scene, lambda t, i=i: t.size == i)) for i, size in enumerate(SIZES)]
    groups += [(f"{colour} things", bits(scene, lambda t, i=i: t.colour == i)) for i, colour in enumerate(COLOURS)]
    groups += [(plural, bits(scene, lambda t, i=i: t.shape == i)) for i, plural in enumerate(PLURALS)]
    return [
        _about("count", "how many", phrase, things, str(things.bit_count()), "are there ?")
        for phrase, things in groups
        if not things or _concerns(heldout, things)
    ]


def caption(scene: Scene, rng: random.Random) -> list[Said]:
    """A complete caption and two different short ones."""
    short = [s for s in (_short_thing(scene, rng), _short_relation(scene, rng), _short_group(scene, rng)) if s]
    return [_complete(scene, rng), *rng.sample(short, min(2, len(short)))]


def _article(phrase: str) -> str:
    return "an" if phrase[0] in "aeiou" else "a"


def _full(thing: Thing) -> str:
    return f"{SIZES[thing.size]} {_name(thing)}"


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
    pairs = [(i, j) for i, j in _named_pairs(scene, 0) if direction(scene[i], scene[j])]
    if not pairs:
        return None
    i, j = rng.choice(pairs)
    a, b = _name(scene[i]), _name(scene[j])
    relation = RELATIONS[direction(scene[i], scene[j]) or ""]
    return say("short", "", _article(a), (a, 1 << i), relation, _article(b), (b, 1 << j))


def _short_group(scene: Scene, rng: random.Random) -> Said:
    """ "two red things", "three rings", "one small thing": exactly so many."""
    thing = rng.choice(scene)
    forms = [
        (f"{SIZES[thing.size]} thing", f"{SIZES[thing.size]} things", lambda t: t.size == thing.size),
        (f"{COLOURS[thing.colour]} thing", f"{COLOURS[thing.colour]} things", lambda t: t.colour == thing.colour),
        (SHAPES[thing.shape], PLURALS[thing.shape], lambda t: t.shape == thing.shape),
    ]
    one, many, told = rng.choice(forms)
    things = bits(scene, told)
    number = things.bit_count()
    return say("short", "", NUMBERS[number], (one if number == 1 else many, things))
