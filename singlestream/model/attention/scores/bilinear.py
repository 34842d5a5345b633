"""q W k / sqrt(C), a matrix W of each head (Luong et al. 2015, section 3.1, "general"; scaled as the dot product)."""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from singlestream.batch import Array
from singlestream.model.attention.scores.scaled_dot import scaled_dot


def bilinear(
    q: Float[Array, "B H Q C"], k: Float[Array, "B H K C"], kernel: Float[Array, "C H C"]
) -> Float[Array, "B H Q K"]:
    return scaled_dot(jnp.einsum("bhqc,chd->bhqd", q, kernel.astype(q.dtype)), k)


class Score(nnx.Module):
    """`bilinear`; W starts as the identity, which is the scaled dot product."""

    def __init__(self, num_heads: int, size: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        # Heads between inputs and outputs, as weight decay and Muon expect the axes of a `kernel`.
        identity = jnp.broadcast_to(jnp.eye(size, dtype=dtype)[:, None], (size, num_heads, size))
        self.kernel = nnx.Param(identity)

    def __call__(self, q: Float[Array, "B H Q C"], k: Float[Array, "B H K C"]) -> Float[Array, "B H Q K"]:
        return bilinear(q, k, self.kernel[...])
