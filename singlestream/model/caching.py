"""A text's next token without computing picture and earlier tokens again: their keys and values are kept.

It is the single stream with `direction="causal"`: no image token sees text and no text token a later one, so what a
layer made of a token stays what it is, however the text goes on.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int32

from singlestream.batch import TEXT, Array, Batch, Encoded, Text
from singlestream.model.attention.attend import merge_heads
from singlestream.model.block import Block, SelfAttention
from singlestream.model.cross_attention import Memory
from singlestream.model.single_stream import SingleStream
from singlestream.model.visibility import Visibility

CAUSAL = "causal"


class Cache(NamedTuple):
    """What is kept of R rows: every layer's keys and values, and who the tokens are. The text's room comes first."""

    layers: tuple[Memory, ...]
    segments: Int32[Array, "R L"]
    part: Int32[Array, "R L"]
    modality: Int32[Array, "R L"]
    place: Int32[Array, "R L"]
    where: Int32[Array, "R L 3"] | None


class CachedText:
    """A single-stream model as what the searches of `decoding` call.

    Args:
        model: read once; of its heads the one named `head` (kind `vocabulary`, source `text`) gives the logits.
    """

    def __init__(self, model: SingleStream, head: str):
        self._model, self._head = model, model.heads[head]
        self._depth = jnp.zeros(())
        self._blocks: list[Block] = model.encoder.each()  # once, outside of the searches' loops

    def start(self, batch: Batch) -> Cache:
        """Reads the pictures, one a row.

        Args:
            batch: rows with one example each. Its texts, of T tokens or padding, say how much room there is.

        Returns:
            A cache whose texts are empty.
        """
        model = self._model
        model.check(batch)
        stream = model.embed(batch, direction=CAUSAL)
        sees = model.sees(batch, stream, CAUSAL)
        x, layers = model.enter(stream, sees)[0], []
        for block in self._blocks:
            read = _Remember(block.attention)
            x, _ = block(x, sees, depth_rate=self._depth, attention=read)
            layers.append(read.memory)
        empty = jnp.zeros_like(batch.text.segments)
        room = empty.shape[1]
        segments = jnp.concatenate([empty, stream.segments[:, room:]], axis=1)
        return Cache(tuple(layers), segments, stream.part, stream.modality, jnp.zeros_like(segments), sees.where)

    def next_token(
        self, cache: Cache, last: Int32[Array, " R"], place: Int32[Array, ""]
    ) -> tuple[Float[Array, "R V"], Cache]:
        """Puts token `last` at `place` of each row's text; the logits of the token after it (`decoding.NextToken`)."""
        model, rows = self._model, last.shape[0]
        ones = jnp.ones((rows, 1), jnp.int32)
        here = place * ones
        cache = cache._replace(
            segments=_put(cache.segments, ones, place),
            part=_put(cache.part, 0 * ones, place),
            place=_put(cache.place, here, place),
        )
        x = model.embed.of_text(Text(ids=last[:, None], positions=here, types=0 * ones))
        who = {"segments": ones, "part": 0 * ones, "modality": ones * TEXT, "place": here}
        where = None if cache.where is None else jnp.full_like(cache.where[:, :1], -1)  # as of any word
        known = ("segments", "part", "modality", "place", "where")
        keys = Visibility(**{name: getattr(cache, name) for name in known})
        sees = Visibility(**who, where=where, direction=CAUSAL).towards(keys)
        layers = []
        for block, memory in zip(self._blocks, cache.layers, strict=True):
            read = Continue(block.attention, memory, place)
            x, _ = block(x, sees, depth_rate=self._depth, attention=read)
            layers.append(read.memory)
        x = model.encoder.finish(x)
        logits = self._head(Encoded(text=x, image=x[:, :0], pooled=x))
        return logits[:, 0], cache._replace(layers=tuple(layers))


class _Remember:
    """A layer's attention that leaves its keys and values behind."""

    def __init__(self, attention: SelfAttention):
        self._attention = attention
        self.memory: Memory

    def __call__(self, x: Array, visibility: Visibility, **_: Any) -> tuple[Array, None]:
        q, k, v = self._attention.project(x)
        self.memory = Memory(k, v)
        return self._attention.out(merge_heads(self._attention.attend(q, k, v, visibility)[0])), None


@dataclasses.dataclass
class Continue:
    """A layer's self-attention for one more token of each row, over everything that is kept."""

    attention: SelfAttention
    memory: Memory
    place: Int32[Array, ""]

    def __call__(self, x: Array, visibility: Visibility, **_: Any) -> tuple[Array, None]:
        q, k, v = self.attention.project(x)
        self.memory = Memory(_put(self.memory.keys, k, self.place), _put(self.memory.values, v, self.place))
        return self.attention.out(merge_heads(self.attention.attend(q, *self.memory, visibility)[0])), None


def _put(kept: Array, new: Array, place: Int32[Array, ""]) -> Array:
    """What is kept, with a token's entry at its place (axis 1)."""
    return jax.lax.dynamic_update_slice_in_dim(kept, new.astype(kept.dtype), place, axis=1)
