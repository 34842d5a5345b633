"""Layers in which two streams read each other: LXMERT's with one attention for both directions, ViLBERT's with two."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from singlestream.batch import Array
from singlestream.model.block import Block, FeedForward, dense, layer_norm
from singlestream.model.config import ModelConfig
from singlestream.model.cross_attention import CrossAttention
from singlestream.model.noise import dropout, split_off
from singlestream.model.two_stream_config import TwoStreamConfig
from singlestream.model.visibility import Visibility

Weights = dict[str, Array]  # attention weights of one layer by name; empty where nobody asked


class Streams(NamedTuple):
    """The states of both streams."""

    text: Float[Array, "B T Dt"]
    image: Float[Array, "B N Di"]


class Sees(NamedTuple):
    """Who sees whom, within each stream and across, by the names of attention weights."""

    text: Visibility
    image: Visibility
    text_to_image: Visibility
    image_to_text: Visibility


class ResidualCross(CrossAttention):
    """One stream reads the other, with a residual and post-LN."""

    def __init__(self, config: TwoStreamConfig, reader: ModelConfig, read: ModelConfig, *, rngs: nnx.Rngs):
        sizes = {"read_width": read.width, "width": config.cross_width, "num_heads": config.cross_heads}
        super().__init__(reader, **sizes, rngs=rngs)
        self.dropout_rate = config.dropout
        self.norm = layer_norm(reader, rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "B Q D"],
        other: Float[Array, "B K E"],
        visibility: Visibility,
        *,
        key: jax.Array | None = None,
        weights: bool = False,
    ) -> tuple[Float[Array, "B Q D"], Float[Array, "B H Q K"] | None]:
        """`visibility` is the reader's, `towards` the stream that is read."""
        key, attention_key = split_off(key, self.attend.noisy)
        branch, attention = self.read(x, self.memory(other), visibility, key=attention_key, weights=weights)
        return self.norm(x + dropout(branch, self.dropout_rate, key)), attention


def _read(
    attention: ResidualCross | None,
    x: Array,
    other: Array,
    visibility: Visibility,
    *,
    heads: int,
    key: jax.Array | None,
    weights: bool,
) -> tuple[Array, Array | None]:
    """`attention` of `x` to `other`; without one `x` as it is, and weights of 0, as of tokens that read nothing."""
    if attention is not None:
        return attention(x, other, visibility, key=key, weights=weights)
    return x, jnp.zeros((x.shape[0], heads, x.shape[1], other.shape[1])) if weights else None


class SharedCross(nnx.Module):
    """LXMERT's cross-modality layer (Tan & Bansal 2019, section 2.2.3).

    One attention lets the text read the image and the image the text, both as they came in (or, by
    `config.direction`, one of them); then each stream has a layer of BERT.
    """

    def __init__(self, config: TwoStreamConfig, *, rngs: nnx.Rngs):
        self.config = config
        text, image = config.text_side, config.image_side
        self.attention = ResidualCross(config, text, image, rngs=rngs)
        self.text = Block(text, rngs=rngs)
        self.image = Block(image, rngs=rngs)

    def __call__(
        self, x: Streams, sees: Sees, *, key: jax.Array | None = None, weights: bool = False
    ) -> tuple[Streams, Weights]:
        keys = [None] * 4 if key is None else list(jax.random.split(key, 4))
        config, read = self.config, functools.partial(_read, heads=self.config.cross_heads, weights=weights)
        text_reads = self.attention if config.words_read_image else None
        image_reads = self.attention if config.picture_reads_text else None
        text, to_image = read(text_reads, x.text, x.image, sees.text_to_image, key=keys[0])
        image, to_text = read(image_reads, x.image, x.text, sees.image_to_text, key=keys[1])
        none = jnp.zeros(())  # these layers know no stochastic depth
        text, own_text = self.text(text, sees.text, depth_rate=none, key=keys[2], weights=weights)
        image, own_image = self.image(image, sees.image, depth_rate=none, key=keys[3], weights=weights)
        found = {"text_to_image": to_image, "image_to_text": to_text, "text": own_text, "image": own_image}
        return Streams(text, image), found if weights else {}


class Reader(nnx.Module):
    """One direction of ViLBERT's layer: cross attention and a feed-forward layer, each with a residual and post-LN.

    Without `reads` the feed-forward layer alone.
    """

    def __init__(self, config: TwoStreamConfig, reader: ModelConfig, read: ModelConfig, *, reads: bool, rngs: nnx.Rngs):
        self.heads, self.dropout_rate = config.cross_heads, config.dropout
        self.attention = ResidualCross(config, reader, read, rngs=rngs) if reads else None
        self.mlp = FeedForward(reader, rngs=rngs)
        self.mlp_norm = layer_norm(reader, rngs=rngs)
        # Kept so that a published file can be written back whole; nothing reads it, there or here.
        self.spare = dense(reader, config.cross_width, reader.width, rngs=rngs) if config.spare else None

    def __call__(
        self,
        x: Float[Array, "B Q D"],
        other: Float[Array, "B K E"],
        visibility: Visibility,
        *,
        key: jax.Array | None,
        weights: bool,
    ) -> tuple[Float[Array, "B Q D"], Float[Array, "B H Q K"] | None]:
        keys = (None, None) if key is None else jax.random.split(key)
        x, attention = _read(self.attention, x, other, visibility, heads=self.heads, key=keys[0], weights=weights)
        return self.mlp_norm(x + dropout(self.mlp(x), self.dropout_rate, keys[1])), attention


class PairedCross(nnx.Module):
    """ViLBERT's co-attentional layer (Lu et al. 2019, section 3.1): each stream reads the other, as it came in (or, by
    `config.direction`, one of them does)."""

    def __init__(self, config: TwoStreamConfig, *, rngs: nnx.Rngs):
        text, image = config.text_side, config.image_side
        # Not by `words_read_image`: without co-attention a published file has both attentions, and nothing reads.
        self.text = Reader(config, text, image, reads=config.direction != "image_to_text", rngs=rngs)
        self.image = Reader(config, image, text, reads=config.direction != "text_to_image", rngs=rngs)

    def __call__(
        self, x: Streams, sees: Sees, *, key: jax.Array | None = None, weights: bool = False
    ) -> tuple[Streams, Weights]:
        keys = (None, None) if key is None else jax.random.split(key)
        text, to_image = self.text(x.text, x.image, sees.text_to_image, key=keys[0], weights=weights)
        image, to_text = self.image(x.image, x.text, sees.image_to_text, key=keys[1], weights=weights)
        return Streams(text, image), {"text_to_image": to_image, "image_to_text": to_text} if weights else {}


CROSS: dict[str, type[SharedCross] | type[PairedCross]] = {"shared": SharedCross, "paired": PairedCross}
