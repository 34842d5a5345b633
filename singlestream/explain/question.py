"""What an instrument explains, one answer a row, and what it says of the words and of the image tokens."""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int32

from singlestream.batch import Array, Batch, BatchError, Encoded, Spec
from singlestream.model.build import AnyModel
from singlestream.model.config import ModelConfig
from singlestream.model.fusion import first_region
from singlestream.model.pooling import image_tokens_of, second_last, tokens_of

SOURCES = ("pooled", "pairs", "second_last")  # what heads read that give one answer an example


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=("batch", "target"), meta_fields=("head", "spec", "direction")
)
@dataclasses.dataclass(frozen=True, kw_only=True)
class Question:
    """Why does `head` give the answer `target[b]` to row b? A pytree, so that instruments can be compiled.

    Rows hold one answer each, as `Processor.batch_of` makes them: what explains one of several answers of a row
    could not be told from what explains the others.

    Without a head no answer is asked about. Instruments that know of none (`study.WITHOUT_ANSWER`) then say of the
    pooled vector what they say of an answer else, and `direction` is how the model is read ("": by its settings).
    """

    batch: Batch
    target: Int32[Array, " B"] | None = None
    head: str = ""
    spec: Spec
    direction: str = ""


class Relevance(NamedTuple):
    """What an instrument says; larger is more, 0 for padding.

    `text`, `image` and `audio`: how much each token counts for the answer. `words` and `words_audio`: what each word
    asks of each image token of its picture, and of each audio token; None where the instrument knows of the answer
    alone. `audio` and `words_audio` are None also of a batch without sound.
    """

    text: Float[Array, "B T"]
    image: Float[Array, "B N"]
    words: Float[Array, "B T N"] | None = None
    audio: Float[Array, "B A"] | None = None
    words_audio: Float[Array, "B T A"] | None = None


def answer_logit(model: AnyModel, question: Question, encoded: Encoded) -> Float[Array, " B"]:
    """The logit of each row's target.

    Raises:
        BatchError: a row has several answers, or the head answers no question, or there is none.
    """
    if question.target is None:
        raise BatchError("no answer is asked about: choose an instrument that needs none, or give a head and a target")
    head = model.heads[question.head]
    if head.head.source not in SOURCES:
        raise BatchError(
            f"the head {question.head!r} reads {head.head.source!r} and gives no answer to explain: choose one that "
            f"reads {', '.join(SOURCES)}"
        )
    logits = head(encoded)
    if logits.shape[1] != 1:
        raise BatchError(
            f"rows have {logits.shape[1]} answers each, an instrument explains one: give each example a row of its own"
        )
    return chosen(logits[:, 0], question.target)


def chosen(logits: Float[Array, "*S B answers"], target: Int32[Array, " B"]) -> Float[Array, "*S B"]:
    """Those of each row's target."""
    index = jnp.broadcast_to(target, logits.shape[:-1])[..., None]
    return jnp.take_along_axis(logits, index, axis=-1)[..., 0]


def answer_reads(model: AnyModel, question: Question) -> tuple[Float[Array, "B T"], Float[Array, "B N"]]:
    """From which text and image tokens the answer, or the pooled vector where none is asked about, is read.

    As shares of 1; of both modalities half each.
    """
    batch, config = question.batch, model.config
    examples, image = batch.examples, batch.image
    own = tokens_of(batch.text, examples)
    text = (own & (batch.text.positions[:, None, :] == 0)).astype(jnp.float32)
    nothing = jnp.zeros(image.segments.shape, jnp.float32)
    if question.head and model.heads[question.head].head.source == "second_last":
        each = jnp.broadcast_to(jnp.eye(own.shape[-1]), (own.shape[0], *(own.shape[-1],) * 2))
        text = second_last(each, batch.text, examples)
    elif isinstance(config, ModelConfig):
        if config.pooling == "mean":
            text = own / jnp.maximum(own.sum(-1, keepdims=True), 1)
        if config.join != "none":
            seen = image_tokens_of(image, examples)
            return text.mean(1) / 2, (seen / jnp.maximum(seen.sum(-1, keepdims=True), 1)).mean(1) / 2
    elif config.fusion != "none":
        return text.mean(1) / 2, first_region(image, examples).mean(1) / 2
    return text.mean(1), nothing


def masked(relevance: Relevance, batch: Batch) -> Relevance:
    """The same with 0 for padding, and between a word and another example's image and audio tokens."""
    text = batch.text.segments
    audio = jnp.zeros((len(text), 0), jnp.int32) if batch.audio is None else batch.audio.segments

    def between(values: Array | None, segments: Array) -> Array | None:
        own = (text[:, :, None] == segments[:, None]) & (segments[:, None] > 0)
        return None if values is None else jnp.where(own, values, 0)

    return Relevance(
        text=jnp.where(text > 0, relevance.text, 0),
        image=jnp.where(batch.image.segments > 0, relevance.image, 0),
        words=between(relevance.words, batch.image.segments),
        audio=None if relevance.audio is None else jnp.where(audio > 0, relevance.audio, 0),
        words_audio=between(relevance.words_audio, audio),
    )


def parts_of(batch: Batch) -> tuple[slice, slice, slice | None]:
    """Where text, image and audio tokens lie in a single stream; None of a batch without sound."""
    text, image = batch.text.ids.shape[1], batch.text.ids.shape[1] + batch.image.segments.shape[1]
    audio = None if batch.audio is None else slice(image, image + batch.audio.segments.shape[1])
    return slice(text), slice(text, image), audio
