"""Do two maps say the same: of two runs, which should agree, or of a model and its wreck, which should not."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from singlestream.batch import Array


def rank_correlation(a: Float[Array, "*S N"], b: Float[Array, "*S N"], own: Bool[Array, "*S N"]) -> Float[Array, "*S"]:
    """Spearman's correlation of each pair of maps over the tokens that count, ties by their mean rank.

    0 where a map is constant or has fewer than two tokens.
    """
    first, second = (_centred_ranks(each, own) for each in (a, b))
    size = jnp.sqrt(jnp.square(first).sum(-1) * jnp.square(second).sum(-1))
    return (first * second).sum(-1) / jnp.where(size > 0, size, 1)


def _centred_ranks(values: Array, own: Array) -> Array:
    pairs = own[..., :, None] & own[..., None, :]
    less = (values[..., None, :] < values[..., :, None]) & pairs
    equal = (values[..., None, :] == values[..., :, None]) & pairs
    ranks = less.sum(-1) + equal.sum(-1) / 2
    mean = jnp.where(own, ranks, 0).sum(-1, keepdims=True) / jnp.maximum(own.sum(-1, keepdims=True), 1)
    return jnp.where(own, ranks - mean, 0)


def scrambled(params: Any, key: jax.Array) -> Any:
    """The same parameters with the numbers of each array in random order: nothing that was learned is left.

    For the test of Adebayo et al. 2018 (section 3): a map that stays the same does not show what the model knows. They
    draw parameters anew; an order keeps the sizes, so that the scrambled model computes in the same range.
    """
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    mixed = [jax.random.permutation(k, x.reshape(-1)).reshape(x.shape) for k, x in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(tree, mixed)
