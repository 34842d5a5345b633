"""Answers that the golden file of the official VQA evaluation is made of: what is said, and what ten annotators said.

`golden/make_official_vqa.py` gives them to the official code; `test_official_vqa.py` gives them to ours.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from singlestream.data.official_vqa import CONTRACTIONS, WRITTEN_OUT

CASES = 5000
ANNOTATORS = 10

SIGNS = ";/[]\"{}()=+\\_-><@`,?!.':&$%#*~|^\n\t"
THINGS = "dog cat t-shirt black white yes no stop sign café straße Ünder naïve NIKE 7up b&w ok. o'clock I'm wii".split()
NUMBERS = (
    "none zero One two THREE four five six seven eight nine ten eleven twenty 0 1 3.5 .5 5. 1,000 1,000,000".split()
)
NUMBERS += "12:30 1/2 2-3 $1.50 100% 10,a 3,4 4.5.6 ..".split()
ARTICLES = "a an the A An THE athe".split()
# Spellings of the table, its right sides, and neighbours of both that the table does not know.
SHORT = [
    *WRITTEN_OUT,
    *CONTRACTIONS,
    "Im",
    "I'm",
    "Ive",
    "Id've",
    "I'dve",
    "let's",
    "lets",
    "she's",
    "shes",
    "somebody'd",
]
SHORT += "ill id shell well wed shed hell were cantt 'twas' couldntve yalldve DONT Thats ows'at ow'sat'".split()
POOLS = (THINGS, THINGS, NUMBERS, ARTICLES, SHORT)


class Draw:
    """Draws by `random.random` alone, whose sequence Python promises to keep."""

    def __init__(self, seed: int):
        self._random = random.Random(seed).random

    def below(self, count: int) -> int:
        return int(self._random() * count)

    def one(self, values: Sequence[Any]) -> Any:
        return values[self.below(len(values))]


def answer(draw: Draw) -> str:
    """One to four words with signs between, before or after them; seldom many periods, seldom nothing at all."""
    if draw.below(100) == 0:
        return draw.one(["", " ", ".", "the", "a an", "." * 31, "x." * 33, ". " * 40, "1,2" + "-" * 5])
    parts = []
    for _ in range(1 + draw.below(4)):
        word = draw.one(draw.one(POOLS))
        if draw.below(3) == 0:
            at = draw.one([0, len(word), draw.below(len(word) + 1)])
            word = word[:at] + draw.one(SIGNS) + word[at:]
        parts.append(word)
        parts.append(draw.one([" ", " ", " ", "  ", *SIGNS]))
    return "".join(parts[:-1] if draw.below(3) else parts)


def variant(draw: Draw, text: str) -> str:
    """The same answer as another annotator may have typed it."""
    changed = [text, text, text.upper(), f"the {text}", f" {text}\n", text.replace(" ", "  "), text + ".", text + " ?"]
    changed += [text.replace("-", " "), text.replace("'", ""), text.replace("one", "1"), text.replace(" ", "\t")]
    return draw.one(changed)


def cases() -> list[tuple[str, list[str]]]:
    """(said, what ten annotators said) of each case; in a fifth of them all ten said the same."""
    draw, made = Draw(0), []
    for _ in range(CASES):
        offered = [answer(draw) for _ in range(1 + draw.below(4))]
        if draw.below(5) == 0:
            given = [offered[0]] * ANNOTATORS
        else:
            given = [variant(draw, draw.one(offered)) for _ in range(ANNOTATORS)]
        said = [draw.one(given), draw.one(given), variant(draw, draw.one(offered)), answer(draw)]
        made.append((draw.one(said), given))
    return made
