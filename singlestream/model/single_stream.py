"""The single-stream model (VisualBERT, Unicoder-VL, ViLT): one sequence of text and image tokens, one encoder."""

from __future__ import annotations

from collections.abc import Mapping

import jax
from flax import nnx

from singlestream.batch import Batch, Encoded, Spec, check_batch
from singlestream.model.config import ModelConfig
from singlestream.model.embed import StreamEmbed
from singlestream.model.encoder import Encoder
from singlestream.model.heads import HeadConfig, build_heads
from singlestream.model.pooling import Pooler, second_last
from singlestream.model.ranges import check_ranges
from singlestream.model.visibility import Visibility


class SingleStream(nnx.Module):
    """Embeddings, encoder, pooling, and the heads by name.

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
        self.encoder = Encoder(config, rngs=rngs)
        self.pooler = Pooler(config, rngs=rngs)
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
        if config.text_positions == "learned":
            tables.append(("text.positions", text.positions, length, f"config.model.max_text_length is {length}"))
        if config.num_images > 1:
            number = config.num_images
            tables.append(("image.index", batch.image.index, number, f"config.model.num_images is {number}"))
        check_ranges(tables)

    def __call__(self, batch: Batch, *, key: jax.Array | None = None, attention: bool = False) -> Encoded:
        """Encodes a batch.

        Args:
            batch: see `singlestream.batch`.
            key: of dropout and stochastic depth; None switches them off.
            attention: also return the weights of every layer: `attention["self"]` [layers, B, H, L, L], text tokens
                first, then image tokens, then the class tokens of `config.image_cls`.

        Raises:
            BatchError: what `check` finds.
        """
        self.check(batch)
        text = batch.text
        embed_key, encoder_key = (None, None) if key is None else jax.random.split(key)
        stream = self.embed(batch, key=embed_key)
        num_text, num_image = text.ids.shape[1], batch.image.segments.shape[1]
        visibility = Visibility(
            segments=stream.segments,
            part=stream.part,
            modality=stream.modality,
            direction=self.config.direction,
            num_text=num_text,
            slots=text.slots,
        )
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
