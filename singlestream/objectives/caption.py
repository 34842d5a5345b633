"""Captioning by an encoder-decoder: the encoder reads the picture, a decoder writes each word from it and those before.

(Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, with a picture where they have the source sentence, as Cornia et
al. 2020, equation 7.) `model.caption` writes texts with what it learns.
"""

from __future__ import annotations

from singlestream.model.heads import HeadConfig
from singlestream.model.two_stream_config import TwoStreamConfig
from singlestream.objectives import base
from singlestream.objectives.prefix_lm import next_tokens

Options = base.NoOptions


class Objective(base.Objective):
    """Cross-entropy of every token but the first, [SEP] among them; words come from and go to one table."""

    def heads(self, config, spec):
        if isinstance(config, TwoStreamConfig) or not config.decoder_layers:
            raise ValueError("caption needs a single stream with a decoder: set config.model.decoder_layers above 0")
        return {"caption": HeadConfig(kind="vocabulary", size=spec.vocab_size, source="decoder")}

    def loss(self, encode, heads, batch, spec, key, state):
        return next_tokens(heads["caption"](encode(batch, direction="decoder")), batch), state
