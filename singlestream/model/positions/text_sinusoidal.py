"""Sines and cosines of a token's place (Vaswani et al. 2017, section 3.5)."""

from __future__ import annotations

import math
from typing import ClassVar

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float, Int32

from singlestream.batch import Array, Text
from singlestream.model.config import ModelConfig


def sinusoidal(
    positions: Float[Array, "*S"] | Int32[Array, "*S"], width: int, base: float = 10_000.0
) -> Float[Array, "*S D"]:
    """Sines and cosines of geometric frequencies, from 1 to 1 / `base`: sines first, then cosines."""
    half = width // 2
    rates = jnp.exp(-math.log(base) * jnp.arange(half, dtype=jnp.float32) / half)
    angles = positions[..., None].astype(jnp.float32) * rates
    waves = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)
    return jnp.pad(waves, [(0, 0)] * (waves.ndim - 1) + [(0, width - 2 * half)])


class Position(nnx.Module):
    """`sinusoidal` of `Text.positions`."""

    reads: ClassVar = (Text,)

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.width = config.width

    def __call__(self, text: Text) -> Float[Array, "B T D"]:
        return sinusoidal(text.positions, self.width)
