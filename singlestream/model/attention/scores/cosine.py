"""cos(q, k) / tau, the temperature tau learned (Liu et al. 2022, Swin Transformer V2, equation 2)."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from singlestream.batch import Array
from singlestream.model.attention.scores.dot import dot

LEAST_TEMPERATURE, FIRST_TEMPERATURE = 0.01, 0.1  # the paper's bound, and the start in its code
TINY = 1e-12  # squared norm up to which a vector counts as 0: its cosine with any other is 0, and so is the gradient


def cosine(
    q: Float[Array, "B H Q C"], k: Float[Array, "B H K C"], temperature: Float[Array, " H"]
) -> Float[Array, "B H Q K"]:
    """In float32 or wider: a temperature of 0.01 makes a hundred times of what bfloat16 rounds away."""
    return dot(_unit(q), _unit(k)) / temperature[:, None, None]


def _unit(x: Float[Array, "B H L C"]) -> Float[Array, "B H L C"]:
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    squared = jnp.sum(x**2, -1, keepdims=True)
    return jnp.where(squared > TINY, x * jax.lax.rsqrt(jnp.maximum(squared, TINY)), 0)


class Score(nnx.Module):
    """`cosine` with a temperature of each head, at least 0.01; what is learned is the logarithm of 1 / tau."""

    def __init__(self, num_heads: int, size: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.log_scale = nnx.Param(jnp.full(num_heads, -math.log(FIRST_TEMPERATURE), dtype))

    def __call__(self, q: Float[Array, "B H Q C"], k: Float[Array, "B H K C"]) -> Float[Array, "B H Q K"]:
        bounded = jnp.minimum(self.log_scale[...], -math.log(LEAST_TEMPERATURE))
        return cosine(q, k, jnp.exp(-bounded))
