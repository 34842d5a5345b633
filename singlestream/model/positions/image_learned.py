"""A learned table over the picture's grid, resized to each picture (ViT)."""

from __future__ import annotations

from typing import ClassVar

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float, Int32

from singlestream.batch import Array, Patches
from singlestream.model.block import param_dtype
from singlestream.model.config import ModelConfig
from singlestream.model.init import fourier_grid, initializer


def interpolate_grid(
    table: Float[Array, "R C D"], yx: Int32[Array, "B N 2"], grid: Int32[Array, "B N 2"], *, resize: str
) -> Float[Array, "B N D"]:
    """The learned table, resized to each picture's own `grid`, at the patches `yx`; bilinear.

    `centres`: between the centres of cells, as `jax.image.resize(method="linear", antialias=False)` does; `corners`:
    the table's corners stay corners, as torch's `interpolate(mode="bilinear", align_corners=True)` does. A grid of the
    table's own size gives the table's rows exactly. Written as a product with interpolation weights, since the
    gradient of a gather is a scatter, which is slow.
    """
    rows, columns, _ = table.shape

    def weights(axis: int, size: int) -> Float[Array, "B N S"]:
        here, cells = yx[..., axis].astype(table.dtype), grid[..., axis].astype(table.dtype)
        if resize == "corners":
            place = here * ((size - 1) / jnp.maximum(cells - 1, 1))
        else:
            place = (here + 0.5) * (size / jnp.maximum(cells, 1)) - 0.5
        place = jnp.clip(place, 0, size - 1)[..., None]
        return jnp.maximum(0.0, 1.0 - jnp.abs(place - jnp.arange(size)))

    both = weights(0, rows)[..., :, None] * weights(1, columns)[..., None, :]
    both = both.reshape(*both.shape[:2], rows * columns).astype(table.dtype)
    return both @ table.reshape(rows * columns, -1)


class Position(nnx.Module):
    """A learned table [rows, columns, D] that serves pictures of any grid."""

    reads: ClassVar = (Patches,)

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        rows, columns = config.image_grid
        self.resize = config.position_resize
        if config.position_init == "fourier":
            table = fourier_grid(rngs.params(), rows, columns, config.width).astype(param_dtype(config))
        else:
            table = initializer("position", config)(rngs.params(), (rows, columns, config.width), param_dtype(config))
        self.table = nnx.Param(table)

    def __call__(self, image: Patches) -> Float[Array, "B N D"]:
        return interpolate_grid(self.table[...], image.yx, image.grid, resize=self.resize)
