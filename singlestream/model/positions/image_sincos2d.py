"""Sines and cosines of a patch's row and column (as in MoCo v3 and MAE)."""

from __future__ import annotations

from typing import ClassVar

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float, Int32

from singlestream.batch import Array, Patches
from singlestream.model.config import ModelConfig
from singlestream.model.positions.text_sinusoidal import sinusoidal


def sincos_2d(yx: Int32[Array, "B N 2"], width: int) -> Float[Array, "B N D"]:
    """Half of the width for the row, half for the column."""
    half = width // 2
    return jnp.concatenate([sinusoidal(yx[..., 0], half), sinusoidal(yx[..., 1], width - half)], axis=-1)


class Position(nnx.Module):
    """`sincos_2d` of the patches' places."""

    reads: ClassVar = (Patches,)

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.width = config.width

    def __call__(self, image: Patches) -> Float[Array, "B N D"]:
        return sincos_2d(image.yx, self.width)
