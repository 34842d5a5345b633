"""Sines and cosines of a token's place modulo a period (Fan et al. 2022, FaceFormer, section 3.2)."""

from __future__ import annotations

from typing import ClassVar

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from singlestream.batch import Array, Text
from singlestream.model.config import ModelConfig
from singlestream.model.positions.text_sinusoidal import sinusoidal


class Position(nnx.Module):
    """`sinusoidal` of `Text.positions` modulo `config.text_period`.

    Looked up in the rows of one period: the same word one period on gets the same vector, to the last bit.
    """

    reads: ClassVar = (Text,)

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.width, self.period = config.width, config.text_period

    def __call__(self, text: Text) -> Float[Array, "B T D"]:
        period = sinusoidal(jnp.arange(self.period, dtype=jnp.int32), self.width)
        return jnp.take(period, text.positions % self.period, axis=0)
