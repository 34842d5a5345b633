"""Weights of the two modalities, made for each example from both."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from singlestream.batch import Array
from singlestream.model.block import dense
from singlestream.model.config import ModelConfig


class Join(nnx.Module):
    """a U t + (1 - a) V v, with (a, 1 - a) = softmax(W [t; v]): two experts and a gating network (Jacobs et al. 1991).

    One number an example, where the gated unit has one for each of D.
    """

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.text, self.image = (dense(config, config.width, config.width, rngs=rngs) for _ in range(2))
        self.gate = dense(config, 2 * config.width, 2, rngs=rngs)

    def __call__(
        self, text: Float[Array, "B K D"], image: Float[Array, "B K D"]
    ) -> tuple[Float[Array, "B K D"], dict[str, Array]]:
        scores = self.gate(jnp.concatenate([text, image], axis=-1))
        weights = jax.nn.softmax(scores.astype(jnp.promote_types(scores.dtype, jnp.float32)), axis=-1)
        shares = weights.astype(text.dtype)
        pooled = shares[..., :1] * self.text(text) + shares[..., 1:] * self.image(image)
        return pooled, {"modality_weights": weights}
