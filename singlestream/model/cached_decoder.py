"""A decoder's next token without computing picture and earlier tokens again, see `caching`.

What the layers read of the picture stays the same for the whole text; of the text, keys and values are kept.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Float, Int32

from singlestream.batch import Array, Batch, Encoded, Text, without_text
from singlestream.model.block import compute_dtype
from singlestream.model.caching import Continue
from singlestream.model.cross_attention import Memory
from singlestream.model.decoder import Decoder, DecoderBlock, Sees, of_image, of_text
from singlestream.model.heads import DECODER
from singlestream.model.single_stream import SingleStream
from singlestream.model.visibility import Visibility


class DecoderCache(NamedTuple):
    """What is kept of R rows: what every layer reads of text and picture, and who the image tokens are."""

    text: tuple[Memory, ...]
    image: tuple[Memory, ...]
    picture: Visibility


class CachedDecoder:
    """An encoder-decoder as what the searches of `decoding` call; used as `caching.CachedText` is.

    Args:
        model: read once; of its heads the one named `head` (source `decoder`) gives the logits.

    Raises:
        ValueError: the model has no decoder.
    """

    def __init__(self, model: SingleStream, head: str):
        if model.decoder is None:
            raise ValueError("the model has no decoder (config.model.decoder_layers=0)")
        self._model, self._head, self._depth = model, model.heads[head], jnp.zeros(())
        self._decoder: Decoder = model.decoder
        self._blocks: list[DecoderBlock] = self._decoder.each()  # once, outside of the searches' loops

    def start(self, batch: Batch) -> DecoderCache:
        """Reads the pictures, one a row.

        Args:
            batch: rows with one example each. Its texts, of T tokens or padding, say how much room there is.
        """
        model, config = self._model, self._model.config
        model.check(batch)
        states = model(without_text(batch)).image
        room = (*batch.text.ids.shape, config.num_heads, config.width // config.num_heads)
        empty = jnp.zeros(room, compute_dtype(config))
        return DecoderCache(
            text=tuple(Memory(empty, empty) for _ in self._blocks),
            image=tuple(block.cross.memory(states) for block in self._blocks),
            picture=of_image(batch.image),
        )

    def next_token(
        self, cache: DecoderCache, last: Int32[Array, " R"], place: Int32[Array, ""]
    ) -> tuple[Float[Array, "R V"], DecoderCache]:
        """Puts token `last` at `place` of each row's text; the logits of the token after it (`decoding.NextToken`)."""
        model = self._model
        # The room is one text, of which what comes later is not seen.
        room = jnp.broadcast_to(jnp.arange(cache.text[0].keys.shape[1]), cache.text[0].keys.shape[:2])
        token = _text(last[:, None], jnp.full((last.shape[0], 1), place))
        reader = of_text(token)
        sees = Sees(reader.towards(of_text(_text(0 * room, room))), reader.towards(cache.picture))
        x, layers = model.embed.of_text(token), []
        for block, own, image in zip(self._blocks, cache.text, cache.image, strict=True):
            read = Continue(block.attention, own, place)
            x, _ = block(x, sees, image, depth_rate=self._depth, attention=read)
            layers.append(read.memory)
        x = self._decoder.finish(x)
        logits = self._head(Encoded(text=x[:, :0], image=x[:, :0], pooled=x[:, :0], extra={DECODER: x}))
        return logits[:, 0], cache._replace(text=tuple(layers))


def _text(ids: Int32[Array, "R T"], positions: Int32[Array, "R T"]) -> Text:
    zeros = jnp.zeros_like(ids)
    return Text(ids=ids, positions=positions, types=zeros, segments=zeros + 1, part=zeros)
