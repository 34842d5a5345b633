"""Attention rollout: a product of averaged attention maps, one a layer (Abnar & Zuidema 2020, section 3).

It knows no values, no output projections and no feed-forward layers, weighs all heads alike, and no answer changes it.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Float

from singlestream.batch import Array
from singlestream.explain.layers import attention_of, joined, over_heads, relevance_of
from singlestream.explain.question import Question, Relevance
from singlestream.model.build import AnyModel


def explain(model: AnyModel, question: Question) -> Relevance:
    """The mean over heads of each layer, with half of the residual, multiplied; of two streams by `layers.joined`."""
    return relevance_of(model, question, rollout(joined(model, over_heads(attention_of(model, question)))))


def rollout(layers: Float[Array, "layers B L L"]) -> Float[Array, "B L L"]:
    """The product of (A + 1), its rows divided by their sums, the first layer rightmost."""
    one = jnp.eye(layers.shape[-1], dtype=layers.dtype)

    def step(matrix: Array, layer: Array) -> tuple[Array, None]:
        mixed = layer + one
        return mixed / mixed.sum(-1, keepdims=True) @ matrix, None

    return jax.lax.scan(step, jnp.broadcast_to(one, layers.shape[1:]), layers)[0]
