"""One key a query, drawn from the softmax by Gumbel noise while the model is trained, the best one without a key."""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from singlestream.batch import Array
from singlestream.model.attention.choice import best, straight_through
from singlestream.model.attention.config import AttentionConfig
from singlestream.model.attention.plain import MASKED, Mask
from singlestream.model.attention.whole import OneKey


def gumbel(
    scores: Float[Array, "B H Q K"], mask: Mask, *, temperature: float, key: jax.Array | None
) -> Float[Array, "B H Q K"]:
    """Weights: 1 at the key of the highest score plus Gumbel noise g, a draw from the softmax of the scores.

    Their gradient is that of softmax((scores + g) / temperature): the straight-through Gumbel-softmax estimator (Jang
    et al. 2017, section 2.2; equation 2 for the softmax). Without a key there is no noise.
    """
    if key is not None:
        scores = scores + jax.random.gumbel(key, scores.shape, scores.dtype)
    # Masked after the division: what is masked stays finite at any temperature.
    share = jax.nn.softmax(jnp.where(mask, scores / temperature, MASKED), axis=-1)
    return straight_through(best(scores, mask), share)


class Selection(OneKey):
    """`gumbel` at the temperature of the settings."""

    draws: ClassVar = True

    def __init__(self, config: AttentionConfig, num_heads: int, size: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.temperature = config.temperature

    def choose(self, scores: Float[Array, "B H Q K"], mask: Mask, *, key: jax.Array | None) -> Float[Array, "B H Q K"]:
        return gumbel(scores, mask, temperature=self.temperature, key=key)
