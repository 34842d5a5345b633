"""Small pictures and questions whose truth is known, made on the fly: what the trained experiments learn from.

A picture is a row of regions in any order, each a thing with a colour, a shape and a mark, or without some of them. A
text is a few words: colours, shapes, and words that say what is asked. `KINDS` are the questions; each says what it
takes to answer it. Whatever a kind does not speak of is random.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from singlestream.batch import Batch, Regions, Spec, Text

COLOURS, SHAPES, MARKS = SIZES = (6, 6, 4)
READ, CHAIN, TWICE = range(COLOURS + SHAPES, COLOURS + SHAPES + 3)  # words that say what is asked
SPEC = Spec(vocab_size=COLOURS + SHAPES + 3, num_answers=MARKS)
NONE = -1  # what a thing has not, and the place of a word that names nothing
NOISE = 0.1
BLANKS = 8


class Question(NamedTuple):
    """R pictures of N things with texts of T words, what is right, and which thing each word names."""

    things: np.ndarray  # [R, N, 3]: colour, shape, mark
    words: np.ndarray  # [R, T]
    types: np.ndarray  # [R, T], token types
    named: np.ndarray  # [R, T], a place in the row
    answer: np.ndarray  # [R]


def some(rng: np.random.Generator, rows: int, number: int, of: int) -> np.ndarray:
    """So many different numbers below `of`, in any order, for each row [rows, number]."""
    return rng.permuted(np.tile(np.arange(of), (rows, 1)), axis=1)[:, :number]


def things_of(rng: np.random.Generator, rows: int, number: int) -> np.ndarray:
    """Things of which no two have a colour, a shape or a mark in common."""
    return np.stack([some(rng, rows, number, size) for size in SIZES], -1)


def asked(
    rng: np.random.Generator, things: np.ndarray, words: np.ndarray, named: np.ndarray, answer: np.ndarray
) -> Question:
    """Lays the things in any order; `named` speaks of them as they are given."""
    rows, number, _ = things.shape
    order = some(rng, rows, number, number)
    place = np.take_along_axis(order.argsort(1), np.maximum(named, 0), 1)
    laid = np.take_along_axis(things, order[..., None], 1)
    numbers = (laid, words, 0 * words, np.where(named == NONE, NONE, place), answer)
    return Question(*(x.astype(np.int32) for x in numbers))


def read(rng: np.random.Generator, rows: int) -> Question:
    """Which mark has the thing of this colour? A word finds its thing and reads it: one hop.

    No sum of a function of the text and a function of the picture is right in more than 3 of 4 questions about two of
    the things: exchange the word, and their marks.
    """
    things = things_of(rng, rows, MARKS)
    words = np.stack([np.full(rows, READ), things[:, 0, 0]], 1)
    return asked(rng, things, words, np.tile([NONE, 0], (rows, 1)), things[:, 0, 2])


def pair(rng: np.random.Generator, rows: int) -> Question:
    """Which mark has the thing of this colour and this shape? The two words have to meet, or meet in the thing.

    Of two colours and two shapes all four things are there, marked as an XOR: a colour alone says nothing, nor does a
    shape. So no sum of a function of one word and a function of the other is right in more than 3 of 4 questions.
    """
    first = things_of(rng, rows, 2)
    things = np.stack([first[:, own, i] for i, own in enumerate(([0, 0, 1, 1], [0, 1, 0, 1], [0, 1, 1, 0]))], -1)
    named = np.repeat(rng.integers(0, 4, (rows, 1)), 2, axis=1)
    chosen = np.take_along_axis(things, named[:, :1, None], 1)[:, 0]
    words = np.stack([chosen[:, 0], COLOURS + chosen[:, 1]], 1)
    return asked(rng, things, words, named, chosen[:, 2])


def chain(rng: np.random.Generator, rows: int) -> Question:
    """Which mark has the thing that is shaped as the one of this colour? From one thing to another: two reads.

    Two unmarked things have the shapes of two marked ones, and the word names one of them. So no sum over things, of
    each by itself, is right in more than 3 of 4: exchange the shapes of the first two, and the marks of the others.
    """
    things = things_of(rng, rows, 4)
    things[:, 2:, 1] = things[:, :2, 1]
    things[:, :2, 2] = NONE
    words = np.stack([np.full(rows, CHAIN), things[:, 0, 0]], 1)
    return asked(rng, things, words, np.tile([NONE, 0], (rows, 1)), things[:, 2, 2])


def twice(rng: np.random.Generator, rows: int) -> Question:
    """Which mark is there twice? The words say nothing: the picture alone."""
    things = things_of(rng, rows, MARKS)
    things[:, 1, 2] = things[:, 0, 2]
    return asked(rng, things, np.full((rows, 2), TWICE), np.full((rows, 2), NONE), things[:, 0, 2])


def last(rng: np.random.Generator, rows: int) -> Question:
    """Of two shapes that the words say, the one further on in the list of them: the text alone."""
    said = some(rng, rows, 2, MARKS)
    return asked(rng, things_of(rng, rows, MARKS), COLOURS + said, np.full((rows, 2), NONE), said.max(1))


def name(rng: np.random.Generator, rows: int) -> Question:
    """Which mark has the thing of this colour or shape? The naming word is the first, whose state two streams pool.

    Each thing has any mark: where all marks are there once, what three things have says what the fourth has.
    """
    things = _any_marks(rng, things_of(rng, rows, MARKS))
    first = np.where(rng.integers(0, 2, rows), things[:, 0, 0], COLOURS + things[:, 0, 1])
    words = np.stack([first, np.full(rows, READ)], 1)
    return asked(rng, things, words, np.tile([0, NONE], (rows, 1)), things[:, 0, 2])


def told(rng: np.random.Generator, rows: int) -> Question:
    """What does the word say that describes the thing? The mirror of `name`: a thing has to find its word.

    Four words name four things by colour or shape, and each has any token type, which is what it says. One of those
    things is in the picture, beside a region that holds nothing.
    """
    described = things_of(rng, rows, MARKS)
    names = np.where(rng.integers(0, 2, (rows, MARKS)), described[..., 0], COLOURS + described[..., 1])
    order, said = some(rng, rows, MARKS, MARKS), rng.integers(0, MARKS, (rows, MARKS))
    answer = said[order == 0]
    things = np.where(np.arange(3) == 2, NONE, described[:, :1])
    things = np.concatenate([things, np.full_like(things, NONE)], 1)
    named = np.where(order == 0, 0, NONE)
    question = asked(rng, things, np.take_along_axis(names, order, 1), named, answer)
    return question._replace(types=said.astype(np.int32))


def sparse(rng: np.random.Generator, rows: int) -> Question:
    """`read`, of any marks and with `BLANKS` regions more that hold nothing."""
    things = _any_marks(rng, things_of(rng, rows, MARKS))
    words = np.stack([np.full(rows, READ), things[:, 0, 0]], 1)
    things = np.concatenate([things, np.full((rows, BLANKS, 3), NONE)], 1)
    return asked(rng, things, words, np.tile([NONE, 0], (rows, 1)), things[:, 0, 2])


def _any_marks(rng: np.random.Generator, things: np.ndarray) -> np.ndarray:
    return np.concatenate([things[..., :2], rng.integers(0, MARKS, (*things.shape[:2], 1))], -1)


KINDS: dict[str, Callable[[np.random.Generator, int], Question]] = {
    "read": read,
    "pair": pair,
    "chain": chain,
    "twice": twice,
    "last": last,
    "name": name,
    "told": told,
    "sparse": sparse,
}


def questions(rng: np.random.Generator, kinds: tuple[str, ...], rows: int) -> Question:
    """So many of each kind, one kind after the other."""
    each = [KINDS[kind](rng, rows) for kind in kinds]
    return Question(*(np.concatenate(field) for field in zip(*each, strict=True)))


def crossed(base: Question, first: Question, second: Question, of: str) -> Question:
    """The base with one part from the first question and the other from the second (`small.interaction`)."""
    if of == "words":
        return base._replace(words=np.concatenate([first.words[:, :1], second.words[:, 1:]], 1))
    if of == "things":
        half = base.things.shape[1] // 2
        return base._replace(things=np.concatenate([first.things[:, :half], second.things[:, half:]], 1))
    return base._replace(words=first.words, things=second.things)


def batch_of(question: Question, key: jax.Array) -> Batch:
    """Questions as a model reads them: features one-hot and noisy, boxes that say where in the row a thing stands."""
    things, words = question.things, question.words
    (rows, length), number = words.shape, things.shape[1]
    features = jnp.concatenate([jax.nn.one_hot(things[..., i], size) for i, size in enumerate(SIZES)], -1)
    features += NOISE * jax.random.normal(key, features.shape)
    left = jnp.arange(number, dtype=jnp.float32) / number
    boxes = jnp.stack([left, 0 * left, left + 1 / number, 0 * left + 1], -1)
    text, image = jnp.ones((rows, length), jnp.int32), jnp.ones((rows, number), jnp.int32)
    positions = jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32), text.shape)
    boxes = jnp.broadcast_to(boxes, (rows, number, 4))
    return Batch(
        inputs={
            "text": Text(ids=words, positions=positions, types=question.types, segments=text, part=0 * text),
            "image": Regions(features=features, boxes=boxes, index=0 * image, segments=image, part=0 * image),
        },
        examples=jnp.broadcast_to(jnp.array([1, 0], jnp.int32), (rows, 1, 2)),
        example_mask=jnp.ones((rows, 1), bool),
        picture=jnp.arange(1, rows + 1, dtype=jnp.int32)[:, None],
    )
