"""Output heads. A head reads an `Encoded` and is described by a `HeadConfig`, which is kept with the run."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from singlestream.batch import Array, Encoded
from singlestream.model.block import ACTIVATIONS, dense, layer_norm
from singlestream.model.config import ModelConfig

KINDS = ("linear", "classifier", "vocabulary")
SOURCES = ("pooled", "text", "image")


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """What a head reads, what stands between, and how many numbers come out.

    Attributes:
        kind: `linear`; `classifier` (Linear, LayerNorm, activation, Linear, as ViLT's for VQA); `vocabulary` (BERT's
            masked-language head, whose decoder is the table of word embeddings).
        size: numbers that come out; the vocabulary's size for `vocabulary`.
        source: `pooled` [B, K, D], `text` [B, T, D] or `image` [B, N, D].
        layer: 0 reads the final states; i > 0 the states after layer i (`text` and `image` only).
    """

    kind: str = "linear"
    size: int
    source: str = "pooled"
    layer: int = 0

    def __post_init__(self) -> None:
        for name, valid in (("kind", KINDS), ("source", SOURCES)):
            if getattr(self, name) not in valid:
                raise ValueError(f"head: {name}={getattr(self, name)!r}, choose one of {', '.join(valid)}")
        if self.layer and self.source == "pooled":
            raise ValueError(f"head: layer={self.layer} goes with source='text' or 'image', not with 'pooled'")


class Head(nnx.Module):
    """A head by its configuration; `table` is the word embedding that a `vocabulary` head shares."""

    def __init__(self, head: HeadConfig, config: ModelConfig, *, table: nnx.Embed, rngs: nnx.Rngs):
        if not 0 <= head.layer <= config.num_layers:
            raise ValueError(f"head: layer={head.layer}, but config.model.num_layers={config.num_layers}")
        self.head, self.activation = head, config.activation
        if head.kind == "linear":
            self.out = dense(config, config.width, head.size, rngs=rngs)
            return
        hidden = config.width if head.kind == "vocabulary" else 2 * config.width
        self.hidden = dense(config, config.width, hidden, rngs=rngs)
        self.norm = layer_norm(config, rngs=rngs, width=hidden)
        if head.kind == "vocabulary":
            self.table = table
            self.bias = nnx.Param(jnp.zeros((head.size,), table.embedding.dtype))
        else:
            self.out = dense(config, hidden, head.size, rngs=rngs)

    def __call__(self, encoded: Encoded) -> Float[Array, "B S size"]:
        """Logits in float32 or wider: [B, K, size], [B, T, size] or [B, N, size] by the head's source."""
        logits = self._logits(self._read(encoded))
        return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))

    def _read(self, encoded: Encoded) -> Array:
        if self.head.layer == 0:
            return getattr(encoded, self.head.source)
        states, num_text = encoded.hidden[self.head.layer - 1], encoded.text.shape[1]
        return states[:, :num_text] if self.head.source == "text" else states[:, num_text:]

    def _logits(self, x: Array) -> Array:
        activation = ACTIVATIONS[self.activation]
        if self.head.kind == "linear":
            return self.out(x)
        if self.head.kind == "classifier":
            return self.out(activation(self.norm(self.hidden(x))))
        x = self.norm(activation(self.hidden(x)))
        return self.table.attend(x) + self.bias[...].astype(x.dtype)
