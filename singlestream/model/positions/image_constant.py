"""One position for every region: VisualBERT's, where none is aligned with a word (Li et al. 2019, section 3.2)."""

from __future__ import annotations

from typing import ClassVar

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from singlestream.batch import Array, Regions
from singlestream.model.block import param_dtype
from singlestream.model.config import ModelConfig
from singlestream.model.init import initializer


class Position(nnx.Module):
    """The first row of a table like the text's; the other rows are what a published file holds, and go back into it."""

    reads: ClassVar = (Regions,)

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        init = initializer("position", config)
        self.table = nnx.Param(init(rngs.params(), (config.max_text_length, config.width), param_dtype(config)))

    def __call__(self, image: Regions) -> Float[Array, "B N D"]:
        row = self.table[...][0]
        return jnp.broadcast_to(row, (*image.segments.shape, row.shape[-1]))
