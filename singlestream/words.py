"""What people read of a row: the words of its text as it spells them, and where its image tokens lie."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from singlestream.batch import Batch, Patches, Regions
from singlestream.data.processor import Processor
from singlestream.data.record import Sentence
from singlestream.explain.question import Relevance
from singlestream.explain.report import Word


@dataclasses.dataclass(frozen=True, kw_only=True)
class Words:
    """The W words of a row's text, and how numbers of its T tokens become numbers of words.

    `total @ values` adds up the pieces of each word, `mean @ values` is their mean. Where the row has the text once for
    each of several pictures, a word's pieces are those of all copies, and the mean is of one copy's: an image token is
    read by its own copy alone. `special` are the words that no part of the text spells, such as `[CLS]`.
    """

    words: Sequence[Word]
    total: Float[np.ndarray, "W T"]
    mean: Float[np.ndarray, "W T"]
    special: Bool[np.ndarray, " W"]


def words_of(processor: Processor, sentence: Sentence, batch: Batch, row: int) -> Words:
    """The words of the one text of a row."""
    words, pieces = group_words(processor, sentence)
    length = batch.text.ids.shape[1]
    starts = range(0, length, processor.data.text_length)
    copies = [start for start in starts if np.asarray(batch.text.segments)[row, start]]
    total = np.zeros((len(words), length), np.float32)
    for word, piece in enumerate(pieces):
        total[word, [start + i for start in copies for i in piece]] = 1
    spans = processor.tokens(sentence.text).spans
    return Words(
        words=words,
        total=total,
        mean=total / np.array([[len(piece)] for piece in pieces], np.float32),
        special=np.array([spans[piece[0]][1] == 0 for piece in pieces]),
    )


def by_words(said: Relevance, words: Words, num_image: int, num_audio: int) -> Relevance:
    """What an instrument says of a row of one example, by words, and by image and audio tokens without padding."""
    return Relevance(
        text=words.total @ said.text[0],
        image=said.image[0, :num_image],
        words=None if said.words is None else words.mean @ said.words[0, :, :num_image],
        audio=None if said.audio is None else said.audio[0, :num_audio],
        words_audio=None if said.words_audio is None else words.mean @ said.words_audio[0, :, :num_audio],
    )


def group_words(processor: Processor, sentence: Sentence) -> tuple[list[Word], list[list[int]]]:
    """The words of a text as it spells them, and the tokens of each: pieces that continue a word belong to it."""
    tokenizer = processor.tokenizer
    tokens = processor.tokens(sentence.text)
    pieces: list[list[int]] = []
    for i, token in enumerate(tokens.ids):
        if pieces and token in tokenizer.continuations:
            pieces[-1].append(i)
        else:
            pieces.append([i])
    words = []
    for piece in pieces:
        start, end = tokens.spans[piece[0]][0], tokens.spans[piece[-1]][1]
        beside = tokenizer.token(tokens.ids[piece[0]]) if tokens.ids[piece[0]] < tokenizer.vocab_size else "[TASK]"
        text = sentence.text[start:end] if end else beside
        named = [m for m in sentence.mentions if end and start < m.end and end > m.start]
        boxes = [(float(m.index), *map(float, box)) for m in named for box in m.boxes]
        words.append(Word(text=text, boxes=boxes))
    return words, pieces


def places(image: Patches | Regions, row: int) -> Float[np.ndarray, "N 5"]:
    """(image, x0, y0, x1, y1) of each image token of a row, padding left out."""
    here = np.asarray(image.segments[row]) > 0
    index = np.asarray(image.index[row])[here]
    if isinstance(image, Regions):
        corners = np.asarray(image.boxes[row])[here].T
    else:
        (y, x), (rows, cols) = np.asarray(image.yx[row])[here].T, np.asarray(image.grid[row])[here].T
        corners = np.stack([x / cols, y / rows, (x + 1) / cols, (y + 1) / rows])
    return np.stack([index, *corners], axis=-1).astype(np.float32)
