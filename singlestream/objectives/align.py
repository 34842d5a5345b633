"""Supervised attention: chosen heads learn to look where a word's truth lies.

After the supervised attention of Liu et al. 2017 ("Attention correctness in neural image captioning"). Their
cross-entropy wants the weights even over a box; this one asks for their sum, and leaves open where inside they lie.
It is supervision by place; whoever reports a figure that used it says so.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp

from singlestream.model.config import ModelConfig
from singlestream.model.directions import reading_layers
from singlestream.model.maps import text_to_image
from singlestream.model.mentions import mentions, pointed
from singlestream.model.two_stream_config import TwoStreamConfig
from singlestream.objectives import base

LEAST = 1e-6  # of the attention inside, so that what looks nowhere near it has a finite loss


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """The `heads`, counted from 0, of the `layer`, counted from 1 (0: the last one), that learn to point.

    In two streams layers are those that cross.
    """

    layer: int = 0
    heads: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        heads = tuple(self.heads)
        object.__setattr__(self, "heads", heads)
        if not heads or min(heads) < 0:
            raise ValueError(f"config.objective_options.align.heads={heads}: expected one or more, counted from 0")
        if self.layer < 0:
            raise ValueError(f"config.objective_options.align.layer={self.layer}: must be at least 0")


class Objective(base.Objective):
    """-log of the attention inside the true boxes, the mean over naming words and chosen heads.

    Of a naming word's weights on everything it reads, the part on image tokens whose centres lie in one of its boxes.
    Words none of whose boxes holds a centre have no loss. `pointing` is the share of words whose strongest image token
    lies inside, `inside` the part itself.
    """

    targets = ("word_boxes",)
    needs_attention = True

    def heads(self, config, spec):
        of_cross = isinstance(config, TwoStreamConfig)
        layers, heads = (config.num_cross, config.cross_heads) if of_cross else (config.depth, config.num_heads)
        options = self.options
        if options.layer > layers:
            raise ValueError(
                f"config.objective_options.align.layer={options.layer}: the model has {layers} such layers"
            )
        if of_cross and not config.words_read_image:
            raise ValueError(
                f"config.model.coattention={config.coattention}, config.model.direction={config.direction!r}: no word "
                "reads the picture, no head can point"
            )
        if not of_cross and (options.layer or layers) not in reading_layers(config):
            raise ValueError(_unread(config, options.layer))
        if max(options.heads) >= heads:
            raise ValueError(
                f"config.objective_options.align.heads={options.heads}: the model has {heads} heads, counted from 0"
            )
        return {}

    def loss(self, encode, heads, batch, spec, key, state):
        maps = text_to_image(encode(batch, attention=True).attention, batch=batch)[self.options.layer - 1]
        maps = maps[:, jnp.array(self.options.heads)]  # [B, H, T, N]
        truth = mentions(batch, spec.continuations)
        words = (truth.named & truth.true.any(-1))[:, None]
        inside = jnp.where(truth.true[:, None], maps, 0).sum(-1)
        hits = pointed(maps, truth.true[:, None], truth.own[:, None])
        mask = jnp.broadcast_to(words, inside.shape)
        metrics = {
            "loss": base.masked_sum(-jnp.log(jnp.maximum(inside, LEAST)), mask),
            "inside": base.masked_sum(inside, mask),
            "pointing": base.masked_sum(hits.astype(inside.dtype), mask),
        }
        return metrics, state


def _unread(config: ModelConfig, layer: int) -> str:
    """What is said of a layer in which no word reads the picture."""
    reading, keys = reading_layers(config), ("direction", "num_layers", "late_layers", "hops")
    at = ", ".join(f"config.model.{key}={getattr(config, key)!r}" for key in keys[: 4 if reading else 2])
    choose = f"choose one of {', '.join(map(str, reading))}" if reading else "there is none in which one does"
    return f"config.objective_options.align.layer={layer} with {at}: no word reads the picture there; {choose}"
