"""How well maps find what is spoken of, by the truth of `word_boxes`: pointing, the share inside, overlap."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Bool, Float

from singlestream.batch import Array, Batch
from singlestream.explain.question import Relevance
from singlestream.model.mentions import mentions, pointed

HALF = 0.5  # of a map's largest value: from there on a token counts as pointed at


class Located(NamedTuple):
    """Scores of maps, one each; what is not `counted` is no score."""

    pointing: Float[Array, "*S"]  # whether the strongest token lies in a true box (`mentions.pointed`)
    inside: Float[Array, "*S"]  # share of what is positive that lies in true boxes
    overlap: Float[Array, "*S"]  # IoU of the tokens from `HALF` of the strongest on with those in true boxes
    chance: Float[Array, "*S"]  # share of the tokens that lie in true boxes: what a map gets that knows nothing
    counted: Bool[Array, "*S"]


def locate(maps: Float[Array, "*S N"], true: Bool[Array, "*S N"], own: Bool[Array, "*S N"]) -> Located:
    """Scores each map against the tokens in its true boxes.

    Args:
        maps: larger is more; what is negative points nowhere.
        own: the tokens of the map's picture; the others' values are not read.
    """
    raised = jnp.where(own, jnp.maximum(maps, 0), 0)
    total = raised.sum(-1)
    strong = (raised > 0) & (raised >= HALF * raised.max(-1, keepdims=True))
    union = (strong | true).sum(-1)
    return Located(
        pointing=pointed(maps, true, own),
        inside=jnp.where(true, raised, 0).sum(-1) / jnp.where(total > 0, total, 1),
        overlap=(strong & true).sum(-1) / jnp.maximum(union, 1),
        chance=true.sum(-1) / jnp.maximum(own.sum(-1), 1),
        counted=true.any(-1),
    )


def locate_words(relevance: Relevance, batch: Batch, continuations: tuple[int, ...]) -> Located:
    """Does each naming word's map find what the word names? Scores [B, T].

    Unlike `pointing.count_pointing` it leaves out words none of whose boxes holds a token's centre.

    Raises:
        ValueError: the instrument says nothing of words.
    """
    if relevance.words is None:
        raise ValueError("this instrument explains the answer alone, it has no maps of words")
    truth = mentions(batch, continuations)
    found = locate(relevance.words, truth.true, truth.own)
    return found._replace(counted=found.counted & truth.named)


def locate_answer(relevance: Relevance, batch: Batch, continuations: tuple[int, ...]) -> Located:
    """Does what counts for the answer lie on what the question names, whichever of its words? Scores [B]."""
    truth = mentions(batch, continuations)
    named = truth.named[..., None]
    return locate(relevance.image, (truth.true & named).any(1), jnp.asarray(batch.image.segments) > 0)
