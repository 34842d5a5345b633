"""A 3 x 3 convolution over each picture's grid of patches."""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Bool, Float, Int32

from singlestream.batch import Array
from singlestream.model.block import ACTIVATIONS, dense
from singlestream.model.config import ModelConfig
from singlestream.model.one_branch import OneBranch
from singlestream.model.visibility import Visibility

OFFSETS = tuple((y, x) for y in (-1, 0, 1) for x in (-1, 0, 1))


def neighbours(visibility: Visibility) -> tuple[Int32[Array, "B N 9"], Bool[Array, "B N 9"]]:
    """The tokens at the nine places around each patch, row by row, and whether there is one.

    A neighbour is of the same example and picture, wherever in the row it lies.
    """
    where = visibility.where
    assert where is not None
    same = (visibility.segments[:, :, None] == visibility.segments[:, None]) & (visibility.segments != 0)[:, None]
    same &= visibility.part[:, :, None] == visibility.part[:, None]
    same &= where[:, :, None, 0] == where[:, None, :, 0]
    step = where[:, None, :, 1:] - where[:, :, None, 1:]
    at = [same & (step == jnp.array(offset, jnp.int32)).all(-1) for offset in OFFSETS]
    return (
        jnp.stack([found.argmax(-1) for found in at], axis=-1).astype(jnp.int32),
        jnp.stack([found.any(-1) for found in at], axis=-1),
    )


class Layer(OneBranch):
    """`x + conv(activation(LN x))`: a residual layer in pre-activation form (He et al. 2016), zeros around the picture.

    LayerNorm stands in for batch normalisation, by which an example would depend on its batch.
    """

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        super().__init__(config, rngs=rngs)
        self.activation = config.activation
        self.conv = dense(config, len(OFFSETS) * config.width, config.width, rngs=rngs)

    def branch(self, x: Float[Array, "B N D"], visibility: Visibility) -> Float[Array, "B N D"]:
        index, there = neighbours(visibility)
        (rows, tokens, places), width = index.shape, x.shape[-1]
        x = ACTIVATIONS[self.activation](x)
        found = jnp.take_along_axis(x, index.reshape(rows, tokens * places, 1), axis=1)
        found = jnp.where(there[..., None], found.reshape(rows, tokens, places, width), 0)
        return self.conv(found.reshape(rows, tokens, places * width))
