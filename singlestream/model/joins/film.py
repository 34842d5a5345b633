"""Feature-wise linear modulation: the text says how each number of the picture is scaled and shifted."""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from singlestream.batch import Array
from singlestream.model.block import dense
from singlestream.model.config import ModelConfig


class Join(nnx.Module):
    """gamma v + beta, with gamma = 1 + U t and beta = V t (Perez et al. 2018, equations 1 and 2).

    Here of the picture's pooled vector, where the authors modulate feature maps; the 1 keeps the picture's numbers
    alive while U is small, as in their own models.
    """

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.modulate = dense(config, config.width, 2 * config.width, rngs=rngs)

    def __call__(
        self, text: Float[Array, "B K D"], image: Float[Array, "B K D"]
    ) -> tuple[Float[Array, "B K D"], dict[str, Array]]:
        change, shift = jnp.split(self.modulate(text), 2, axis=-1)
        return (1 + change) * image + shift, {}
