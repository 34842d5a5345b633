"""Multiple choice about a scene: a question with each of four answers, one of them "true" and the others "false"."""

from __future__ import annotations

import collections
import random

from singlestream.data.sources.scenes_captions import NUMBERS
from singlestream.data.sources.scenes_language import Said
from singlestream.data.sources.scenes_questions import OPPOSITE, Balance, ask
from singlestream.data.sources.scenes_world import COLOURS, HELD_OUT, SHAPES, Scene

QUESTIONS = 4  # of a picture
CHOICES = 4  # of a question
OPTIONS = {
    "colour": COLOURS,
    "shape": SHAPES,
    "where": tuple(OPPOSITE),
    "count": ("none", *NUMBERS[1:]),  # instead of a question's digits, which no text holds
}


def choose(scenes: list[Scene], rng: random.Random) -> list[list[tuple[Said, str]]]:
    """Of each scene four questions, one after the other, each with its four answers in any order."""
    balance, used = Balance(rng), _Used(rng)
    told = []
    for scene in scenes:
        asked = [said for said in ask(scene, balance, rng) if said.kind in OPTIONS]
        # They come kind after kind, none of a kind that the scene does not allow.
        questions = [asked[k * len(asked) // QUESTIONS] for k in range(QUESTIONS)]
        told.append([(text, "") for question in questions for text in used.choices(scene, question)])
    return told


class _Used:
    """Counts how often an answer stood beside a question: of `CHOICES` times it shall be the true one once."""

    def __init__(self, rng: random.Random):
        self._rng = rng
        self._due: collections.Counter[tuple[str, str]] = collections.Counter()  # false ones that are wanted

    def choices(self, scene: Scene, question: Said) -> list[Said]:
        """The question with the true answer and with others.

        Rather with those that are true of another thing of the scene, then with those that are due.
        """
        text, right = question.text, question.answer
        if question.kind == "count":
            right = OPTIONS["count"][int(right)]
        shown = {COLOURS[thing.colour] for thing in scene} | {SHAPES[thing.shape] for thing in scene}
        others = [answer for answer in OPTIONS[question.kind] if answer != right and _allowed(scene, question, answer)]
        self._rng.shuffle(others)
        others.sort(key=lambda answer: (answer not in shown, -self._due[text, answer]))
        chosen = [right, *others[: CHOICES - 1]]
        for answer in chosen:
            self._due[text, answer] += CHOICES - 1 if answer == right else -1
        self._rng.shuffle(chosen)
        mentions = question.mentions
        return [Said(question.kind, f"{text} {a}", "true" if a == right else "false", mentions) for a in chosen]


def _allowed(scene: Scene, question: Said, answer: str) -> bool:
    """Whether the answer makes no held-out pair of the thing asked about, or the scene shows held-out things anyway."""
    if question.kind not in ("colour", "shape") or any(thing.pair in HELD_OUT for thing in scene):
        return True
    thing = scene[question.mentions[0][2].bit_length() - 1]
    pair = (thing.colour, SHAPES.index(answer)) if question.kind == "shape" else (COLOURS.index(answer), thing.shape)
    return pair not in HELD_OUT
