"""The best keys of each query, exactly: every score is computed, those of a stretch of queries at once."""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Bool, Float

from singlestream.batch import Array
from singlestream.model.attention.config import AttentionConfig
from singlestream.model.attention.plain import MASKED, Mask, Scores, weigh
from singlestream.model.attention.share import at_most, how_many
from singlestream.model.attention.turns import by_queries
from singlestream.model.visibility import Visibility


def topk(scores: Float[Array, "B H Q K"], mask: Mask, keep: float) -> Bool[Array, "B H Q K"]:
    """True for the `keep` visible keys of the highest scores of each query; of equal ones the first.

    Explicit sparse attention (Zhao et al. 2019, section 2: what is below the k-th score gets no weight).

    Args:
        keep: 1 or more, a number of keys; below 1, a share of the keys that a query sees, rounded up.
    """
    size = scores.shape[-1]
    masked = jax.lax.stop_gradient(jnp.where(mask, scores, MASKED))
    values, places = jax.lax.top_k(masked, at_most(keep, size))  # falling; of equal values the lower place comes first
    last = jnp.maximum(how_many(keep, mask.sum(-1, dtype=jnp.int32)) - 1, 0)[..., None]
    value, place = (jnp.take_along_axis(x, jnp.broadcast_to(last, (*x.shape[:-1], 1)), -1) for x in (values, places))
    return mask & ((masked > value) | ((masked == value) & (jnp.arange(size) <= place)))


class Selection(nnx.Module):
    """Softmax over the keys that `topk` keeps; no parameters.

    Queries take turns and are computed again for the gradient: of the matrix of scores there is never more than
    `turns.QUERIES` rows.
    """

    draws: ClassVar = False

    def __init__(self, config: AttentionConfig, num_heads: int, size: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.keep = config.keep

    def __call__(
        self,
        scores: Scores,
        q: Float[Array, "B H Q C"],
        k: Float[Array, "B H K C"],
        v: Float[Array, "B H K C"],
        visibility: Visibility,
        *,
        rate: float = 0.0,
        key: jax.Array | None = None,
        weights: bool = False,
    ) -> tuple[Float[Array, "B H Q C"], Float[Array, "B H Q K"] | None]:
        def read(q: Array, visibility: Visibility, key: jax.Array | None) -> tuple[Array, Array | None]:
            found = scores(q, k, visibility)
            kept = topk(found, visibility.mask()[:, None], self.keep)
            return weigh(found, v, kept, rate=rate, key=key, weights=weights)

        return by_queries(read, q, visibility, key=key)
