"""Captioning as prefix language modelling: each word from the picture and the words before it (SimVLM, equation 2).

(Wang et al. 2022, https://arxiv.org/abs/2108.10904, with the picture as the whole prefix.) `model.caption` writes texts
with what it learns.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Float

from singlestream.batch import Array, Batch
from singlestream.model.directions import check_call
from singlestream.model.heads import HeadConfig
from singlestream.model.pooling import tokens_of
from singlestream.model.two_stream_config import TwoStreamConfig
from singlestream.objectives import base

Options = base.NoOptions
DIRECTION = "causal"


class Objective(base.Objective):
    """Cross-entropy of every token but the first, [SEP] among them; the model is read with `direction="causal"`."""

    def heads(self, config, spec):
        if isinstance(config, TwoStreamConfig) or config.late_layers:
            raise ValueError("prefix_lm needs a single stream whose every layer reads the picture (late_layers=0)")
        if config.channel_gate:
            raise ValueError(
                f"prefix_lm does not go with config.model.channel_gate={config.channel_gate}, which looks at a text as "
                "a whole, where it is written word by word"
            )
        if config.attention.reads_edges:
            raise ValueError(
                "prefix_lm does not go with config.model.attention.graph='edges': a text that is written word by word "
                "has no edges yet"
            )
        check_call(config, DIRECTION)
        return {"prefix_lm": HeadConfig(kind="vocabulary", size=spec.vocab_size, source="text")}

    def loss(self, encode, heads, batch, spec, key, state):
        return next_tokens(heads["prefix_lm"](encode(batch, direction=DIRECTION)), batch), state


def next_tokens(logits: Float[Array, "B T V"], batch: Batch) -> base.Metrics:
    """`loss` and `accuracy` of every token that follows another one of its text, by the logits at that one."""
    text = batch.text
    example = tokens_of(text, batch.examples) & batch.example_mask[..., None]
    # The next column holds the next token of the same text, or another text's first one.
    follows = (example[:, :, 1:] & example[:, :, :-1]).any(1) & (text.positions[:, 1:] > text.positions[:, :-1])
    loss, accuracy = base.cross_entropy(logits[:, :-1], jnp.asarray(text.ids)[:, 1:], follows)
    return {"loss": loss, "accuracy": accuracy}
