"""A learned vector for each place in a text (BERT)."""

from __future__ import annotations

from typing import ClassVar

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from singlestream.batch import Array, Text
from singlestream.model.block import param_dtype
from singlestream.model.config import ModelConfig
from singlestream.model.init import initializer


class Position(nnx.Module):
    """A table [max_text_length, D]."""

    reads: ClassVar = (Text,)

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        shape = (config.max_text_length, config.width)
        self.embedding = nnx.Param(initializer("position", config)(rngs.params(), shape, param_dtype(config)))

    def __call__(self, text: Text) -> Float[Array, "B T D"]:
        return jnp.take(self.embedding[...], text.positions, axis=0)
