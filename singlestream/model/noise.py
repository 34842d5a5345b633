"""Dropout of numbers and of whole branches. A key of None switches either off."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Float

from singlestream.batch import Array


def dropout(x: Float[Array, ...], rate: float, key: jax.Array | None) -> Float[Array, ...]:
    """Inverted dropout (Srivastava et al. 2014); the identity where `key` is None."""
    if key is None or rate == 0.0:
        return x
    keep = jax.random.bernoulli(key, 1.0 - rate, x.shape)
    return jnp.where(keep, x / (1.0 - rate), 0).astype(x.dtype)


def drop_path(x: Float[Array, "B L D"], rate: Float[Array, ""], key: jax.Array | None) -> Float[Array, "B L D"]:
    """Stochastic depth (Huang et al. 2016): a row's whole branch is dropped, the others scaled up."""
    if key is None:
        return x
    keep = jax.random.bernoulli(key, 1.0 - rate, (x.shape[0], 1, 1))
    return jnp.where(keep, x / (1.0 - rate).astype(x.dtype), 0)


def split_off(key: jax.Array | None, wanted: bool) -> tuple[jax.Array | None, jax.Array | None]:
    """The key for all other noise, and one for this noise, where it is wanted.

    Where it is not, the first is the key itself: a model without this noise draws the same as if it did not exist.
    """
    if key is None or not wanted:
        return key, None
    rest, own = jax.random.split(key)
    return rest, own
