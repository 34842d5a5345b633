"""v tanh(Wq q + Wk k) (Bahdanau et al. 2015, appendix A.1.2), the three of each head."""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from singlestream.batch import Array


def additive(
    q: Float[Array, "B H Q C"],
    k: Float[Array, "B H K C"],
    kernel: Float[Array, "C 2 H C"],
    readout: Float[Array, "H C"],
) -> Float[Array, "B H Q K"]:
    """`kernel` holds Wq and Wk, `readout` v. Time and memory are C times those of a product: each pair has a tanh."""
    kernel, readout = kernel.astype(q.dtype), readout.astype(q.dtype)
    asks = jnp.einsum("bhqc,chd->bhqd", q, kernel[:, 0])
    offers = jnp.einsum("bhkc,chd->bhkd", k, kernel[:, 1])
    return jnp.einsum("bhqkd,hd->bhqk", jnp.tanh(asks[:, :, :, None] + offers[:, :, None]), readout)


class Score(nnx.Module):
    """`additive`."""

    def __init__(self, num_heads: int, size: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        matrix = nnx.initializers.xavier_uniform(in_axis=0, batch_axis=(1, 2))
        # Axes between inputs and outputs count matrices, as weight decay and Muon expect of a `kernel`.
        self.kernel = nnx.Param(matrix(rngs.params(), (size, 2, num_heads, size), dtype))
        self.readout = nnx.Param(nnx.initializers.normal(size**-0.5)(rngs.params(), (num_heads, size), dtype))

    def __call__(self, q: Float[Array, "B H Q C"], k: Float[Array, "B H K C"]) -> Float[Array, "B H Q K"]:
        return additive(q, k, self.kernel[...], self.readout[...])
