"""Where a region lies, in seven numbers: its box, sides and area (UNITER, Chen et al. 2020, section 3.1)."""

from __future__ import annotations

from typing import ClassVar

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from singlestream.batch import Array, Regions
from singlestream.model.block import dense
from singlestream.model.config import ModelConfig


def box_features(boxes: Float[Array, "B N 4"]) -> Float[Array, "B N 7"]:
    """(x0, y0, x1, y1, width, height, area) of boxes in [0, 1]."""
    sides = boxes[..., 2:] - boxes[..., :2]
    return jnp.concatenate([boxes, sides, sides[..., :1] * sides[..., 1:]], axis=-1)


class Position(nnx.Module):
    """A projection of `box_features`."""

    reads: ClassVar = (Regions,)

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.project = dense(config, 7, config.width, rngs=rngs)

    def __call__(self, image: Regions) -> Float[Array, "B N D"]:
        return self.project(box_features(image.boxes))
