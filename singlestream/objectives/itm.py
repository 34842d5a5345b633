"""Image-text matching: does this text belong to this picture? (VisualBERT, section 3.3; UNITER, section 3.3).

With `hard`, wrong pictures that are close to the text are taken more often (ALBEF, section 3.2). ALBEF reads each pair
three times: as it is, with a hard picture for its text, and with a hard text for its picture. Here it is read once, and
about half of the texts see a hard picture; no text is drawn for a picture.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int32

from singlestream.batch import ALL, NONE, Array, Batch, Regions
from singlestream.model.heads import HeadConfig
from singlestream.objectives import base, itc

MISMATCH, MATCH = 0, 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """`hard` draws wrong pictures by the similarity that `itc` gives them in the same step, else all are alike."""

    hard: bool = False


class Objective(base.Objective):
    """Half of the rows get a picture of another example of the batch, never the same picture.

    Of its part, where a batch is computed in parts (`config.train.accumulate`).
    """

    needs_others = True

    def __init__(self, options: Options):
        super().__init__(options)
        self.needs = ("itc",) if options.hard else ()

    def heads(self, config, spec):
        return {"itm": HeadConfig(size=2)}

    def loss(self, encode, heads, batch, spec, key, state):
        closeness = picture_logits(encode, batch) if self.options.hard else None
        mixed, match = mismatch(batch, key, closeness)
        logits = heads["itm"](encode(mixed))
        loss, accuracy = base.cross_entropy(logits, match, base.paired(batch))
        return {"loss": loss, "accuracy": accuracy}, state


def picture_logits(encode: base.Encode, batch: Batch) -> Float[Array, "B K B"]:
    """Scaled similarity of each text with the (first) picture of each row, by the heads of `itc`."""
    found, (rows, examples) = itc.unimodal(encode, batch), batch.picture.shape
    text, image = (x.reshape(rows, examples, -1) for x in (found.text, found.image))
    similar = jnp.einsum("bke,oe->bko", text, image[:, 0], precision=jax.lax.Precision.HIGHEST)
    return jax.lax.stop_gradient(itc.similarity_scale(encode, batch) * similar)


def mismatch(
    batch: Batch, key: jax.Array, closeness: Float[Array, "B K B"] | None = None
) -> tuple[Batch, Int32[Array, "B K"]]:
    """The batch with wrong pictures in about half of its rows, and which examples still match.

    A row of one picture (with one text or several) takes the image tokens of another such row, drawn by the mean of
    its texts' softmax over `closeness` (ALBEF, section 3.2), or evenly. In a row of several packed examples the
    pictures' segment numbers are rotated by a random step: each text sees another picture of its row and no token
    moves; not where an example of the row has none, which would tell. A row for which the batch holds no other picture
    keeps its own, and counts as a match. A picture's edges go with it. Words of regions, and edges between words and
    places, are left out everywhere: they are those of the right text, and would tell.
    """
    coin_key, row_key, shift_key = jax.random.split(key, 3)
    rows = batch.picture.shape[0]
    counts = jnp.max(jnp.where(batch.example_mask, batch.examples[..., 0], 0), axis=1)
    coin = jax.random.bernoulli(coin_key, 0.5, (rows,))

    other, can_swap = _other_rows(batch, counts == 1, row_key, closeness)
    swap = coin & can_swap
    source = jnp.where(swap, other, jnp.arange(rows))
    image = jax.tree.map(lambda x: x[source], batch.image)

    segments, can_rotate = _rotated(batch, counts, shift_key)
    rotate = coin & can_rotate
    image = dataclasses.replace(image, segments=jnp.where(rotate[:, None], segments, image.segments))
    image = dataclasses.replace(image, words=None) if isinstance(image, Regions) else image
    wrong = (swap | rotate)[:, None]
    targets = {**batch.targets, "edges": _edges(batch, source)} if "edges" in batch.targets else batch.targets
    return batch.replace(image=image, targets=targets), jnp.where(wrong, MISMATCH, MATCH) * jnp.ones_like(batch.picture)


def _other_rows(
    batch: Batch, single: Bool[Array, " B"], key: jax.Array, closeness: Float[Array, "B K B"] | None
) -> tuple[Int32[Array, " B"], Bool[Array, " B"]]:
    """For each row of one picture a random other one with another picture, and whether there is one."""
    picture, takes_part = batch.picture[:, 0], single & (batch.image.segments > 0).any(1)
    allowed = (picture[:, None] != picture[None, :]) & takes_part[:, None] & takes_part[None, :]
    noise = jax.random.uniform(key, allowed.shape, jnp.float32, minval=jnp.finfo(jnp.float32).tiny)
    if closeness is not None:
        # Gumbel's trick: the largest of log p - log(-log u) is a draw from p. Without p the order of u is the same.
        noise = _log_share(closeness, allowed, batch.example_mask) - jnp.log(-jnp.log(noise))
    return jax.lax.argmax(jnp.where(allowed, noise, -jnp.inf), 1, jnp.int32), allowed.any(1)


def _edges(batch: Batch, source: Int32[Array, " B"]) -> Int32[Array, "B F 2"]:
    """The edges of each row's text, and of the picture that it takes from row `source`."""
    edges, num_text = batch.targets["edges"], batch.text.ids.shape[1]
    of_text = (edges[..., :1] < num_text) & (edges[..., 1:] < num_text)
    of_image = (edges[..., :1] >= num_text) & ((edges[..., 1:] >= num_text) | (edges[..., 1:] == ALL))
    return jnp.concatenate([jnp.where(of_text, edges, NONE), jnp.where(of_image, edges, NONE)[source]], axis=1)


def _log_share(
    closeness: Float[Array, "B K B"], allowed: Bool[Array, "B B"], mask: Bool[Array, "B K"]
) -> Float[Array, "B B"]:
    """Log of the mean over a row's texts of their probabilities for the allowed pictures."""
    # Not -inf: a row for which nothing is allowed would give NaN.
    share = jax.nn.softmax(jnp.where(allowed[:, None], closeness, -1e30), axis=-1)
    mean = jnp.where(mask[..., None], share, 0).sum(1) / jnp.maximum(mask.sum(1), 1)[:, None]
    return jnp.log(mean)


def _rotated(batch: Batch, counts: Int32[Array, " B"], key: jax.Array) -> tuple[Int32[Array, "B N"], Bool[Array, " B"]]:
    """Image segments rotated by a random step among the row's segments, and whether every picture then differs."""
    size = jnp.maximum(counts, 1)
    shift = 1 + jax.random.randint(key, counts.shape, 0, jnp.maximum(counts - 1, 1), jnp.int32)

    def rotate(segments: Array, by: Array) -> Array:
        return jnp.where(segments > 0, (segments - 1 + by[:, None]) % size[:, None] + 1, 0)

    segments = batch.image.segments
    # Example k of segment s now sees the picture that had segment s - shift; pictures are looked up by segment.
    before = rotate(batch.examples[..., 0], -shift)
    same_segment = before[:, :, None] == batch.examples[:, None, :, 0]
    same_picture = batch.picture[:, :, None] == batch.picture[:, None, :]
    both = batch.example_mask[:, :, None] & batch.example_mask[:, None, :]
    clash = (same_segment & same_picture & both).any((1, 2))
    all_shown = (base.image_tokens_of(batch).any(-1) | ~batch.example_mask).all(1)
    return rotate(segments, shift), (counts > 1) & ~clash & all_shown
