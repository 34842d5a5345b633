"""The single-stream model (VisualBERT, Unicoder-VL, ViLT): one sequence of text and image tokens, one encoder."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Int32

from singlestream.batch import Array, Batch, BatchError, Encoded, Patches, Size, Spec, Stream, check_batch, without_text
from singlestream.model.config import ModelConfig
from singlestream.model.decoder import Decoder, Sees, of_image, of_text
from singlestream.model.embed import StreamEmbed
from singlestream.model.encoder import Encoder
from singlestream.model.heads import DECODER, HeadConfig, build_heads
from singlestream.model.late_fusion import LateFusion
from singlestream.model.noise import dropout
from singlestream.model.pooling import Pooler, second_last
from singlestream.model.ranges import check_ranges
from singlestream.model.visibility import Visibility


class SingleStream(nnx.Module):
    """Embeddings, encoder, pooling, a decoder where `config.decoder_layers` has one, and the heads by name.

    Args:
        config: sizes and choices.
        spec: sizes of the vocabulary, made by the data.
        heads: what `model.heads[name]` computes.
        rngs: streams `params` only; noise comes by `key` at call.
    """

    def __init__(
        self, config: ModelConfig, spec: Spec, *, heads: Mapping[str, HeadConfig] | None = None, rngs: nnx.Rngs
    ):
        self.config = config
        self.embed = StreamEmbed(config, spec, rngs=rngs)
        self.encoder = (LateFusion if config.late_layers else Encoder)(config, rngs=rngs)
        self.pooler = Pooler(config, rngs=rngs)
        self.decoder = Decoder(config, rngs=rngs) if config.decoder_layers else None
        table = self.embed.text.token
        self.heads = nnx.Dict(build_heads(heads or {}, lambda head: config, table=table, rngs=rngs))

    def check(self, batch: Batch) -> None:
        """Holds a batch against the contract, and what it looks up against this model's tables (`check_ranges`).

        Raises:
            BatchError: an input of the wrong shape or dtype, or out of a table's range, by name.
        """
        check_batch(batch)
        config, text = self.config, batch.text
        words, types, length = self.embed.text.token.num_embeddings, config.num_token_types, config.max_text_length
        tables = [
            ("text.ids", text.ids, words, f"the size of the vocabulary is {words}"),
            ("text.types", text.types, types, f"config.model.num_token_types is {types}"),
        ]
        limit = f"config.model.max_text_length is {length}"
        if config.text_positions == "learned":
            tables.append(("text.positions", text.positions, length, limit))
        if config.num_images > 1:
            number = config.num_images
            tables.append(("image.index", batch.image.index, number, f"config.model.num_images is {number}"))
        aligned = getattr(batch.image, "words", None)
        if aligned is not None:
            _check_reads_words(config)
            tables.append(("image.words", aligned + (aligned == -1), length, f"{limit}, and -1 is no word"))
        check_ranges(tables)

    def __call__(
        self, batch: Batch, *, key: jax.Array | None = None, attention: bool = False, direction: str | None = None
    ) -> Encoded:
        """Encodes a batch.

        Args:
            batch: see `singlestream.batch`.
            key: of dropout and stochastic depth; None switches them off.
            attention: also return the weights of every layer: `attention["self"]` [layers, B, H, L, L], text tokens
                first, then image tokens, then the class tokens of `config.image_cls`.
            direction: who sees whom this time, one of `config.direction`'s choices; by default that. With `decoder` the
                encoder reads the pictures alone, and the text, from left to right, the decoder: what comes back is
                `extra["decoder"]` [B, T, D], `attention["text_to_image"]` [decoder's layers, B, H, T, N], and
                everything else of a batch without text.

        Raises:
            BatchError: what `check` finds.
            ValueError: `direction="decoder"`, and there is none.
        """
        self.check(batch)
        if direction == DECODER:
            return self._decode(batch, key=key, attention=attention)
        text = batch.text
        embed_key, encoder_key = (None, None) if key is None else jax.random.split(key)
        stream = self.embed(batch, key=embed_key)
        num_text, num_image = text.ids.shape[1], batch.image.segments.shape[1]
        visibility = self.sees(batch, stream, direction)
        x, hidden, weights = self.encoder(stream.x, visibility, key=encoder_key, attention=attention)
        states = x[:, :num_text]
        extra = {}
        if self.config.image_cls:
            extra["image_cls"] = x[:, num_text + num_image :]
        if any(head.head.source == "second_last" for head in self.heads.values()):
            extra["second_last"] = second_last(states, text, batch.examples)
        return Encoded(
            text=states,
            image=x[:, num_text : num_text + num_image],
            pooled=self.pooler(states, text, batch.examples),
            extra=extra,
            hidden=hidden,
            attention=None if weights is None else {"self": weights},
        )

    def _decode(self, batch: Batch, *, key: jax.Array | None, attention: bool) -> Encoded:
        if self.decoder is None:
            raise ValueError("direction='decoder', but the model has no decoder (config.model.decoder_layers=0)")
        keys = [None] * 3 if key is None else list(jax.random.split(key, 3))
        encoded = self(without_text(batch), key=keys[0], attention=attention)
        x = dropout(self.embed.of_text(batch.text), self.config.dropout, keys[1])
        own = of_text(batch.text)
        sees = Sees(own, own.towards(of_image(batch.image)))
        states, weights = self.decoder(x, sees, encoded.image, key=keys[2], attention=attention)
        extra = {**encoded.extra, DECODER: states}
        if encoded.attention is None:
            return dataclasses.replace(encoded, extra=extra)
        return dataclasses.replace(encoded, extra=extra, attention={**encoded.attention, "text_to_image": weights})

    def sees(self, batch: Batch, stream: Stream, direction: str | None = None) -> Visibility:
        """Who sees whom in the stream that `embed` made of a batch."""
        text, length = batch.text, stream.segments.shape[1]
        return Visibility(
            where=_where(batch, length),
            token=jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32), stream.segments.shape),
            segments=stream.segments,
            part=stream.part,
            modality=stream.modality,
            place=jnp.pad(text.positions, ((0, 0), (0, length - text.ids.shape[1]))),
            direction=direction or self.config.direction,
            num_text=text.ids.shape[1],
            slots=text.slots,
        )


def _where(batch: Batch, length: Size) -> Int32[Array, "B L 3"] | None:
    """`Visibility.where` of a stream of so many tokens; None where the image tokens are regions."""
    text, image = batch.text, batch.image
    if not isinstance(image, Patches):
        return None
    places = jnp.concatenate([jnp.asarray(image.index)[..., None], image.yx], axis=-1)
    before = text.ids.shape[1]
    return jnp.pad(places, ((0, 0), (before, length - before - places.shape[1]), (0, 0)))


def _check_reads_words(config: ModelConfig) -> None:
    if config.image_positions != "constant" or config.text_positions == "none":
        raise BatchError(
            "image.words: only a model with config.model.image_positions='constant' and positions of its text "
            f"(VisualBERT) reads them, this one has image_positions={config.image_positions!r}, text_positions="
            f"{config.text_positions!r}"
        )
