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

    `words` and `words_audio`: how far (Euclidean distance) a word's final state moves when an image token, or an audio
    token, is hidden. T + N + A passes.
    """
    batch = question.batch

    def answers(**changed: Array) -> tuple[Array, Array]:
        hidden = {
            name: dataclasses.replace(batch.inputs[name], segments=segments) for name, segments in changed.items()
        }
        encoded = model(batch.replace(**hidden))
        return answer_logit(model, question, encoded), encoded.text

    whole, states = answers()

    def without(name: str) -> tuple[Array, Array]:
        """The fall for each token of this input, [B, M], and how far each word moves, [B, T, M]."""
        segments = jnp.asarray(batch.inputs[name].segments)

        def one(number: Array) -> tuple[Array, Array]:
            left, moved = answers(**{name: segments * (jnp.arange(segments.shape[1]) != number)})
            return whole - left, jnp.linalg.norm((states - moved).astype(whole.dtype), axis=-1)

        falls, moves = jax.lax.map(one, jnp.arange(segments.shape[1]))
        return falls.T, jnp.moveaxis(moves, 0, -1)

    (text, _), (image, words) = without("text"), without("image")
    audio, words_audio = (None, None) if batch.audio is None else without("audio")
    return masked(Relevance(text, image, words, audio, words_audio), batch)
