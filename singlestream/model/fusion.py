"""One vector an example from two streams."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Bool, Float, Int32

from singlestream.batch import Array, Batch, Patches, Regions
from singlestream.model.block import dense
from singlestream.model.cross import Streams
from singlestream.model.joins import build_join
from singlestream.model.pooling import image_tokens_of, tokens_of
from singlestream.model.two_stream_config import TwoStreamConfig


def first_region(image: Patches | Regions, examples: Int32[Array, "B K 2"]) -> Bool[Array, "B K N"]:
    """True at the first region that an example sees: of its segment, and of its part or shared by all parts."""
    own = image_tokens_of(image, examples)
    return own & (jnp.cumsum(own, axis=-1) == 1)


class Fusion(nnx.Module):
    """`fusion="none"`: the text's first state, a projection, tanh (LXMERT).

    `product`, `sum`: the first states of text and image (ViLBERT puts the picture as a whole there), a projection and
    ReLU each, multiplied or added (Lu et al. 2019, section 3.1 and the authors' `fusion_method`). Any other name is a
    join of these two vectors (`joins`).
    """

    def __init__(self, config: TwoStreamConfig, *, rngs: nnx.Rngs):
        self.kind, width = config.fusion, config.pooled_width
        self.text = dense(config.text_side, config.width, width, rngs=rngs)
        both = config.fusion != "none"
        self.image = dense(config.image_side, config.image_width, width, rngs=rngs) if both else None
        joined = self.kind not in ("none", "product", "sum")
        self.join = build_join(dataclasses.replace(config.pooled_side, join=self.kind), rngs=rngs) if joined else None

    def __call__(self, states: Streams, batch: Batch) -> tuple[Float[Array, "B K D"], dict[str, Array]]:
        """The vector of each example, and what else a join tells."""
        first = tokens_of(batch.text, batch.examples) & (batch.text.positions[:, None, :] == 0)
        text = self.text(_take(first, states.text))
        if self.kind == "none":
            return jnp.tanh(text), {}
        image = self.image(_take(first_region(batch.image, batch.examples), states.image))
        text, image = jax.nn.relu(text), jax.nn.relu(image)
        if self.join is not None:
            return self.join(text, image)
        return (text * image if self.kind == "product" else text + image), {}


def _take(chosen: Bool[Array, "B K N"], states: Float[Array, "B N D"]) -> Float[Array, "B K D"]:
    return jnp.einsum("bkn,bnd->bkd", chosen.astype(states.dtype), states)
