"""The element-wise product of two projections: a bilinear form of low rank."""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from singlestream.batch import Array
from singlestream.model.block import dense
from singlestream.model.config import ModelConfig


class Join(nnx.Module):
    """tanh(U t) * tanh(V v) (Kim et al. 2017, "Hadamard product for low-rank bilinear pooling", section 3.2)."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.text, self.image = (dense(config, config.width, config.width, rngs=rngs) for _ in range(2))

    def __call__(
        self, text: Float[Array, "B K D"], image: Float[Array, "B K D"]
    ) -> tuple[Float[Array, "B K D"], dict[str, Array]]:
        return jnp.tanh(self.text(text)) * jnp.tanh(self.image(image)), {}
