"""One key a query, drawn from the softmax; the scores learn by REINFORCE alone (see `objectives.reinforce`)."""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Float

from singlestream.batch import Array
from singlestream.model.attention.choice import best, straight_through
from singlestream.model.attention.plain import MASKED, Mask
from singlestream.model.attention.whole import OneKey


def sampled(scores: Float[Array, "B H Q K"], mask: Mask, *, key: jax.Array | None) -> Float[Array, "B H Q K"]:
    """Weights: 1 at a key drawn from p, the softmax over visible keys; without `key` at the best one.

    This is the stochastic "hard" attention of Xu et al. 2015, section 4.1 (equations 8 and 9). A draw has no gradient;
    what the weights carry is what a learner by REINFORCE wants to know, and neither changes their value:

    - at the chosen key the gradient of log p(choice),
    - at the other visible keys, together, the gradient of the entropy of p.
    """
    log_p = jax.nn.log_softmax(jnp.where(mask, scores, MASKED), axis=-1)
    noisy = scores if key is None else scores + jax.random.gumbel(key, scores.shape, scores.dtype)
    chosen = best(noisy, mask)
    entropy = -jnp.where(mask, jnp.exp(log_p) * log_p, 0).sum(-1, keepdims=True)
    others = jnp.maximum(mask.sum(-1, keepdims=True) - 1, 1)
    learned = jnp.where(chosen > 0, log_p, jnp.where(mask, entropy / others, 0))
    return straight_through(chosen, learned)


class Selection(OneKey):
    """`sampled`."""

    draws: ClassVar = True
    straight: ClassVar = False

    def choose(self, scores: Float[Array, "B H Q K"], mask: Mask, *, key: jax.Array | None) -> Float[Array, "B H Q K"]:
        return sampled(scores, mask, key=key)
