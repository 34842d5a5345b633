"""q.k as it is (Luong et al. 2015, section 3.1)."""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from singlestream.batch import Array


def dot(q: Float[Array, "B H Q C"], k: Float[Array, "B H K C"]) -> Float[Array, "B H Q K"]:
    return jnp.einsum("bhqc,bhkc->bhqk", q, k)


class Score(nnx.Module):
    """`dot`; no parameters."""

    def __init__(self, num_heads: int, size: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        pass

    def __call__(self, q: Float[Array, "B H Q C"], k: Float[Array, "B H K C"]) -> Float[Array, "B H Q K"]:
        return dot(q, k)
