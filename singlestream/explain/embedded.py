"""From a batch that says nothing to the one that is asked about, over the embedded tokens."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from singlestream.batch import Array, Batch, Patches, Stream
from singlestream.explain.question import Question, Relevance, answer_logit, masked, parts_of
from singlestream.model.build import AnyModel
from singlestream.model.cross import Streams

GREY = 127  # pixels, which are 0 in the models' scale of -1 to 1
Tokens = Array | Streams  # [B, L, D] of one stream, or both


def blank(question: Question) -> Batch:
    """The same layout with nothing in it: every word [MASK], patches grey, regions without features, sound silent.

    Special tokens, places and boxes stay, so that only what is said and seen is counted as missing.
    """
    batch, spec = question.batch, question.spec
    ids = jnp.asarray(batch.text.ids)
    special = (ids == spec.cls_id) | (ids == spec.sep_id) | (ids == spec.pad_id) | (ids >= spec.vocab_size)
    text = dataclasses.replace(batch.text, ids=jnp.where(special, ids, spec.mask_id))
    if batch.audio is not None:
        batch = batch.replace(audio=dataclasses.replace(batch.audio, features=jnp.zeros_like(batch.audio.features)))
    image = batch.image
    if isinstance(image, Patches):
        grey = jnp.full_like(image.pixels, GREY)
        return batch.replace(text=text, image=dataclasses.replace(image, pixels=grey))
    return batch.replace(text=text, image=dataclasses.replace(image, features=jnp.zeros_like(image.features)))


def way(model: AnyModel, question: Question) -> tuple[Tokens, Tokens, Callable[[Tokens], Array]]:
    """The batch embedded, the blank one embedded, and the answers' logits [B] from embedded tokens."""
    full: Any = model.embed(question.batch)  # which of both goes with the model
    empty: Any = model.embed(blank(question))

    def answers(x: Tokens) -> Array:
        embedded: Any = dataclasses.replace(full, x=x) if isinstance(full, Stream) else x
        return answer_logit(model, question, model(question.batch, embedded=embedded))

    return (full.x, empty.x, answers) if isinstance(full, Stream) else (full, empty, answers)


def split(values: Tokens, question: Question) -> Relevance:
    """Values of every number of every token, added up for each token."""
    if isinstance(values, Streams):
        return masked(Relevance(values.text.sum(-1), values.image.sum(-1)), question.batch)
    each = values.sum(-1)
    text, image, audio = parts_of(question.batch)
    heard = None if audio is None else each[:, audio]
    return masked(Relevance(each[:, text], each[:, image], audio=heard), question.batch)
