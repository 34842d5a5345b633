"""One key a query, that of the highest score, with the gradient of soft attention."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Float

from singlestream.batch import Array
from singlestream.model.attention.choice import best, straight_through
from singlestream.model.attention.plain import MASKED, Mask
from singlestream.model.attention.whole import OneKey


def hard(scores: Float[Array, "B H Q K"], mask: Mask) -> Float[Array, "B H Q K"]:
    """Weights: 1 at the best visible key (the first of equal ones); their gradient is that of the softmax.

    The straight-through estimator (Bengio et al. 2013, section 3.2): the way back goes past the step of the argmax.
    """
    share = jax.nn.softmax(jnp.where(mask, scores, MASKED), axis=-1)
    return straight_through(best(scores, mask), share)


class Selection(OneKey):
    """`hard`."""

    def choose(self, scores: Float[Array, "B H Q K"], mask: Mask, *, key: jax.Array | None) -> Float[Array, "B H Q K"]:
        return hard(scores, mask)
