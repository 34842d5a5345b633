"""Scaled dot-product attention (Vaswani et al. 2017, equation 1) and the choice of how it is computed."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Float

from singlestream.batch import Array
from singlestream.model.attention.plain import plain
from singlestream.model.attention.slotted import is_slotted, slotted
from singlestream.model.visibility import Visibility


def attend(
    q: Float[Array, "B Q H C"],
    k: Float[Array, "B K H C"],
    v: Float[Array, "B K H C"],
    visibility: Visibility,
    *,
    implementation: str = "auto",
    rate: float = 0.0,
    key: jax.Array | None = None,
    weights: bool = False,
) -> tuple[Float[Array, "B Q H C"], Float[Array, "B H Q K"] | None]:
    """Attention of a stream to itself, or to another (`Visibility.towards`).

    Args:
        q, k, v: queries, keys, values of H heads.
        visibility: who sees whom. A query that sees nothing (padding) gets an arbitrary finite vector.
        implementation: `plain` builds the whole matrix; `auto` takes the slotted path where the batch's layout
            allows it, the plain one elsewhere.
        rate: of dropout of the weights, which are no longer a mean then (as in Vaswani et al.'s and BERT's code).
        key: of that dropout; None switches it off.
        weights: also return the attention weights, as they were applied; takes the plain path.
    """
    q = q * jnp.asarray(q.shape[-1] ** -0.5, q.dtype)
    own = visibility.keys is None
    if own and not weights and is_slotted(implementation, visibility.direction, visibility.slots):
        return slotted(q, k, v, visibility, rate=rate, key=key), None
    return plain(q, k, v, visibility, rate=rate, key=key, weights=weights)


def split_heads(x: Float[Array, "B L D"], num_heads: int) -> Float[Array, "B L H C"]:
    return x.reshape(*x.shape[:2], num_heads, -1)


def merge_heads(x: Float[Array, "B L H C"]) -> Float[Array, "B L D"]:
    return jax.lax.collapse(x, 2)
