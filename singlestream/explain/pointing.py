"""Where words look: does the patch that a naming word attends to most lie on what the word names?

The pointing score is the share of naming words whose strongest patch has its centre inside one of the boxes the word
speaks of (the pointing game of Zhang et al., ECCV 2016, on attention; of patches that are equally strong it counts the
share inside, and a word that gives nothing to any hits nothing). Chance is the mean share of patch centres that lie in
those boxes: what a word reaches that points at random.

The grounding score is the share of words naming one thing for which the box around all patches that get at least half
of what the strongest gets has an IoU of 0.5 or more with the true one: grounding without having learned it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from singlestream.batch import Array, Batch
from singlestream.model.boxes import AGREE, iou, token_boxes
from singlestream.model.maps import text_to_image
from singlestream.model.mentions import mentions, pointed


class PointingCounts(NamedTuple):
    """Sums over the naming words of a batch, to be added up over batches."""

    hits: Float[Array, "layers H"]  # words whose strongest patch lies in a true box; of ties the share
    chance: Float[Array, ""]  # sum over words of the share of patch centres that lie in a true box
    words: Float[Array, ""]
    boxed: Float[Array, "layers H"]  # words of one thing whose attended box agrees with the true one
    single: Float[Array, ""]  # words of one thing


def attended_boxes(
    maps: Float[Array, "layers B H T N"], own: Bool[Array, "B T N"], boxes: Float[Array, "B N 4"]
) -> Float[Array, "layers B H T 4"]:
    """The box around the tokens of its own picture that a word gives at least half of its largest weight there.

    (1, 1, 0, 0), which is empty, where it gives them none.
    """
    seen = jnp.where(own[None, :, None], maps, 0)
    strong = (seen > 0) & (seen >= seen.max(-1, keepdims=True) / 2)
    edges = [jnp.where(strong, boxes[None, :, None, None, :, i], 1 - i // 2) for i in range(4)]
    return jnp.stack([edge.min(-1) if i < 2 else edge.max(-1) for i, edge in enumerate(edges)], axis=-1)


def count_pointing(attention: Mapping[str, Array], *, batch: Batch, continuations: tuple[int, ...]) -> PointingCounts:
    """Counts hits of each layer and head on the batch's `word_boxes` [B, T, M, 4].

    A word of several pieces counts once, by its first piece: ids in `continuations` are passed over.
    """
    maps, boxes = text_to_image(attention, batch=batch), token_boxes(batch.image)
    truth = mentions(batch, continuations)
    named, own = truth.named, truth.own
    hit = pointed(maps, truth.true[None, :, None], own[None, :, None])
    share = truth.true.sum(-1) / jnp.maximum(own.sum(-1), 1)
    single = named & (truth.present.sum(-1) == 1) & own.any(-1)
    only = jnp.where(truth.present[..., None], truth.boxes, 0).sum(-2)
    agree = iou(attended_boxes(maps, own, boxes), only[None, :, None]) >= AGREE
    return PointingCounts(
        hits=jnp.sum(hit * named[None, :, None], axis=(1, 3)).astype(jnp.float32),
        chance=jnp.sum(share * named).astype(jnp.float32),
        words=jnp.sum(named).astype(jnp.float32),
        boxed=jnp.sum(agree * single[None, :, None], axis=(1, 3)).astype(jnp.float32),
        single=jnp.sum(single).astype(jnp.float32),
    )


def add_counts(a: PointingCounts, b: PointingCounts) -> PointingCounts:
    """Both counts together."""
    return jax.tree.map(lambda x, y: x + y, a, b)
