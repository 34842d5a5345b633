"""Attention of a stretch of the queries after the other, so that the matrix of scores is never whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from singlestream.batch import Array
from singlestream.model.visibility import Visibility

QUERIES = 256  # in a stretch


def split(x: Array, axis: int, size: int) -> Array:
    """Stretches of `size`, at most all, along an axis, on a new first one; the last is filled with what comes last."""
    length = x.shape[axis]
    size = min(size, length)
    index = jnp.minimum(jnp.arange(-(-length // size) * size), length - 1)
    x = jnp.take(x, index, axis=axis) if len(index) > length else x
    return jnp.moveaxis(x.reshape(*x.shape[:axis], -1, size, *x.shape[axis + 1 :]), axis, 0)


def join(x: Array, axis: int, length: int) -> Array:
    """What `split` divided, the filling left out."""
    x = jnp.moveaxis(x, 0, axis)
    x = x.reshape(*x.shape[:axis], -1, *x.shape[axis + 2 :])
    return jax.lax.slice_in_dim(x, 0, length, axis=axis)


def in_turn(step: Callable[..., Any], *inputs: Any, key: jax.Array | None) -> Any:
    """`step(*inputs, key=...)` for each entry of the inputs' first axis, one after the other.

    For the gradient each is computed again: what is kept between the ways is that of one step.
    """

    def numbered(entry: tuple[Array, Any]) -> Any:
        number, each = entry
        return step(*each, key=None if key is None else jax.random.fold_in(key, number))

    entries = (jnp.arange(len(inputs[0])), inputs)
    if len(inputs[0]) == 1:  # no loop, which would only cost time to compile
        return jax.tree.map(lambda x: x[None], numbered(jax.tree.map(lambda x: x[0], entries)))
    return jax.lax.map(jax.checkpoint(numbered, prevent_cse=False), entries)


def by_queries(
    read: Callable[..., tuple[Array, Array | None]],
    q: Float[Array, "B H Q C"],
    visibility: Visibility,
    *,
    key: jax.Array | None,
) -> tuple[Float[Array, "B H Q C"], Float[Array, "B H Q K"] | None]:
    """`read(q, visibility, key=...)` -> (out, weights or None), for `QUERIES` of them at once."""
    length = q.shape[2]

    def step(queries: Array, numbers: Array, key: jax.Array | None) -> tuple[Array, Array | None]:
        return read(queries, visibility.each(lambda x: jnp.take(x, numbers, axis=1)).towards(visibility.read), key=key)

    found = in_turn(step, split(q, 2, QUERIES), split(jnp.arange(length), 0, QUERIES), key=key)
    return jax.tree.map(lambda x: join(x, 2, length), found)
