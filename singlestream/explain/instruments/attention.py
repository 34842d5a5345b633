"""The attention weights of one layer and head, as they are: what is read there, not what becomes of it."""

from __future__ import annotations

import jax.numpy as jnp

from singlestream.explain.layers import attention_of, relevance_of
from singlestream.explain.question import Question, Relevance, answer_reads, masked
from singlestream.model.build import AnyModel


def explain(model: AnyModel, question: Question, *, layer: int = -1, head: int | None = None) -> Relevance:
    """Weights of a layer and a head (None: the mean of all).

    Of two streams `layer` counts the layers that cross, where the text reads the image and no word: `text` is 0.
    """
    attention = attention_of(model, question)
    weights = attention["self" if "self" in attention else "text_to_image"][layer]
    weights = weights.mean(1) if head is None else weights[:, head]
    if "self" in attention:
        return relevance_of(model, question, weights)
    from_text, _ = answer_reads(model, question)
    image = jnp.einsum("bt,btn->bn", from_text, weights)
    return masked(Relevance(jnp.zeros_like(from_text), image, weights), question.batch)
