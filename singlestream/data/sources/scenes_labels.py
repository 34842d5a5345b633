"""Questions about a scene whose answer is any number of labels, or one: which colours, which shapes there are."""

from __future__ import annotations

import random
from collections import Counter

from singlestream.data.sources.scenes_language import PLURALS, Said, bits, groups, say
from singlestream.data.sources.scenes_questions import Balance, Candidate
from singlestream.data.sources.scenes_world import COLOURS, HELD_OUT, SHAPES, Scene

SEPARATOR = ", "
NAMES = {"colour": COLOURS, "shape": SHAPES}
TEXTS = 6  # of a picture at most: as many as a row has room for


def labels(scenes: list[Scene], rng: random.Random) -> list[list[tuple[Said, str]]]:
    """ "which colours are there?", "which shapes are the red things?", "which colours are the rings?", and so on.

    About all things, about those of each size, and about those of a colour or a shape, more than one where there are.
    """
    return [[(said, "") for said in _labels(scene, rng)] for scene in scenes]


def _labels(scene: Scene, rng: random.Random) -> list[Said]:
    found = []
    for asked in NAMES:
        told = _told(scene, asked)
        found.append(say(f"{asked}s", _answer(scene, asked, told.pop("things")), f"which {asked}s are there?"))
        order = sorted(rng.sample(sorted(told), len(told)), key=lambda words: told[words].bit_count() < 2)
        for words in order[: TEXTS // 2 - 1]:
            parts = (f"which {asked}s are the", (words, told[words]), "?")
            found.append(say(f"{asked}s of", _answer(scene, asked, told[words]), *parts))
    return found


def _told(scene: Scene, asked: str) -> dict[str, int]:
    """The words that count things of the scene and leave open what is asked, not "the red things" where it is colours.

    With the things of each; only of such that a held-out thing is among them, where there is one.
    """
    heldout = bits(scene, lambda t: t.pair in HELD_OUT)
    own = [f"{colour} things" for colour in COLOURS] if asked == "colour" else PLURALS
    words = dict.fromkeys(word for thing in scene for word in groups(thing) if word not in own)
    told = {word: bits(scene, lambda t, w=word: w in groups(t)) for word in words}  # type: ignore[misc]
    return {word: things for word, things in told.items() if not heldout or heldout & things}


def _values(scene: Scene, asked: str, things: int) -> Counter[str]:
    return Counter(NAMES[asked][getattr(thing, asked)] for i, thing in enumerate(scene) if things >> i & 1)


def _answer(scene: Scene, asked: str, things: int) -> str:
    return SEPARATOR.join(sorted(_values(scene, asked, things)))


def label(scenes: list[Scene], rng: random.Random) -> list[list[tuple[Said, str]]]:
    """ "what is the commonest shape of the large things?", where one of them is: one label, level in each text."""
    balance = Balance(rng)
    return [[(said, "") for asked in NAMES for said in _commonest(scene, asked, balance)] for scene in scenes]


def _commonest(scene: Scene, asked: str, balance: Balance) -> list[Said]:
    found = []
    for words, things in _told(scene, asked).items():
        (first, count), *others = _values(scene, asked, things).most_common()
        if count > 1 and all(other < count for _, other in others):
            parts = (f"what is the commonest {asked} of the", (words, things), "?")
            found.append(Candidate(words, first, parts))
    return balance.choose(asked, found, TEXTS // 2)
