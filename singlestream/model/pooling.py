"""One vector an example, also where a row holds several."""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Bool, Float, Int32

from singlestream.batch import Array, Patches, Regions, Text
from singlestream.model.block import dense
from singlestream.model.config import ModelConfig


def tokens_of(text: Text, examples: Int32[Array, "B K 2"]) -> Bool[Array, "B K T"]:
    """True where a text token belongs to an example, that is to its (segment, part)."""
    segment = text.segments[:, None, :] == examples[:, :, :1]
    part = text.part[:, None, :] == examples[:, :, 1:]
    return segment & part & (text.segments[:, None, :] != 0)


def image_tokens_of(image: Patches | Regions, examples: Int32[Array, "B K 2"]) -> Bool[Array, "B K N"]:
    """True where an image token belongs to an example: of its segment, and of its part or of all parts."""
    segment = image.segments[:, None, :] == examples[:, :, :1]
    part = (image.part[:, None, :] == 0) | (image.part[:, None, :] == examples[:, :, 1:])
    return segment & part & (image.segments[:, None, :] != 0)


def mean_image(
    states: Float[Array, "B N D"], image: Patches | Regions, examples: Int32[Array, "B K 2"]
) -> Float[Array, "B K D"]:
    """The mean of the states of an example's image tokens; 0 where it has none."""
    weights = image_tokens_of(image, examples).astype(states.dtype)
    return jnp.einsum("bkn,bnd->bkd", weights, states) / jnp.maximum(weights.sum(-1, keepdims=True), 1)


class Pooler(nnx.Module):
    """`cls`: the state of an example's first text token; `mean`: the mean over its text tokens; then BERT's layer."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.kind = config.pooling
        self.dense = dense(config, config.width, config.width, rngs=rngs) if config.pooler else None

    def __call__(
        self, states: Float[Array, "B T D"], text: Text, examples: Int32[Array, "B K 2"]
    ) -> Float[Array, "B K D"]:
        chosen = tokens_of(text, examples)
        if self.kind == "cls":
            chosen &= text.positions[:, None, :] == 0
        weights = chosen.astype(states.dtype)
        pooled = jnp.einsum("bkt,btd->bkd", weights, states)
        if self.kind == "mean":
            pooled = pooled / jnp.maximum(weights.sum(-1, keepdims=True), 1)
        return pooled if self.dense is None else jnp.tanh(self.dense(pooled))


def second_last(states: Float[Array, "B T D"], text: Text, examples: Int32[Array, "B K 2"]) -> Float[Array, "B K D"]:
    """The state of an example's last token but one: the [MASK] between question and [SEP] that VisualBERT answers from.

    (Li et al. 2019, section 4.1; their code and transformers take the token at the text's length - 2.)
    """
    own = tokens_of(text, examples)
    rank = jnp.cumsum(own, axis=-1)
    chosen = own & (rank == own.sum(-1, keepdims=True) - 1)
    return jnp.einsum("bkt,btd->bkd", chosen.astype(states.dtype), states)
