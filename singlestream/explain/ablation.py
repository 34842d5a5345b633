"""What a head is good for: the answers of a model in which it reads nothing (Michel et al. 2019, section 3)."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from singlestream.batch import Array
from singlestream.explain.layers import attention_of
from singlestream.explain.question import Question, answer_logit, chosen
from singlestream.model.build import AnyModel


def without_heads(model: AnyModel, question: Question) -> dict[str, Float[Array, "layers H B answers"]]:
    """The logits of every answer with one head taken out, by the names of `Encoded.attention`.

    A head's weights do not depend on itself: taking them off again, as a perturbation, leaves it reading zeros.
    One pass a head, those of a layer at once.
    """
    attention = attention_of(model, question)
    sizes = {name: (weights.shape[0], weights.shape[2]) for name, weights in attention.items()}

    def logits(number: Array) -> Array:
        change, start = {}, 0
        for name, weights in attention.items():
            layers, heads = sizes[name]
            here = (jnp.arange(layers * heads) + start == number).reshape(layers, 1, heads, 1, 1)
            change[name], start = jnp.where(here, -weights, 0), start + layers * heads
        return model.heads[question.head](model(question.batch, perturbation=change))[:, 0]

    ends = np.cumsum([layers * heads for layers, heads in sizes.values()])
    at_once = math.gcd(*(heads for _, heads in sizes.values()))
    found = jnp.split(jax.lax.map(logits, jnp.arange(ends[-1]), batch_size=at_once), ends[:-1])
    return {name: each.reshape(*sizes[name], *each.shape[1:]) for name, each in zip(sizes, found, strict=True)}


def falls(model: AnyModel, question: Question) -> dict[str, Float[Array, "layers H B"]]:
    """How far the logit of each row's target falls without one head, by the names of `Encoded.attention`."""
    whole = answer_logit(model, question, model(question.batch))
    left = without_heads(model, question)
    return {name: whole - chosen(each, question.target) for name, each in left.items()}
