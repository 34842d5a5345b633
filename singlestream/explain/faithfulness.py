"""Is what a map calls important what the model uses? Deletion and insertion (Petsiuk et al. 2018)."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from singlestream.batch import Array
from singlestream.explain.question import Question, answer_logit
from singlestream.model.build import AnyModel


class Curves(NamedTuple):
    """The probability of each row's target, from all or none of the image tokens to none or all, in equal stretches."""

    deletion: Float[Array, "B M"]  # the tokens that count most go first: the lower the area, the better
    insertion: Float[Array, "B M"]  # the tokens that count most come first: the higher, the better


def curves(
    model: AnyModel, question: Question, relevance: Float[Array, "B N"], *, points: int = 10, by_itself: bool = False
) -> Curves:
    """Hides, and shows, image tokens by the order of their relevance; ties go by their number.

    A hidden token is padding to the model, nothing is put in its place. 2 (points + 1) passes.

    Args:
        relevance: the larger, the earlier; of padding it is not read.
        points: stretches of the curve; at point i the share i / points of each row's own tokens has gone or come.
        by_itself: the head says of each answer by itself how probable it is, see `model.answering.is_by_itself`.
    """
    batch = question.batch
    segments = jnp.asarray(batch.image.segments)
    order = jnp.argsort(jnp.where(segments > 0, -relevance, jnp.inf), axis=-1)
    rank = jnp.argsort(order, axis=-1)  # of each token in that order
    own = (segments > 0).sum(-1, keepdims=True)

    def probability(number: Array) -> tuple[Array, Array]:
        first = rank < jnp.round(own * number / points)
        return shown(~first), shown(first)

    def shown(tokens: Array) -> Array:
        image = dataclasses.replace(batch.image, segments=segments * tokens)
        encoded = model(batch.replace(image=image))
        logit = answer_logit(model, question, encoded)
        if by_itself:
            return jax.nn.sigmoid(logit)
        every = jax.nn.logsumexp(model.heads[question.head](encoded)[:, 0], axis=-1)
        return jnp.exp(logit - every)

    deletion, insertion = jax.lax.map(probability, jnp.arange(points + 1))
    return Curves(deletion.T, insertion.T)


def area(curve: Float[Array, "B M"]) -> Float[Array, " B"]:
    """The area under each curve over [0, 1], by trapezia."""
    return (curve[:, 1:] + curve[:, :-1]).mean(-1) / 2
