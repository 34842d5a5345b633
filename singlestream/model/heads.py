"""Output heads. A head reads an `Encoded` and is described by a `HeadConfig`, which is kept with the run."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from singlestream.batch import Array, Batch, BatchError, Encoded
from singlestream.model.block import ACTIVATIONS, Dense, dense, gelu, layer_norm, param_dtype
from singlestream.model.config import ModelConfig
from singlestream.model.weight_norm import WeightNormDense

KINDS = ("linear", "classifier", "answers", "weight_norm", "transform", "vocabulary", "regions", "constant")
Projection = Dense | WeightNormDense
DECISIONS = "decisions"  # of both modalities in `Encoded.extra`, read in place of the pooled vector
DECODER = "decoder"  # a direction of `SingleStream`, what it leaves in `Encoded.extra`, and the source that reads it
SOURCES = ("pooled", "pairs", "second_last", "text", "image", DECODER)


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """What a head reads, what stands between, and how many numbers come out.

    Attributes:
        kind: `linear`; `classifier` (Linear, LayerNorm, GELU, Linear, as ViLT's for VQA); `answers` (Linear,
            GELU, LayerNorm, Linear, as LXMERT's and ViLBERT's); `weight_norm` (Linear, ReLU, Linear, both weights
            normalised, as the first ViLBERT's); `transform` (Linear, activation, LayerNorm, Linear); `vocabulary`
            (BERT's masked-language head, the same with the table of word embeddings as the last projection);
            `regions` (how well each text token and each region go together, VisualBERT's for Flickr30k Entities);
            `constant` (learned numbers that read nothing, as CLIP's temperature).
        size: numbers that come out; the vocabulary's size for `vocabulary`; for `regions` the width of the queries.
        source: `pooled` [B, K, D]; `pairs`, the pooled vectors of two successive examples side by side [B, K / 2, 2 D];
            `second_last` [B, K, D], see `pooling.second_last`; `text` [B, T, D] (also for `regions`) or `image`
            [B, N, D]; `decoder` [B, T, D], the text's states in the decoder (`SingleStream`, `direction="decoder"`).
        layer: 0 reads the final states; i > 0 the states after layer i (`text` and `image` only).
        norm_eps: of the classifier's LayerNorm; 0: the model's.
        shares: name of another `transform` head that differs in its size alone, and whose Linear and LayerNorm this
            one uses, too.
        start: what a `constant` is at the start.
    """

    kind: str = "linear"
    size: int
    source: str = "pooled"
    layer: int = 0
    norm_eps: float = 0.0
    shares: str = ""
    start: float = 0.0

    def __post_init__(self) -> None:
        for name, valid in (("kind", KINDS), ("source", SOURCES)):
            if getattr(self, name) not in valid:
                raise ValueError(f"head: {name}={getattr(self, name)!r}, choose one of {', '.join(valid)}")
        if self.layer and self.source not in ("text", "image"):
            raise ValueError(f"head: layer={self.layer} goes with source='text' or 'image', not with {self.source!r}")
        if self.shares and self.kind != "transform":
            raise ValueError(f"head: shares={self.shares!r} goes with kind='transform', not with {self.kind!r}")
        if self.start and self.kind != "constant":
            raise ValueError(f"head: start={self.start} goes with kind='constant', not with {self.kind!r}")
        if self.kind == "regions" and self.source != "text":
            raise ValueError(f"head: kind='regions' goes with source='text', not with {self.source!r}")


class Head(nnx.Module):
    """A head by its configuration; `table` is the word embedding that a `vocabulary` head shares, `trunk` the head that
    `HeadConfig.shares` names.
    """

    def __init__(
        self,
        head: HeadConfig,
        config: ModelConfig,
        *,
        table: nnx.Embed,
        trunk: Head | None = None,
        rngs: nnx.Rngs,
    ):
        if not 0 <= head.layer <= config.depth:
            raise ValueError(f"head: layer={head.layer}, but the model has {config.depth} layers")
        if head.source == DECODER and not config.decoder_layers:
            raise ValueError("head: source='decoder', but the model has no decoder (config.model.decoder_layers=0)")
        self.head, self.activation = head, config.activation
        if head.kind == "constant":
            self.constant = nnx.Param(jnp.full((head.size,), head.start, param_dtype(config)))
            return
        width = 2 * config.width if head.source == "pairs" else config.width
        if head.kind == "linear":
            self.out: Projection = dense(config, width, head.size, rngs=rngs)
            return
        if head.kind == "regions":
            # Nobody reads the values; the published head has them.
            self.query, self.key, self.value = (dense(config, width, head.size, rngs=rngs) for _ in range(3))
            return
        hidden = config.width if head.kind in ("transform", "vocabulary") else 2 * config.width
        if head.kind == "weight_norm":
            self.hidden: Projection = WeightNormDense(config, width, hidden, rngs=rngs)
            self.out = WeightNormDense(config, hidden, head.size, rngs=rngs)
            return
        if trunk is None:
            self.hidden = dense(config, width, hidden, rngs=rngs)
            self.norm = layer_norm(config, rngs=rngs, width=hidden, eps=head.norm_eps or config.norm_eps)
        else:
            self.hidden, self.norm = trunk.hidden, trunk.norm
        if head.kind == "vocabulary":
            self.table = table
            self.bias = nnx.Param(jnp.zeros((head.size,), table.embedding.dtype))
        else:
            self.out = dense(config, hidden, head.size, rngs=rngs)

    def __call__(self, encoded: Encoded) -> Float[Array, "B S size"]:
        """Logits in float32 or wider, [B, K, size], [B, T, size] or [B, N, size] by the head's source; `regions`
        gives [B, T, N], scores that say nothing where a region is padding.
        """
        if self.head.source in ("pooled", "pairs") and DECISIONS in encoded.extra:
            each = jnp.moveaxis(encoded.extra[DECISIONS], 2, 0)
            text, image = (self(dataclasses.replace(encoded, pooled=x, extra={})) for x in each)
            return (text + image) / 2
        x = self._read(encoded)
        logits = self._match(x, encoded.image) if self.head.kind == "regions" else self._logits(x)
        return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))

    def _read(self, encoded: Encoded) -> Array:
        source = self.head.source
        if source == "pairs":
            rows, examples, width = encoded.pooled.shape
            if examples % 2:
                raise BatchError(f"this head reads pairs of examples, but a row of the batch has {examples}")
            return encoded.pooled.reshape(rows, examples // 2, 2 * width)
        if source == DECODER and source not in encoded.extra:
            raise ValueError("this head reads the decoder: encode the batch with direction='decoder'")
        if source in ("second_last", DECODER):
            return encoded.extra[source]
        if self.head.layer == 0:
            return getattr(encoded, source)
        states, num_text = encoded.hidden[self.head.layer - 1], encoded.text.shape[1]
        image = slice(num_text, num_text + encoded.image.shape[1])  # class tokens of pictures may follow
        return states[:, :num_text] if source == "text" else states[:, image]

    def _match(self, text: Float[Array, "B T D"], image: Float[Array, "B N D"]) -> Float[Array, "B T N"]:
        return jnp.einsum("btc,bnc->btn", self.query(text), self.key(image)) / math.sqrt(self.head.size)

    def _logits(self, x: Array) -> Array:
        if self.head.kind == "constant":
            return jnp.broadcast_to(self.constant[...], (*x.shape[:-1], self.head.size))
        if self.head.kind == "linear":
            return self.out(x)
        if self.head.kind == "classifier":
            return self.out(gelu(self.norm(self.hidden(x))))
        if self.head.kind == "answers":
            return self.out(self.norm(gelu(self.hidden(x))))
        if self.head.kind == "weight_norm":
            return self.out(jax.nn.relu(self.hidden(x)))
        x = self.norm(ACTIVATIONS[self.activation](self.hidden(x)))
        if self.head.kind == "transform":
            return self.out(x)
        return self.table.attend(x) + self.bias[...].astype(x.dtype)


def build_heads(
    heads: Mapping[str, HeadConfig],
    side: Callable[[HeadConfig], ModelConfig],
    *,
    table: nnx.Embed,
    rngs: nnx.Rngs,
) -> dict[str, Head]:
    """The heads by name.

    Args:
        side: what a head has to know of the states that it reads.

    Raises:
        ValueError: `shares` names no head to share with.
    """
    built: dict[str, Head] = {}
    for name, head in sorted(heads.items(), key=lambda item: (item[1].shares != "", item[0])):
        giver = heads.get(head.shares)
        if head.shares and (giver is None or dataclasses.replace(giver, size=head.size, shares=head.shares) != head):
            raise ValueError(f"head {name}: shares={head.shares!r}, expected a head that differs in its size alone")
        trunk = built[head.shares] if head.shares else None
        built[name] = Head(head, side(head), table=table, trunk=trunk, rngs=rngs)
    return {name: built[name] for name in sorted(built)}


def every_logits(model: Any, batch: Batch) -> tuple[Encoded, dict[str, Array]]:
    """A batch encoded, and what every head makes of it, those of a decoder of the batch as the decoder reads it."""
    encoded = decoded = model(batch)
    if any(head.head.source == DECODER for head in model.heads.values()):
        decoded = model(batch, direction=DECODER)
    return encoded, {
        name: head(decoded if head.head.source == DECODER else encoded) for name, head in model.heads.items()
    }
