"""A gated multimodal unit: each number comes from text and picture in shares of its own."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from singlestream.batch import Array
from singlestream.model.block import dense
from singlestream.model.config import ModelConfig


class Join(nnx.Module):
    """z tanh(U t) + (1 - z) tanh(V v), with z = sigmoid(W [t; v]) (Arevalo et al. 2017, section 3.1, two modalities).

    The weights are the means of z and 1 - z over their D numbers.
    """

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.text, self.image = (dense(config, config.width, config.width, rngs=rngs) for _ in range(2))
        self.gate = dense(config, 2 * config.width, config.width, rngs=rngs)

    def __call__(
        self, text: Float[Array, "B K D"], image: Float[Array, "B K D"]
    ) -> tuple[Float[Array, "B K D"], dict[str, Array]]:
        gate = jax.nn.sigmoid(self.gate(jnp.concatenate([text, image], axis=-1)))
        pooled = gate * jnp.tanh(self.text(text)) + (1 - gate) * jnp.tanh(self.image(image))
        share = gate.mean(-1)
        return pooled, {"modality_weights": jnp.stack([share, 1 - share], axis=-1)}
