"""The single-stream model (VisualBERT, Unicoder-VL, ViLT): one sequence of text and image tokens, one encoder."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float, Int32

from singlestream.batch import (
    Array,
    Audio,
    Batch,
    BatchError,
    Encoded,
    Patches,
    Size,
    Spec,
    Stream,
    check_batch,
    without_text,
)
from singlestream.model.attention.edges import edges_of
from singlestream.model.channel_gate import ChannelGate
from singlestream.model.config import ModelConfig
from singlestream.model.decoder import Decoder, Sees, of_image, of_text
from singlestream.model.directions import check_call
from singlestream.model.embed import StreamEmbed
from singlestream.model.encoder import Encoder, NoLayers
from singlestream.model.front import Front
from singlestream.model.heads import DECODER, HeadConfig, build_heads
from singlestream.model.joins import build_join
from singlestream.model.late_fusion import LateFusion
from singlestream.model.noise import dropout, split_off
from singlestream.model.pooling import Pooler, mean_image, second_last
from singlestream.model.pruning.run import run_pruned
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
        has_front = (config.text_encoder, config.image_encoder) != ("none", "none")
        self.front = Front(config, rngs=rngs) if has_front else None
        self.gate = ChannelGate(config, rngs=rngs) if config.channel_gate else None
        self.encoder = _encoder(config, rngs=rngs)
        self.pooler = Pooler(config, rngs=rngs)
        self.join = build_join(config, rngs=rngs)
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
        _check_audio(config, batch.audio)
        aligned = getattr(batch.image, "words", None)
        if aligned is not None:
            _check_reads_words(config)
            tables.append(("image.words", aligned + (aligned == -1), length, f"{limit}, and -1 is no word"))
        check_ranges(tables)

    def __call__(
        self,
        batch: Batch,
        *,
        key: jax.Array | None = None,
        attention: bool = False,
        direction: str | None = None,
        perturbation: Mapping[str, Array] | None = None,
        embedded: Stream | None = None,
    ) -> Encoded:
        """Encodes a batch.

        Args:
            batch: see `singlestream.batch`.
            key: of dropout and stochastic depth; None switches them off.
            attention: also return the weights of every layer: `attention["self"]` [layers, B, H, L, L], text tokens
                first, then image tokens, audio tokens, the class tokens of `config.image_cls`, the bottlenecks.
                Encoders of one modality alone are not among the layers, neither here nor in `hidden`.
            direction: who sees whom this time, one of `config.direction`'s choices; by default that. With `decoder` the
                encoder reads the pictures alone, and the text, from left to right, the decoder: what comes back is
                `extra["decoder"]` [B, T, D], `attention["text_to_image"]` [decoder's layers, B, H, T, N], and
                everything else of a batch without text.
            perturbation: added to the attention weights, `perturbation["self"]` in their shape: zeros, to differentiate
                with respect to the weights.
            embedded: what the encoder reads in place of what `embed` makes of the batch.

        Raises:
            BatchError: what `check` finds.
            ValueError: `direction="decoder"`, and there is none, or with `perturbation` or `embedded`; a direction that
                this model cannot be read in.
        """
        self.check(batch)
        if direction == DECODER:
            if perturbation is not None or embedded is not None:
                raise ValueError("direction='decoder' takes no perturbation and nothing embedded")
            return self._decode(batch, key=key, attention=attention)
        text = batch.text
        embed_key, encoder_key = (None, None) if key is None else jax.random.split(key)
        check_call(self.config, direction)
        stream = self.embed(batch, key=embed_key, direction=direction) if embedded is None else embedded
        num_text, num_image = text.ids.shape[1], batch.image.segments.shape[1]
        of_audio = slice(num_text + num_image, num_text + num_image + _num_audio(batch))
        visibility = self.sees(batch, stream, direction)
        encoder_key, front_key = split_off(encoder_key, self.front is not None)
        x, extra = self.enter(stream, visibility, key=front_key)
        seen = visibility if perturbation is None else visibility.perturbed(perturbation["self"])
        if self.config.pruning.active:
            x, hidden, weights, extra["kept"] = run_pruned(self.encoder, x, seen, key=encoder_key, attention=attention)
        else:
            x, hidden, weights = self.encoder(x, seen, key=encoder_key, attention=attention)
        states, image = x[:, :num_text], x[:, num_text : num_text + num_image]
        extra |= self._beside(x[:, of_audio.stop :], batch, visibility.direction)
        if any(head.head.source == "second_last" for head in self.heads.values()):
            extra["second_last"] = second_last(states, text, batch.examples)
        pooled, shares = self._pool(states, image, batch)
        return Encoded(
            text=states,
            image=image,
            pooled=pooled,
            audio=None if batch.audio is None else x[:, of_audio],
            extra=extra | shares,
            hidden=hidden,
            attention=None if weights is None else {"self": weights},
        )

    def enter(
        self, stream: Stream, visibility: Visibility, *, key: jax.Array | None = None
    ) -> tuple[Float[Array, "B L D"], dict[str, Array]]:
        """What the layers on both modalities read, and what there is to tell of it (`Encoded.extra`).

        It is the stream itself, unless encoders of each modality or channel gates stand before those layers.
        """
        x, extra = stream.x, {}
        if self.front is not None:
            x = self.front(x, visibility, key=key)
        if self.gate is not None:
            x, extra["channel_gates"] = self.gate(x, visibility)
        return x, extra

    def _beside(self, x: Float[Array, "B M D"], batch: Batch, direction: str) -> dict[str, Array]:
        """States of what an example has beside text and image tokens."""
        (rows, examples, _), extra = batch.examples.shape, {}
        if self.config.image_cls:
            extra["image_cls"], x = x[:, :examples], x[:, examples:]
        if direction == "bottleneck":
            extra["bottlenecks"] = x.reshape(rows, examples, self.config.bottlenecks, x.shape[-1])
        return extra

    def _pool(
        self, text: Float[Array, "B T D"], image: Float[Array, "B N D"], batch: Batch
    ) -> tuple[Float[Array, "B K D"], dict[str, Array]]:
        """The vector of each example, and what else the join tells."""
        pooled = self.pooler(text, batch.text, batch.examples)
        if self.join is None:
            return pooled, {}
        return self.join(pooled, mean_image(image, batch.image, batch.examples))

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
            hops=self.config.hops,
            depth=self.config.num_layers,
            num_text=text.ids.shape[1],
            num_image=batch.image.segments.shape[1],
            slots=text.slots,
            examples=batch.examples.shape[1],
            pictures=batch.pictures or batch.examples.shape[1],
            edges=edges_of(batch, self.config.attention),
        )


def _encoder(config: ModelConfig, *, rngs: nnx.Rngs) -> Encoder:
    """The layers on both modalities."""
    if not config.num_layers:
        return NoLayers(config)
    return (LateFusion if config.late_layers else Encoder)(config, rngs=rngs)


def _where(batch: Batch, length: Size) -> Int32[Array, "B L 3"] | None:
    """`Visibility.where` of a stream of so many tokens; None where the image tokens are regions."""
    text, image = batch.text, batch.image
    if not isinstance(image, Patches):
        return None
    places = jnp.concatenate([jnp.asarray(image.index)[..., None], image.yx], axis=-1)
    before = text.ids.shape[1]
    return jnp.pad(places, ((0, 0), (before, length - before - places.shape[1]), (0, 0)), constant_values=-1)


def _num_audio(batch: Batch) -> Size:
    return 0 if batch.audio is None else batch.audio.segments.shape[1]


def _check_audio(config: ModelConfig, audio: Audio | None) -> None:
    if audio is not None and not audio.features.shape[-1] == config.audio_dim > 0:
        raise BatchError(
            f"audio.features: {audio.features.shape[-1]} numbers a token, config.model.audio_dim is {config.audio_dim} "
            "(0: the model reads no audio)"
        )


def _check_reads_words(config: ModelConfig) -> None:
    if config.image_positions != "constant" or config.text_positions == "none":
        raise BatchError(
            "image.words: only a model with config.model.image_positions='constant' and positions of its text "
            f"(VisualBERT) reads them, this one has image_positions={config.image_positions!r}, text_positions="
            f"{config.text_positions!r}"
        )
