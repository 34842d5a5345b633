"""q.k / sqrt(C) (Vaswani et al. 2017, equation 1)."""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from singlestream.batch import Array
from singlestream.model.attention.scores.dot import dot


def scaled_dot(q: Float[Array, "B H Q C"], k: Float[Array, "B H K C"]) -> Float[Array, "B H Q K"]:
    return dot(q * jnp.asarray(q.shape[-1] ** -0.5, q.dtype), k)


class Score(nnx.Module):
    """`scaled_dot`; no parameters."""

    def __init__(self, num_heads: int, size: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        pass

    def __call__(self, q: Float[Array, "B H Q C"], k: Float[Array, "B H K C"]) -> Float[Array, "B H Q K"]:
        return scaled_dot(q, k)
