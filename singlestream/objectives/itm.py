"""Image-text matching: does this text belong to this picture? (VisualBERT, section 3.3; UNITER, section 3.3)."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Int32

from singlestream.batch import Array, Batch
from singlestream.model.heads import HeadConfig
from singlestream.objectives import base

Options = base.NoOptions
MISMATCH, MATCH = 0, 1


class Objective(base.Objective):
    """Half of the rows get a picture of another example of the batch, never the same picture.

    Of its part, where a batch is computed in parts (`config.train.accumulate`).
    """

    needs_others = True

    def heads(self, config, spec):
        return {"itm": HeadConfig(size=2)}

    def loss(self, encode, heads, batch, spec, key, state):
        mixed, match = mismatch(batch, key)
        logits = heads["itm"](encode(mixed))
        loss, accuracy = base.cross_entropy(logits, match, batch.example_mask)
        return {"loss": loss, "accuracy": accuracy}, state


def mismatch(batch: Batch, key: jax.Array) -> tuple[Batch, Int32[Array, "B K"]]:
    """The batch with wrong pictures in about half of its rows, and which examples still match.

    A row of one picture (with one text or several) takes the image tokens of another such row. In a row of several
    packed examples the pictures' segment numbers are rotated: each text sees its neighbour's picture and no token
    moves. A row for which the batch holds no other picture keeps its own, and counts as a match.
    """
    coin_key, row_key, shift_key = jax.random.split(key, 3)
    rows = batch.picture.shape[0]
    counts = jnp.max(jnp.where(batch.example_mask, batch.examples[..., 0], 0), axis=1)
    coin = jax.random.bernoulli(coin_key, 0.5, (rows,))

    other, can_swap = _other_rows(batch, counts == 1, row_key)
    swap = coin & can_swap
    source = jnp.where(swap, other, jnp.arange(rows))
    image = jax.tree.map(lambda x: x[source], batch.image)

    segments, can_rotate = _rotated(batch, counts, shift_key)
    rotate = coin & can_rotate
    image = dataclasses.replace(image, segments=jnp.where(rotate[:, None], segments, image.segments))
    wrong = (swap | rotate)[:, None]
    return batch.replace(image=image), jnp.where(wrong, MISMATCH, MATCH) * jnp.ones_like(batch.picture)


def _other_rows(
    batch: Batch, single: Bool[Array, " B"], key: jax.Array
) -> tuple[Int32[Array, " B"], Bool[Array, " B"]]:
    """For each row of one picture a random other one with another picture, and whether there is one."""
    picture = batch.picture[:, 0]
    allowed = (picture[:, None] != picture[None, :]) & single[:, None] & single[None, :]
    scores = jnp.where(allowed, jax.random.uniform(key, allowed.shape), -1.0)
    return scores.argmax(1), allowed.any(1)


def _rotated(batch: Batch, counts: Int32[Array, " B"], key: jax.Array) -> tuple[Int32[Array, "B N"], Bool[Array, " B"]]:
    """Image segments rotated by a random step among the row's segments, and whether every picture then differs."""
    size = jnp.maximum(counts, 1)
    shift = 1 + jax.random.randint(key, counts.shape, 0, jnp.maximum(counts - 1, 1))

    def rotate(segments: Array, by: Array) -> Array:
        return jnp.where(segments > 0, (segments - 1 + by[:, None]) % size[:, None] + 1, 0)

    segments = batch.image.segments
    # Example k of segment s now sees the picture that had segment s - shift; pictures are looked up by segment.
    before = rotate(batch.examples[..., 0], -shift)
    same_segment = before[:, :, None] == batch.examples[:, None, :, 0]
    same_picture = batch.picture[:, :, None] == batch.picture[:, None, :]
    both = batch.example_mask[:, :, None] & batch.example_mask[:, None, :]
    clash = (same_segment & same_picture & both).any((1, 2))
    return rotate(segments, shift), (counts > 1) & ~clash
