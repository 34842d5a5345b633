"""Which words name something in the picture, and which image tokens lie on it: the truth that maps are held against."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Bool, Float

from singlestream.batch import Array, Batch
from singlestream.model.boxes import centres, inside


class Mentions(NamedTuple):
    """What the target `word_boxes` [B, T, M, 4] says of a batch."""

    boxes: Float[Array, "B T M 4"]
    present: Bool[Array, "B T M"]  # boxes that are there
    named: Bool[Array, "B T"]  # words that name something; one of several pieces counts once, by its first
    own: Bool[Array, "B T N"]  # image tokens of the word's own picture
    true: Bool[Array, "B T N"]  # those whose centre lies in one of the word's boxes


def pointed(maps: Float[Array, "*S N"], true: Bool[Array, "*B N"], own: Bool[Array, "*B N"]) -> Float[Array, "*S"]:
    """Whether the strongest token of each map is a true one: 1 or 0 (the pointing game of Zhang et al. 2016).

    Of several that are equally strong it is the share of them that is true: what drawing one of them hits on average. A
    map of which nothing is above 0 points nowhere: 0.

    Args:
        maps: larger is more.
        true, own: the tokens to be found, and those of the map's picture, broadcast against `maps`; of others nothing
            is read.
    """
    seen = jnp.where(own, maps, 0)
    most = seen.max(-1, keepdims=True)
    strongest = (seen == most) & (most > 0)
    return (strongest & true).sum(-1) / jnp.maximum(strongest.sum(-1), 1)


def mentions(batch: Batch, continuations: tuple[int, ...]) -> Mentions:
    """The naming words of a batch; pieces whose ids are in `continuations` are passed over."""
    text, image = batch.text, batch.image
    boxes = jnp.asarray(batch.targets["word_boxes"])
    first = ~jnp.isin(jnp.asarray(text.ids), jnp.asarray(continuations, jnp.int32))
    present = (boxes[..., 2:] > boxes[..., :2]).all(-1)
    read = jnp.asarray(text.segments)[:, :, None]
    own = (read == jnp.asarray(image.segments)[:, None, :]) & (read > 0)
    return Mentions(
        boxes=boxes,
        present=present,
        named=present.any(-1) & first & (read[..., 0] > 0),
        own=own,
        true=inside(centres(image), boxes) & own,
    )
