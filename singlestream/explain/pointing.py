"""Where words look: does the patch that a naming word attends to most lie on what the word names?

The pointing score is the share of naming words whose strongest patch has its centre inside one of the boxes the word
speaks of (the pointing game of Zhang et al., ECCV 2016, on attention). Chance is the mean share of patch centres that
lie in those boxes: what a word reaches that points at random.

The grounding score is the share of words naming one thing for which the box around all patches that get at least half
of what the strongest gets has an IoU of 0.5 or more with the true one: grounding without having learned it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from singlestream.batch import Array, Batch, Patches, Regions
from singlestream.model.boxes import AGREE, iou, token_boxes


class PointingCounts(NamedTuple):
    """Sums over the naming words of a batch, to be added up over batches."""

    hits: Float[Array, "layers H"]  # words whose strongest patch lies in a true box
    chance: Float[Array, ""]  # sum over words of the share of patch centres that lie in a true box
    words: Float[Array, ""]
    boxed: Float[Array, "layers H"]  # words of one thing whose attended box agrees with the true one
    single: Float[Array, ""]  # words of one thing


def centres(image: Patches | Regions) -> Float[Array, "B N 2"]:
    """Centre (x, y) of each image token in [0, 1] of its picture."""
    if isinstance(image, Patches):
        return (jnp.asarray(image.yx)[..., ::-1] + 0.5) / jnp.maximum(jnp.asarray(image.grid)[..., ::-1], 1)
    boxes = jnp.asarray(image.boxes)
    return (boxes[..., :2] + boxes[..., 2:]) / 2


def inside(points: Float[Array, "B N 2"], boxes: Float[Array, "B T M 4"]) -> Bool[Array, "B T N"]:
    """Whether each point lies in one of a token's boxes (x0, y0, x1, y1); a box of zeros holds nothing."""
    points, boxes = points[:, None, :, None, :], boxes[:, :, None]
    within = (points >= boxes[..., :2]) & (points < boxes[..., 2:])
    return within.all(-1).any(-1)


def text_to_image(attention: Mapping[str, Array], *, batch: Batch) -> Float[Array, "layers B H T N"]:
    """What text queries give to image keys, in each layer of a single stream, or in each that crosses between two.

    Args:
        attention: `Encoded.attention`. In a single stream the text comes first, then the image.
    """
    if "self" not in attention:
        return attention["text_to_image"]
    num_text, num_image = batch.text.ids.shape[1], batch.image.segments.shape[1]
    return attention["self"][..., :num_text, num_text : num_text + num_image]


def image_to_text(attention: Mapping[str, Array], *, batch: Batch) -> Float[Array, "layers B H N T"]:
    """What image queries give to text keys, likewise."""
    if "self" not in attention:
        return attention["image_to_text"]
    num_text, num_image = batch.text.ids.shape[1], batch.image.segments.shape[1]
    return attention["self"][..., num_text : num_text + num_image, :num_text]


def attended_boxes(
    maps: Float[Array, "layers B H T N"], own: Bool[Array, "B T N"], boxes: Float[Array, "B N 4"]
) -> Float[Array, "layers B H T 4"]:
    """The box around the tokens of its own picture that a word gives at least half of its largest weight there."""
    seen = jnp.where(own[None, :, None], maps, -jnp.inf)
    strong = seen >= seen.max(-1, keepdims=True) / 2
    edges = [jnp.where(strong, boxes[None, :, None, None, :, i], 1 - i // 2) for i in range(4)]
    return jnp.stack([edge.min(-1) if i < 2 else edge.max(-1) for i, edge in enumerate(edges)], axis=-1)


def count_pointing(attention: Mapping[str, Array], *, batch: Batch, continuations: tuple[int, ...]) -> PointingCounts:
    """Counts hits of each layer and head on the batch's `word_boxes` [B, T, M, 4].

    A word of several pieces counts once, by its first piece: ids in `continuations` are passed over.
    """
    maps = text_to_image(attention, batch=batch)
    text, image = batch.text, batch.image
    boxes = jnp.asarray(batch.targets["word_boxes"])
    first = ~jnp.isin(jnp.asarray(text.ids), jnp.asarray(continuations, jnp.int32))
    present = (boxes[..., 2:] > boxes[..., :2]).all(-1)
    named = present.any(-1) & first & (jnp.asarray(text.segments) > 0)
    own = jnp.asarray(text.segments)[:, :, None] == jnp.asarray(image.segments)[:, None, :]
    true = inside(centres(image), boxes) & own
    strongest = jnp.argmax(maps, axis=-1)  # [layers, B, H, T]
    hit = jnp.take_along_axis(true[None, :, None], strongest[..., None], axis=-1)[..., 0]
    share = true.sum(-1) / jnp.maximum(own.sum(-1), 1)
    single = named & (present.sum(-1) == 1) & own.any(-1)
    found = attended_boxes(maps, own, token_boxes(image))
    agree = iou(found, jnp.where(present[..., None], boxes, 0).sum(-2)[None, :, None]) >= AGREE
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
