"""The single-stream model (VisualBERT, Unicoder-VL, ViLT): one sequence of text and image tokens, one encoder."""

from __future__ import annotations

from collections.abc import Mapping

import jax
from flax import nnx

from singlestream.batch import Batch, Encoded, Spec, check_batch
from singlestream.model.config import ModelConfig
from singlestream.model.embed import StreamEmbed
from singlestream.model.encoder import Encoder
from singlestream.model.heads import Head, HeadConfig
from singlestream.model.pooling import Pooler
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
        self.heads = nnx.Dict(
            {name: Head(head, config, table=table, rngs=rngs) for name, head in sorted((heads or {}).items())}
        )

    def __call__(self, batch: Batch, *, key: jax.Array | None = None, attention: bool = False) -> Encoded:
        """Encodes a batch.

        Args:
            batch: see `singlestream.batch`.
            key: of dropout and stochastic depth; None switches them off.
            attention: also return the weights of every layer: `attention["self"]` [layers, B, H, L, L], text tokens
                first.

        Raises:
            BatchError: an input of the wrong shape or dtype, by name.
        """
        check_batch(batch)
        text = batch.text
        embed_key, encoder_key = (None, None) if key is None else jax.random.split(key)
        stream = self.embed(batch, key=embed_key)
        num_text = text.ids.shape[1]
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
        return Encoded(
            text=states,
            image=x[:, num_text:],
            pooled=self.pooler(states, text, batch.examples),
            hidden=hidden,
            attention=None if weights is None else {"self": weights},
        )
