"""A picture and a text explained: every instrument and measure of a model's answer, by words and image tokens.

What is explained is the answer of a model that gives some; else whether text and picture match, of one that learned
that; else no answer, and what is told is how the words attend.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from jaxtyping import Bool, Float, Int, UInt8

from singlestream.batch import Array, Batch
from singlestream.config import ConfigError
from singlestream.data.audio import Sound
from singlestream.data.image import Picture, read_image
from singlestream.data.processor import Processor
from singlestream.data.record import DataError, Record
from singlestream.explain.pruned import gone_after
from singlestream.explain.question import Question, Relevance
from singlestream.explain.report import Word
from singlestream.explain.study import Study, study
from singlestream.explained_heads import Heads, heads_of
from singlestream.model.answering import WANTED, answering
from singlestream.model.captions import READ, writing
from singlestream.predict import Model, Pictures, Prediction
from singlestream.words import by_words, places, words_of

MATCHING = "itm"  # the head that says whether text and picture belong together


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pruned:
    """What a pruned model does without: `gone_after` (`explain.pruned`), of the layers in which there was a drop.

    `method` is `config.model.pruning.method`: tokens are dropped, merged into others, or hidden (`mask`).
    """

    method: str
    layers: Sequence[int]
    gone_after: Int[np.ndarray, " N"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Explained:
    """A question, the model's prediction, and why it gives `answer`; None and "" of a model that gives none.

    `instruments` by name: text [W], image [N], words [W, N] or None, with sound also audio [A] and words_audio [W, A];
    text, image and audio without an answer are of the pooled vector. `special` are the words that the text does not
    spell, such as `[CLS]`. `patches` are (image, x0, y0, x1, y1) of the image tokens, of which a model of regions
    without boxes knows no place: `located` is False. `images` is empty where the model reads regions and no picture was
    given to show them on. `heads` is None where text and image meet in no layer, `pruned` where no image token is
    dropped. `sound` is the log-mel spectrogram of the A audio tokens, M / A columns each; None where nothing was heard.
    """

    text: str
    prediction: Prediction | None
    answer: str
    images: Sequence[UInt8[np.ndarray, "height width 3"]]
    words: Sequence[Word]
    special: Bool[np.ndarray, " W"]
    patches: Float[np.ndarray, "N 5"]
    instruments: Mapping[str, Relevance]
    heads: Heads | None
    pruned: Pruned | None = None
    regions: bool = False
    located: bool = True
    sound: Float[np.ndarray, "M bands"] | None = None


def explain_answer(
    model: Model,
    image: Pictures,
    text: str,
    answer: str = "",
    *,
    audio: Sound | None = None,
    shown: Sequence[Picture] = (),
) -> Explained:
    """Asks every instrument why the model answers as it does, or where it looks if it gives no answers.

    Compiled for each model anew, which takes most of the time.

    Args:
        image: as `Model.predict` takes it; a tuple holds the several pictures of one example.
        answer: to be explained; by default the one that the model gives. Of a model that learned to match text and
            picture (`itm`) and answers nothing else, "match" or "no match".
        audio: as `Model.predict` takes it.
        shown: where the model reads regions, the pictures they were found in, to draw them on.

    Raises:
        DataError: a picture or sound that cannot be read, an empty text, one too long, or one with a word that the
            vocabulary has no pieces for, an answer that the model does not know, another number of pictures to show.
        ConfigError: the model gives no answer, and no layer of it reads both text and picture.
    """
    processor, asked = model.processor, _asked(model)
    if answer and answer not in asked.answers:
        raise DataError(f"the model does not know the answer {answer!r}; it has {_few(asked.answers)}")
    _check_text(processor, text)
    record = processor.record_of(image, text, audio)
    images = _shown(record, shown)
    batch = processor.batch_of([image], [text], [audio])
    prediction: Prediction | None = None
    if asked.head:
        matches = asked.head == MATCHING
        prediction = _matched(model, asked, batch) if matches else model.predict(image, text, audio=audio)
    answer = answer or (prediction.answer if prediction else "")
    target = np.array([asked.answers.index(answer)], np.int32) if answer else None
    question = Question(batch=batch, target=target, head=asked.head, spec=model.spec, direction=asked.direction)
    said = jax.device_get(jax.jit(_study, static_argnums=0)(model.graphdef, model.params, question))
    words, num_image = words_of(processor, record.texts[0], batch, 0), _count(batch.image.segments)
    num_audio = 0 if batch.audio is None else _count(batch.audio.segments)
    reads = not asked.direction and model.config.model.picture_reads_text
    return Explained(
        text=text,
        prediction=prediction,
        answer=answer,
        images=images,
        words=words.words,
        special=words.special,
        patches=places(batch.image, 0),
        instruments={name: by_words(each, words, num_image, num_audio) for name, each in said.instruments.items()},
        heads=heads_of(batch, said, words, reads=reads),
        pruned=None if said.kept is None else _pruned(model, said.kept[:, 0, :num_image]),
        regions=bool(record.regions),
        located=all(each.boxes is not None for each in record.regions),
        sound=_spectrogram(model, batch, num_audio) if num_audio else None,
    )


class _Asked(NamedTuple):
    """What a model is asked: the head whose numbers are `answers`, or none and the direction in which it is read."""

    head: str
    answers: tuple[str, ...]
    direction: str = ""


def _asked(model: Model) -> _Asked:
    if head := answering(model.heads):
        return _Asked(head, model.answers)
    if MATCHING in model.heads:
        return _Asked(MATCHING, _matches(model))
    config, direction = model.config.model, READ.get(writing(model.heads), "")
    if direction == READ["prefix_lm"] and config.inputs.pruning.active:
        raise ConfigError(
            "explain reads what prefix_lm learned from left to right, as it writes, and then every image token stays: "
            "explain the model without pruning"
        )
    if not config.meets and not direction:
        raise ConfigError(
            f"explain needs the head {WANTED} or {MATCHING!r}, or a layer that reads text and picture; this model has "
            f"{', '.join(model.heads) or 'no heads'}, and no such layer"
        )
    return _Asked("", (), direction)


def _matches(model: Model) -> tuple[str, str]:
    """What the two numbers of `itm` say; some published weights have them the other way round (docs/families.md)."""
    plan = model.plan
    if plan is None or MATCHING in model.config.objectives:
        return "no match", "match"
    turned = plan.family == "vilbert" or (plan.family, plan.dialect) == ("visualbert", "transformers")
    return ("match", "no match") if turned else ("no match", "match")


def _matched(model: Model, asked: _Asked, batch: Batch) -> Prediction:
    row = jax.nn.softmax(model.heads[MATCHING](model(batch))[0, 0]).tolist()
    each = dict(sorted(zip(asked.answers, row, strict=True), key=lambda item: -item[1]))
    answer = next(iter(each))
    return Prediction(answer=answer, probability=each[answer], probabilities=each)


def _check_text(processor: Processor, text: str) -> None:
    tokens = processor.tokens(text)
    if tokens.truncated:
        raise DataError(f"the text is longer than the {processor.data.text_length} tokens that the model reads: cut it")
    unknown = [text[a:b] for i, (a, b) in zip(tokens.ids, tokens.spans, strict=True) if i == processor.spec.unk_id]
    if unknown:
        raise DataError(f"the model's vocabulary has no pieces for {unknown[0]!r}: all such words are one to it")


def _shown(record: Record, shown: Sequence[Picture]) -> tuple[np.ndarray, ...]:
    """The pictures of the page."""
    if not shown:
        return record.images
    if len(shown) != len(record.regions):
        raise DataError(
            f"{len(shown)} pictures to show {len(record.regions)} sets of regions on: expected one for each"
            + ("" if record.regions else "; this model reads the pictures themselves")
        )
    return tuple(read_image(each, f"picture {n} to show") for n, each in enumerate(shown))


def _count(segments: Array) -> int:
    return int((np.asarray(segments) > 0).sum())


def _spectrogram(model: Model, batch: Batch, num_audio: int) -> Float[np.ndarray, "M bands"]:
    """Columns of the sound that the audio tokens hold."""
    assert batch.audio is not None
    tokens = np.asarray(batch.audio.features)[0, :num_audio]
    return tokens.reshape(num_audio * model.processor.data.audio_columns, -1)


def _pruned(model: Model, kept: Bool[np.ndarray, "drops N"]) -> Pruned:
    pruning = model.config.model.inputs.pruning
    return Pruned(method=pruning.method, layers=pruning.layers, gone_after=gone_after(kept, pruning.layers))


def _few(answers: Sequence[str], count: int = 8) -> str:
    listed = ", ".join(answers[:count]) + (", ..." if len(answers) > count else "")
    return f"{len(answers)}: {listed}" if answers else "none: leave it out"


def _study(graphdef: Any, params: Any, question: Question) -> Study:
    return study(nnx.merge(graphdef, params), question)
