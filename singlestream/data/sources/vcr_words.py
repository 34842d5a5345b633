"""VCR's questions in words: a thing there is a number, `["Why", "is", [4], "pointing", "at", [0, 1], "?"]`.

As the dataset's authors write it for BERT (https://github.com/rowanz/r2c, vcr_loader.py), which VisualBERT takes over:
a person is one of fifteen names that say no gender, any other thing its class, several follow one another. There the
names go by the order in which people are spoken of, in each choice anew; here by the order in which the picture has
them, so that a person has one name in the question, in its choices and in what is asked next.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from jaxtyping import Float
from numpy import ndarray

from singlestream.data.record import Mention

NAMES = (
    *("Casey", "Riley", "Jessie", "Jackie", "Avery", "Jaime", "Peyton", "Kerry"),
    *("Jody", "Kendall", "Peyton", "Skyler", "Frankie", "Pat", "Quinn"),
)
PERSON = "person"

Token = str | list[int]
Word = tuple[str, int]  # with the number of the thing that it names, or -1


def names_of(objects: Sequence[str]) -> list[str]:
    """What each of a picture's things is called; with more people than names the names begin again."""
    people = itertools.cycle(NAMES)
    return [next(people) if thing == PERSON else thing for thing in objects]


def words_of(tokens: Sequence[Token], names: Sequence[str]) -> Iterator[Word]:
    """The words of a question, answer or reason.

    Raises:
        ValueError: no words, or a number that no thing has.
    """
    if not tokens:
        raise ValueError("an empty text")
    for token in tokens:
        for each in [token] if isinstance(token, str) else token:
            if isinstance(each, str):
                yield each, -1
            elif 0 <= each < len(names):
                yield names[each], each
            else:
                raise ValueError(f"it speaks of thing {each}, there are {len(names)}")


def join(words: Sequence[Word], boxes: Float[ndarray, "M 4"] | None) -> tuple[str, tuple[Mention, ...]]:
    """The words as one text, and where the boxes of the picture's things are known, those of the words' things."""
    text, mentions = "", []
    for word, thing in words:
        start = len(text) + 1 if text else 0
        text += f" {word}" if text else word
        if boxes is not None and thing >= 0:
            mentions.append(Mention(start=start, end=len(text), boxes=boxes[thing : thing + 1]))
    return text, tuple(mentions)
