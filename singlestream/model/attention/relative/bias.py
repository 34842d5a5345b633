"""A learned number for how far apart two tokens are, of each head, added to their score.

Words of one text: by T5's buckets of the distance (Raffel et al. 2020, section 2.1). Patches of one picture: by the
buckets of both rows and columns between them, a table (Wu et al. 2021, the product method; Swin's table, Liu et al.
2021, equation 4, where the distances are short). Any other pair has no distance: one number for the modalities of query
and key, so that a head can prefer the picture, or its own text, as a whole.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float, Int32

from singlestream.batch import Array
from singlestream.model.attention.apart import apart
from singlestream.model.visibility import Visibility, side_of

BUCKETS, FARTHEST = 32, 128  # T5's: half of the buckets for either sign; from 128 on all is one
MODALITIES = 3  # text, image (and audio, on its side), extra


def bucket(distance: Int32[Array, "*S"]) -> Int32[Array, "*S"]:
    """T5's bucket of a signed distance: its own for each up to 7, then ever wider ones, the same again if positive."""
    half = BUCKETS // 2
    steps = np.arange(1, FARTHEST + 1)
    exact = half // 2
    wide = exact + np.floor(np.log(steps / exact) / np.log(FARTHEST / exact) * (half - exact) + 1e-9).astype(int)
    of = np.concatenate([[0], np.where(steps < exact, steps, np.minimum(wide, half - 1))]).astype(np.int32)
    return jnp.where(distance > 0, half, 0) + jnp.take(of, jnp.minimum(jnp.abs(distance), FARTHEST))


def bucket_pairs(visibility: Visibility) -> Int32[Array, "B Q K"]:
    """The number of each pair in the table: words by distance, then patches by rows and columns, then all others."""
    pairs = apart(visibility)
    patches = BUCKETS + BUCKETS * bucket(pairs.row) + bucket(pairs.column)
    own, read = side_of(visibility.modality), side_of(visibility.read.modality)
    modalities = MODALITIES * own[:, :, None] + read[:, None]
    others = BUCKETS + BUCKETS**2 + modalities
    return jnp.where(pairs.in_text, bucket(pairs.place), jnp.where(pairs.in_picture, patches, others))


class Relative(nnx.Module):
    """The table, [H, pairs], 0 at the start. Where images are regions, the part for patches is there and unread."""

    def __init__(self, num_heads: int, size: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.table = nnx.Param(jnp.zeros((num_heads, BUCKETS + BUCKETS**2 + MODALITIES**2), dtype))

    def __call__(
        self,
        score: Callable[[Array, Array], Array],
        q: Float[Array, "B H Q C"],
        k: Float[Array, "B H K C"],
        visibility: Visibility,
    ) -> Float[Array, "B H Q K"]:
        scores = score(q, k)
        bias = jnp.moveaxis(jnp.take(self.table[...], bucket_pairs(visibility), axis=1), 0, 1)
        return scores + bias.astype(scores.dtype)
