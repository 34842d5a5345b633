"""An answer explained: a picture and a question in, every instrument and measure out, by words and image tokens."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Bool, Float, UInt8

from singlestream.batch import Batch
from singlestream.config import ConfigError
from singlestream.data.record import DataError, Record
from singlestream.data.visual import Visual
from singlestream.explain.measures import entropy
from singlestream.explain.modes import Modes, modes
from singlestream.explain.question import Question, Relevance
from singlestream.explain.report import Word
from singlestream.explain.study import Looks, Study, queries_of, study
from singlestream.model.answering import answering
from singlestream.page import group_words, places
from singlestream.predict import Model, Prediction

NUM_MODES = 3
OF_BOTH = ("share, image to text", "mutual attention")  # tables that are 0 where the picture reads no words


@dataclasses.dataclass(frozen=True, kw_only=True)
class Heads:
    """The looks of attention by layer and head, counted from 0; W words and N image tokens, no padding.

    `to_text` is None where the picture reads no words. `tables` are single numbers by their names, of the heads that
    read the image or of all; `similarity` compares all heads of one kind, as `measures.head_similarity`. `modes` are
    those of the words that are no special tokens, of each head and of the mean of all; `coverage` and `fertility` are
    means over layers and heads.
    """

    to_image: Float[np.ndarray, "layers H W N"]
    to_text: Float[np.ndarray, "layers H N W"] | None
    tables: Mapping[str, Float[np.ndarray, "layers H"]]
    similarity: Mapping[str, Float[np.ndarray, "layers H layers H"]]
    modes: Modes
    mean_modes: Modes
    coverage: Float[np.ndarray, "W N"]
    fertility: Float[np.ndarray, " N"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Explained:
    """A question, the model's prediction, and why it gives `answer`.

    `instruments` by name: text [W], image [N], words [W, N] or None. `patches` are (image, x0, y0, x1, y1) of the image
    tokens; `images` is empty where the model reads regions. `heads` is None where text and image meet in no layer.
    """

    text: str
    prediction: Prediction
    answer: str
    images: Sequence[UInt8[np.ndarray, "height width 3"]]
    words: Sequence[Word]
    patches: Float[np.ndarray, "N 5"]
    instruments: Mapping[str, Relevance]
    heads: Heads | None


def explain_answer(model: Model, image: Visual | tuple[Visual, ...], text: str, answer: str = "") -> Explained:
    """Asks every instrument why the model answers as it does.

    Compiled for each model anew: seconds for a small one, minutes for one of published size on a CPU.

    Args:
        image: as `Model.predict` takes it; a tuple holds the several pictures of one example.
        answer: to be explained; by default the one that the model gives.

    Raises:
        DataError: a picture that cannot be read, an empty text or one too long, an answer that the model does not know.
        ConfigError: the model answers no questions.
    """
    processor, head = model.processor, answering(model.heads)
    if not head:
        raise ConfigError(f"explain needs the head 'vqa' or 'nlvr2'; this model has {', '.join(model.heads) or 'none'}")
    if answer and answer not in model.answers:
        raise DataError(f"the model does not know the answer {answer!r}; it has {len(model.answers)}: {_few(model)}")
    record = processor.record_of(image, text)
    if processor.truncates(text):
        raise DataError(f"the text is longer than the {processor.data.text_length} tokens that the model reads: cut it")
    batch = processor.batch_of([image], [text])
    prediction = model.predict(image, text)
    target = np.array([model.answers.index(answer or prediction.answer)], np.int32)
    question = Question(batch=batch, target=target, head=head, spec=model.spec)
    said = jax.device_get(jax.jit(_study, static_argnums=0)(model.graphdef, model.params, question))
    return _by_words(model, record, question, said, prediction, answer)


def _few(model: Model, count: int = 8) -> str:
    return ", ".join(model.answers[:count]) + (", ..." if len(model.answers) > count else "")


def _study(graphdef: Any, params: Any, question: Question) -> Study:
    return study(nnx.merge(graphdef, params), question)


def _by_words(
    model: Model, record: Record, question: Question, said: Study, prediction: Prediction, answer: str
) -> Explained:
    batch, processor = question.batch, model.processor
    words, pieces = group_words(processor, record.texts[0])
    patches = places(batch.image, 0)
    # A text that each of several pictures is read with stands in the row once for each of them.
    starts = range(0, batch.text.ids.shape[1], processor.data.text_length)
    copies = [start for start in starts if np.asarray(batch.text.segments)[0, start]]
    group = np.zeros((len(words), batch.text.ids.shape[1]), np.float32)
    for word, piece in enumerate(pieces):
        group[word, [start + i for start in copies for i in piece]] = 1
    seen = slice(len(patches))
    mean = group / np.array([[len(piece)] for piece in pieces])
    instruments = {
        name: Relevance(
            text=group @ each.text[0],
            image=each.image[0, seen],
            words=None if each.words is None else mean @ each.words[0, :, seen],
        )
        for name, each in said.instruments.items()
    }
    spans = processor.tokens(record.texts[0].text).spans
    special = np.array([spans[piece[0]][1] == 0 for piece in pieces])  # spelled by no part of the text
    return Explained(
        text=record.texts[0].text,
        prediction=prediction,
        answer=answer or prediction.answer,
        images=record.images,
        words=words,
        patches=patches,
        instruments=instruments,
        heads=None if said.looks is None else _heads(model, batch, said.looks, group, mean, special),
    )


def _heads(
    model: Model,
    batch: Batch,
    found: Looks,
    group: Float[np.ndarray, "W T"],
    mean: Float[np.ndarray, "W T"],
    special: Bool[np.ndarray, " W"],
) -> Heads:
    """A word looks where its pieces look on average; a patch gives a word what it gives to all of its pieces."""
    seen = slice(int((np.asarray(batch.image.segments)[0] > 0).sum()))
    to_image = mean @ found.to_image[:, 0, :, :, seen]
    reads = model.config.model.inputs.picture_reads_text
    return Heads(
        to_image=to_image,
        to_text=found.to_text[:, 0, :, seen] @ group.T if reads else None,
        tables={name: each for name, each in tables(found, batch).items() if reads or name not in OF_BOTH},
        similarity={
            name: found.similarity[name].reshape(2 * (spread.shape[0], spread.shape[2]))
            for name, spread in found.entropy.items()
        },
        modes=_modes(to_image, special),
        mean_modes=_modes(to_image.mean((0, 1)), special),
        coverage=mean @ found.coverage[:, 0, :, :, seen].mean((0, 1)),
        fertility=found.fertility[:, 0, :, seen].mean((0, 1)),
    )


def _modes(maps: Float[np.ndarray, "*S W N"], special: Bool[np.ndarray, " W"]) -> Modes:
    own = np.broadcast_to(~special[:, None], maps.shape[-2:])
    return Modes(*map(np.asarray, modes(maps, own, min(NUM_MODES, *own.shape))))


def tables(found: Looks, batch: Batch) -> dict[str, Float[np.ndarray, "layers H"]]:
    """One number a layer and head of the first row, by what it says.

    Entropies in nats are means over the queries of a kind; coverage is the number of image tokens that the words read
    evenly (exp of the entropy of fertility) as a share of them; fertility and mutual attention are the largest.
    """
    num_text = batch.text.ids.shape[1]
    found_tables = {}
    for name, each in found.entropy.items():
        counted = np.asarray(queries_of(name, batch, each.shape[-1]))[0]
        sides = {"words": slice(num_text), "image": slice(num_text, None)} if name == "self" else {name: slice(None)}
        for side, part in sides.items():
            kind = f"entropy, {side.replace('_', ' ')}"
            found_tables[kind] = each[:, 0, :, part][..., counted[part]].mean(-1)
    found_tables |= {f"share, {name.replace('_', ' ')}": share for name, share in found.crossing.items()}
    fertility = found.fertility[:, 0][..., np.asarray(batch.image.segments)[0] > 0]
    found_tables["coverage"] = np.exp(np.asarray(entropy(fertility))) / fertility.shape[-1]
    found_tables["fertility"] = fertility.max(-1)
    found_tables["mutual attention"] = found.mutual[:, 0].max((-1, -2))
    return found_tables
