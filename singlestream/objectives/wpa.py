"""Word-patch alignment by optimal transport (Chen et al. 2020, UNITER, section 3.2; Kim et al. 2021, ViLT, section 3).

The cost of moving the words of a text onto the tokens of its picture, by the inexact proximal point method for optimal
transport (Xie et al. 2018, IPOT, algorithm 1, with one inner iteration).
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from singlestream.batch import Array
from singlestream.model.pooling import tokens_of
from singlestream.objectives import base


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """`beta`, the weight of the proximal term, and how many `iterations` are run."""

    beta: float = 0.5
    iterations: int = 50

    def __post_init__(self) -> None:
        if not self.beta > 0:
            raise ValueError(f"config.objective_options.wpa.beta={self.beta}: must be above 0")
        if self.iterations < 1:
            raise ValueError(f"config.objective_options.wpa.iterations={self.iterations}: must be at least 1")


class Objective(base.Objective):
    """The mean transport cost of the examples, all of which match; ViLT and UNITER give it the weight 0.1.

    Cost is 1 - cosine of two states; each word (no [CLS], no [SEP]: ViLT) and each image token carries the same mass;
    the plan is a constant for the gradient, as in both papers' code. That code also takes the cost of pairs that do
    not match off the loss; the papers do not, and neither is it done here.
    """

    def heads(self, config, spec):
        widths = config.width, getattr(config, "image_width", config.width)
        if len(set(widths)) > 1:
            raise ValueError(
                f"wpa compares the states of words and of regions: config.model.width={widths[0]} and "
                f"config.model.image_width={widths[1]} must be equal"
            )
        return {}

    def loss(self, encode, heads, batch, spec, key, state):
        encoded, ids = encode(batch), batch.text.ids
        words = tokens_of(batch.text, batch.examples) & ((ids != spec.cls_id) & (ids != spec.sep_id))[:, None]
        seen = base.image_tokens_of(batch)
        text, image = base.unit(encoded.text), base.unit(encoded.image)
        cost = 1 - jnp.einsum("btd,bnd->btn", text, image, precision=jax.lax.Precision.HIGHEST)
        plan = transport(jax.lax.stop_gradient(cost), words, seen, self.options)
        moved = (plan * cost).sum(-1)
        distance = jnp.where(words, moved[:, None], 0).sum(-1)
        return {"loss": base.masked_sum(distance, batch.example_mask & words.any(-1) & seen.any(-1))}, state


def transport(
    cost: Float[Array, "B T N"], words: Bool[Array, "B K T"], seen: Bool[Array, "B K N"], options: Options
) -> Float[Array, "B T N"]:
    """The plan of every example between its words and its image tokens, 0 elsewhere, in the cost's precision.

    A word belongs to one example, so the plans of a row's examples lie in one matrix, while image tokens that several
    texts share have a scaling for each. Words are scaled last, as in the papers' code.
    """
    exact = jax.lax.Precision.HIGHEST
    row, column = words.astype(cost.dtype), seen.astype(cost.dtype)
    pairs = jnp.einsum("bkt,bkn->btn", row, column, precision=exact)
    kernel = jnp.exp(-cost / options.beta) * pairs
    num_words = (row * row.sum(-1, keepdims=True)).sum(1)  # of each word's example
    num_seen = column.sum(-1, keepdims=True)

    def iterate(_: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        plan, sigma = carry
        proximal = kernel * plan
        reached = jnp.einsum("bkt,btn->bkn", row, sigma[..., None] * proximal, precision=exact)
        delta = _inverse(num_seen * reached)
        # Of each word: the scaling of the image tokens in its own example.
        scaled = jnp.einsum("bkt,bkn->btn", row, delta, precision=exact) * proximal
        sigma = _inverse(num_words * scaled.sum(-1))
        return sigma[..., None] * scaled, sigma

    start = _inverse(num_words)
    return jax.lax.fori_loop(0, options.iterations, iterate, (pairs, start))[0]


def _inverse(x: Array) -> Array:
    """1 / x, and 0 where x is."""
    there = x > 0
    return jnp.where(there, 1 / jnp.where(there, x, 1), 0)
