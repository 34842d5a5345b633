"""Position encodings of text and image tokens. One function or module each; `embed.py` adds them to the content."""

from __future__ import annotations

import math

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float, Int32

from singlestream.batch import Array
from singlestream.model.config import ModelConfig
from singlestream.model.init import fourier_grid, initializer


def sinusoidal(positions: Float[Array, "*S"] | Int32[Array, "*S"], width: int) -> Float[Array, "*S D"]:
    """Sines and cosines of geometric frequencies (Vaswani et al. 2017, section 3.5): sines first, then cosines."""
    half = width // 2
    rates = jnp.exp(-math.log(10_000.0) * jnp.arange(half, dtype=jnp.float32) / half)
    angles = positions[..., None].astype(jnp.float32) * rates
    waves = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)
    return jnp.pad(waves, [(0, 0)] * (waves.ndim - 1) + [(0, width - 2 * half)])


def sincos_2d(yx: Int32[Array, "B N 2"], width: int) -> Float[Array, "B N D"]:
    """Half of the width for the row, half for the column (as in MoCo v3 and MAE)."""
    half = width // 2
    return jnp.concatenate([sinusoidal(yx[..., 0], half), sinusoidal(yx[..., 1], width - half)], axis=-1)


def interpolate_grid(
    table: Float[Array, "R C D"], yx: Int32[Array, "B N 2"], grid: Int32[Array, "B N 2"]
) -> Float[Array, "B N D"]:
    """The learned table, resized to each picture's own `grid`, at the patches `yx`.

    Bilinear between the centres of cells, as `jax.image.resize(method="linear", antialias=False)` does; a grid of the
    table's own size gives the table's rows exactly. Written as a product with interpolation weights, since the
    gradient of a gather is a scatter, which is slow.
    """
    rows, columns, _ = table.shape

    def weights(axis: int, size: int) -> Float[Array, "B N S"]:
        place = (yx[..., axis] + 0.5) * (size / jnp.maximum(grid[..., axis], 1)) - 0.5
        place = jnp.clip(place, 0, size - 1)[..., None]
        return jnp.maximum(0.0, 1.0 - jnp.abs(place - jnp.arange(size)))

    both = weights(0, rows)[..., :, None] * weights(1, columns)[..., None, :]
    both = both.reshape(*both.shape[:2], rows * columns).astype(table.dtype)
    return both @ table.reshape(rows * columns, -1)


def box_features(boxes: Float[Array, "B N 4"]) -> Float[Array, "B N 5"]:
    """(x0, y0, x1, y1, area) of boxes in [0, 1] (Unicoder-VL, Li et al. 2020, section 3.1)."""
    area = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    return jnp.concatenate([boxes, area[..., None]], axis=-1)


class LearnedGrid(nnx.Module):
    """A learned table [rows, columns, D] that serves pictures of any grid."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        rows, columns = config.image_grid
        if config.position_init == "fourier":
            table = fourier_grid(rngs.params(), rows, columns, config.width)
        else:
            table = initializer("position", config)(rngs.params(), (rows, columns, config.width))
        self.table = nnx.Param(table)

    def __call__(self, yx: Int32[Array, "B N 2"], grid: Int32[Array, "B N 2"]) -> Float[Array, "B N D"]:
        return interpolate_grid(self.table[...], yx, grid)
