"""Merging of alike tokens: bipartite soft matching (Bolya et al. 2023, ToMe, section 3)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int32

from singlestream.batch import Array
from singlestream.model.pruning.choose import best

BITS = 16  # of a token's number


def first_set(
    number: Int32[Array, "B N"], among: Bool[Array, "B N N"], count: Int32[Array, "B N"]
) -> Bool[Array, "B N"]:
    """Tokens of the first of the two sets into which each segment's tokens fall: those of even numbers.

    By their own numbers, so that with one token less the others stay in their sets. Where too few of even number are
    left, since earlier mergings took them, odd ones join, in van der Corput's order: 1, 5, 9, ... come first.

    Args:
        number: of a token in its example, below 2^16, whatever lies beside it.
        among: pairs of tokens of one segment.
        count: for each token, how many of its segment go into others; at least one other is left for them.
    """
    order = sum(((number >> bit) & 1) * 0.5 ** (bit + 1) for bit in range(BITS))
    order = jax.lax.optimization_barrier(order)  # else XLA computes it anew for every pair of tokens
    even = (among & (number % 2 == 0)[:, None]).sum(-1, dtype=jnp.int32)
    others = jnp.maximum(among.sum(-1, dtype=jnp.int32) - 1, 0)
    return best(-order, among, jnp.clip(even, count, others))


def match(
    keys: Float[Array, "B N C"], among: Bool[Array, "B N N"], first: Bool[Array, "B N"], count: Int32[Array, "B N"]
) -> Int32[Array, "B N"]:
    """The token that each token goes into; itself for one that stays.

    Each of the first set finds the one of the second whose key is the most alike (cosine), and the `count` pairs that
    are the most alike are merged.

    Args:
        keys: of a token in the layer, the mean over heads.
        among: pairs of tokens of one segment.
        first: the tokens of the first set (`first_set`).
        count: for each token, how many of its segment go.
    """
    number = jnp.arange(keys.shape[1], dtype=jnp.int32)
    keys = keys.astype(jnp.promote_types(keys.dtype, jnp.float32))
    unit = keys / jnp.maximum(jnp.linalg.norm(keys, axis=-1, keepdims=True), 1e-12)
    alike = jnp.where(among & ~first[:, None], jnp.einsum("bnc,bmc->bnm", unit, unit), -jnp.inf)
    goes = first & best(alike.max(-1), among & first[:, None], count)
    return jnp.where(goes, alike.argmax(-1).astype(jnp.int32), number)


def merge(
    x: Float[Array, "B N D"], size: Float[Array, "B N"], into: Int32[Array, "B N"]
) -> tuple[Float[Array, "B N D"], Float[Array, "B N"]]:
    """The mean of what goes into each token, weighed by how many tokens each stands for, and how many it then does.

    A token that went into another one has size 0, and what is in its place does not count.
    """
    goes = (into[:, :, None] == jnp.arange(x.shape[1])).astype(size.dtype) * size[:, :, None]
    total = goes.sum(1)
    mean = jnp.einsum("bnm,bnd->bmd", goes, x.astype(size.dtype)) / jnp.maximum(total, 1)[..., None]
    return mean.astype(x.dtype), total
