"""Encoders of each modality alone, in front of the layers on both."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from singlestream.batch import IMAGE, Array
from singlestream.model.config import ModelConfig
from singlestream.model.encoder import Stack
from singlestream.model.encoders import layer_of
from singlestream.model.visibility import Visibility


class Front(nnx.Module):
    """`config.text_encoder` over the text tokens, `config.image_encoder` over the image tokens, each a `Stack`.

    With layers on both after it, it is hybrid fusion; without any, late fusion.
    """

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.text = _stack(config, "text", config.text_encoder, config.text_layers, rngs=rngs)
        self.image = _stack(config, "image", config.image_encoder, config.image_layers, rngs=rngs)

    def __call__(
        self, x: Float[Array, "B L D"], visibility: Visibility, *, key: jax.Array | None = None
    ) -> Float[Array, "B L D"]:
        """The stream with each modality read by itself; bottlenecks stay what they are."""
        keys = (None, None) if key is None else jax.random.split(key)
        # Of one modality alone: whatever the direction says of both, a token reads its own text or picture.
        sees, num_text = dataclasses.replace(visibility, direction="prefix"), visibility.num_text
        text = _run(self.text, x[:, :num_text], sees.of_text(), keys[0])
        own = visibility.modality == IMAGE
        image = dataclasses.replace(sees, segments=jnp.where(own, visibility.segments, 0), num_text=0, slots=1)
        rest = x[:, num_text:]
        found = _run(self.image, rest, image.each(lambda known: known[:, num_text:]), keys[1])
        return jnp.concatenate([text, jnp.where(own[:, num_text:, None], found, rest)], axis=1)


def _stack(config: ModelConfig, side: str, name: str, num_layers: int, *, rngs: nnx.Rngs) -> Stack | None:
    if name == "none":
        return None
    layer: Callable[..., Any] = layer_of(side, name)
    config = config.alone(num_layers)
    return Stack(config, lambda rngs: layer(config, rngs=rngs), rngs=rngs)


def _run(stack: Stack | None, x: Array, visibility: Visibility, key: jax.Array | None) -> Array:
    if stack is None or not x.shape[1]:
        return x
    x, _, _ = stack.run(stack.layers(key), x, visibility)
    return stack.finish(x)
