"""From ids, features and boxes to two streams."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float, Int32

from singlestream.batch import Array, Batch, BatchError, Patches, Regions, Spec, Text
from singlestream.model.block import compute_dtype, dense, layer_norm
from singlestream.model.cross import Streams
from singlestream.model.embed import TextEmbed, embedding
from singlestream.model.noise import dropout
from singlestream.model.positions.image_boxes import box_features
from singlestream.model.two_stream_config import TwoStreamConfig


class WordEmbed(TextEmbed):
    """BERT's embeddings, and beside the vocabulary a table of task tokens (`config.num_tasks`).

    A task token has neither position nor type, as in the authors' vilbert-multi-task.
    """

    def __init__(self, config: TwoStreamConfig, spec: Spec, *, rngs: nnx.Rngs):
        super().__init__(config.text_side, spec, rngs=rngs)
        self.fixed_first_rows = config.fixed_first_rows
        self.task = embedding(config.text_side, config.num_tasks, "token", rngs=rngs) if config.num_tasks else None

    def look_up(self, text: Text) -> Float[Array, "B T D"]:
        if self.task is None:
            return self._words(text)
        vocab_size = self.token.num_embeddings
        words = self._words(dataclasses.replace(text, ids=jnp.minimum(text.ids, vocab_size - 1)))
        task = text.ids - vocab_size
        return jnp.where((task >= 0)[..., None], self.task(jnp.maximum(task, 0)), words)

    def _words(self, text: Text) -> Float[Array, "B T D"]:
        if not self.fixed_first_rows:
            return super().look_up(text)
        rows = ((self.token(text.ids), text.ids), (self.type(text.types), text.types))
        position = self.position(text).astype(rows[0][0].dtype)
        return sum(_fix_first(x, index) for x, index in (*rows, (position, text.positions)))


def _fix_first(rows: Float[Array, "B T D"], index: Int32[Array, "B T"]) -> Float[Array, "B T D"]:
    """Rows of a table, without a gradient where it is row 0."""
    return jnp.where((index == 0)[..., None], jax.lax.stop_gradient(rows), rows)


class RegionEmbed(nnx.Module):
    """Features and boxes of regions, projected: (LN(f) + LN(b)) / 2 in LXMERT, LN(f + b) in ViLBERT."""

    def __init__(self, config: TwoStreamConfig, *, rngs: nnx.Rngs):
        side = config.image_side
        self.region_dim, self.box_numbers, self.dtype = config.region_dim, config.box_numbers, compute_dtype(side)
        self.features = dense(side, config.region_dim, side.width, rngs=rngs)
        self.boxes = dense(side, config.box_numbers, side.width, rngs=rngs)
        self.norm = layer_norm(side, rngs=rngs)
        self.box_norm = layer_norm(side, rngs=rngs) if config.region_norm == "apart" else None

    def __call__(self, image: Patches | Regions) -> Float[Array, "B N D"]:
        if not isinstance(image, Regions) or image.features.shape[-1] != self.region_dim:
            found = image.features if isinstance(image, Regions) else image.pixels
            raise BatchError(
                f"image: this model reads Regions with {self.region_dim} numbers each (config.model.region_dim), got "
                f"{type(image).__name__} with {found.shape[-1]}"
            )
        features = self.features(image.features.astype(self.dtype))
        boxes = self.boxes(box_features(image.boxes)[..., : self.box_numbers].astype(self.dtype))
        if self.box_norm is None:
            return self.norm(features + boxes)
        return (self.norm(features) + self.box_norm(boxes)) / 2


class TwoStreamEmbed(nnx.Module):
    """The two streams, each with its LayerNorm."""

    def __init__(self, config: TwoStreamConfig, spec: Spec, *, rngs: nnx.Rngs):
        self.dropout_rate = config.dropout
        self.text = WordEmbed(config, spec, rngs=rngs)
        self.image = RegionEmbed(config, rngs=rngs)

    def __call__(self, batch: Batch, *, key: jax.Array | None = None) -> Streams:
        keys = (None, None) if key is None else jax.random.split(key)
        return Streams(
            text=dropout(self.text(batch.text), self.dropout_rate, keys[0]),
            image=dropout(self.image(batch.image), self.dropout_rate, keys[1]),
        )
