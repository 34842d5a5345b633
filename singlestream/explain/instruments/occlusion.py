"""Occlusion: what is lost when a token is hidden (Zeiler & Fergus 2014, section 4.2; Li et al. 2016 for words)."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from singlestream.batch import Array
from singlestream.explain.question import Question, Relevance, answer_logit, masked
from singlestream.model.build import AnyModel


def explain(model: AnyModel, question: Question) -> Relevance:
    """How far the answer's logit falls when nobody sees a token: its segment is 0, and it is as if it were padding.

    `words`: how far (Euclidean distance) a word's final state moves when an image token is hidden. T + N passes.
    """
    batch = question.batch
    image, text = batch.image, batch.text

    def answers(**changed: Array) -> tuple[Array, Array]:
        hidden = {
            name: dataclasses.replace(batch.inputs[name], segments=segments) for name, segments in changed.items()
        }
        encoded = model(batch.replace(**hidden))
        return answer_logit(model, question, encoded), encoded.text

    whole, states = answers()

    def without_image(number: Array) -> tuple[Array, Array]:
        seen = jnp.arange(image.segments.shape[1]) != number
        left, moved = answers(image=jnp.asarray(image.segments) * seen)
        return whole - left, jnp.linalg.norm((states - moved).astype(whole.dtype), axis=-1)

    def without_word(number: Array) -> Array:
        seen = jnp.arange(text.segments.shape[1]) != number
        return whole - answers(text=jnp.asarray(text.segments) * seen)[0]

    of_image, of_words = jax.lax.map(without_image, jnp.arange(image.segments.shape[1]))
    of_text = jax.lax.map(without_word, jnp.arange(text.segments.shape[1]))
    return masked(Relevance(of_text.T, of_image.T, jnp.moveaxis(of_words, 0, -1)), batch)
