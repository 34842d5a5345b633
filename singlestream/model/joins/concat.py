"""Side by side, through one layer: the common baseline of visual question answering."""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from singlestream.batch import Array
from singlestream.model.block import ACTIVATIONS, dense
from singlestream.model.config import ModelConfig


class Join(nnx.Module):
    """activation(W [t; v])."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.activation = config.activation
        self.both = dense(config, 2 * config.width, config.width, rngs=rngs)

    def __call__(
        self, text: Float[Array, "B K D"], image: Float[Array, "B K D"]
    ) -> tuple[Float[Array, "B K D"], dict[str, Array]]:
        return ACTIVATIONS[self.activation](self.both(jnp.concatenate([text, image], axis=-1))), {}
