"""Attention by the whole matrix of scores."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from singlestream.batch import Array
from singlestream.model.noise import dropout
from singlestream.model.visibility import Visibility

MASKED = -1e30  # finite, so that a query that sees nothing gives no NaN; exp() of it is 0 beside any visible score


# `module.Attention.scores`: scores [B, H, Q, K], in float32 or wider, of queries and keys [B, H, L, C].
Scores = Callable[[Array, Array, Visibility], Array]
Mask = Bool[Array, "B #H Q K"]


def plain(
    q: Float[Array, "B Q H C"],
    k: Float[Array, "B K H C"],
    v: Float[Array, "B K H C"],
    visibility: Visibility,
    *,
    rate: float = 0.0,
    key: jax.Array | None = None,
    weights: bool = False,
) -> tuple[Float[Array, "B Q H C"], Float[Array, "B H Q K"] | None]:
    """Softmax attention, with dropout of the weights; `q` comes scaled."""
    # Heads go before tokens, once: XLA on CPU then multiplies contiguous matrices (half the time of "bqhd,bkhd").
    q, k, v = (x.swapaxes(1, 2) for x in (q, k, v))
    scores = jnp.einsum("bhqc,bhkc->bhqk", q, k)
    scores = visibility.weigh_sizes(scores.astype(jnp.promote_types(scores.dtype, jnp.float32)))
    out, found = weigh(scores, v, visibility.mask()[:, None], rate=rate, key=key, weights=weights)
    return out.swapaxes(1, 2), found


def weigh(
    scores: Float[Array, "B H Q K"],
    v: Float[Array, "B H K C"],
    mask: Mask,
    *,
    rate: float = 0.0,
    key: jax.Array | None = None,
    weights: bool = False,
) -> tuple[Float[Array, "B H Q C"], Float[Array, "B H Q K"] | None]:
    """The mean of the values, weighed by the softmax of the scores where the mask is True.

    The product comes out in the values' dtype; the softmax, and the division by the sum, run in that of the scores.
    """
    scores = jnp.where(mask, scores, MASKED)
    # The division by the sum comes after the product with the values, where there are C columns and not L.
    exps = jnp.exp(scores - jax.lax.stop_gradient(scores.max(-1, keepdims=True)))
    total = exps.sum(-1, keepdims=True)
    exps = dropout(exps, rate, key)  # after the sum: a weight that is dropped leaves the others as they are
    out = jnp.einsum("bhqk,bhkc->bhqc", exps.astype(v.dtype), v) / total
    return out.astype(v.dtype), (exps / total if weights else None)
