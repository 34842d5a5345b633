"""The decoder of an encoder-decoder (Vaswani et al. 2017): a text, each token from those before it and the picture."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from singlestream.batch import IMAGE, TEXT, Array, Patches, Regions, Text
from singlestream.model.block import FeedForward, Residual, SelfAttention, layer_norm, out_norm
from singlestream.model.config import ModelConfig
from singlestream.model.cross_attention import CrossAttention, Memory
from singlestream.model.encoder import Stack
from singlestream.model.noise import split_off
from singlestream.model.pruning.config import PruningConfig
from singlestream.model.visibility import Visibility


class Sees(NamedTuple):
    """Who sees whom: a text token its own text up to itself, and the picture of its example."""

    text: Visibility
    image: Visibility


def of_text(text: Text) -> Visibility:
    """The rule over the tokens of texts, which are read from left to right."""
    return Visibility(
        segments=text.segments,
        part=text.part,
        modality=jnp.full_like(text.segments, TEXT),
        place=text.positions,
        direction="causal",
        num_text=text.ids.shape[1],
        slots=text.slots,
    )


def of_image(image: Patches | Regions) -> Visibility:
    """The rule's half that is the pictures'."""
    places = jnp.zeros_like(image.segments)  # none is later than a word
    return Visibility(segments=image.segments, part=image.part, modality=places + IMAGE, place=places)


class DecoderBlock(Residual):
    """A layer of the decoder: self-attention over the text, attention to the picture, the feed-forward layer.

    (Vaswani et al. 2017, section 3.1; the norms where `config.norm` has them.)
    """

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        super().__init__(config)
        sizes = {"read_width": config.width, "width": config.width, "num_heads": config.num_heads}
        self.attention_norm = layer_norm(config, rngs=rngs)
        self.attention = SelfAttention(config, rngs=rngs)
        self.cross_norm = layer_norm(config, rngs=rngs)
        self.cross = CrossAttention(config, **sizes, rngs=rngs)
        self.mlp_norm = layer_norm(config, rngs=rngs)
        self.mlp = FeedForward(config, rngs=rngs)
        norms = (out_norm(config, rngs=rngs) for _ in range(3))
        self.attention_out_norm, self.cross_out_norm, self.mlp_out_norm = norms

    def __call__(
        self,
        x: Float[Array, "B T D"],
        sees: Sees,
        image: Float[Array, "B N D"] | Memory,
        *,
        depth_rate: Float[Array, ""],
        key: jax.Array | None = None,
        weights: bool = False,
        attention: Callable[..., tuple[Array, Array | None]] | None = None,
    ) -> tuple[Float[Array, "B T D"], Float[Array, "B H T N"] | None]:
        """One layer.

        Args:
            image: states of the picture, or what `cross.memory` made of them.
            depth_rate: this layer's rate of stochastic depth.
            key: None switches all noise off.
            weights: also return those over the picture.
            attention: called in place of the layer's self-attention (`cached_decoder`).
        """
        key, own_key = split_off(key, self.attention.attend.noisy)
        key, cross_key = split_off(key, self.cross.attend.noisy)
        keys = [None] * 6 if key is None else list(jax.random.split(key, 6))
        branch, _ = (attention or self.attention)(self.before(x, self.attention_norm), sees.text, key=own_key)
        x = self.after(x, branch, self.attention_norm, self.attention_out_norm, depth_rate, keys[:2])
        memory = image if isinstance(image, Memory) else self.cross.memory(image)
        branch, found = self.cross.read(
            self.before(x, self.cross_norm), memory, sees.image, key=cross_key, weights=weights
        )
        x = self.after(x, branch, self.cross_norm, self.cross_out_norm, depth_rate, keys[2:4])
        branch = self.mlp(self.before(x, self.mlp_norm))
        x = self.after(x, branch, self.mlp_norm, self.mlp_out_norm, depth_rate, keys[4:])
        return x, found


class Decoder(Stack):
    """`config.decoder_layers` layers, of the encoder's sizes."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        config = dataclasses.replace(config, num_layers=config.decoder_layers, pruning=PruningConfig())
        super().__init__(config, lambda rngs: DecoderBlock(config, rngs=rngs), rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "B T D"],
        sees: Sees,
        image: Float[Array, "B N D"],
        *,
        key: jax.Array | None = None,
        attention: bool = False,
    ) -> tuple[Float[Array, "B T D"], Float[Array, "layers B H T N"] | None]:
        """Embeddings of text tokens and states of the picture to states of the text, and the weights over the picture
        where asked for.
        """
        x, _, weights = self.run(self.layers(key), x, sees, image, attention=attention)
        return self.finish(x), weights
