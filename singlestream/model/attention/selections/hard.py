"""One key a query, that of the highest score, with the gradient of soft attention."""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from singlestream.batch import Array
from singlestream.model.attention.choice import Mask, best, read, straight_through
from singlestream.model.attention.config import AttentionConfig
from singlestream.model.attention.plain import MASKED, Scores
from singlestream.model.visibility import Visibility


def hard(scores: Float[Array, "B H Q K"], mask: Mask) -> Float[Array, "B H Q K"]:
    """Weights: 1 at the best visible key (the first of equal ones); their gradient is that of the softmax.

    The straight-through estimator (Bengio et al. 2013, section 3.2): the way back goes past the step of the argmax.
    """
    share = jax.nn.softmax(jnp.where(mask, scores, MASKED), axis=-1)
    return straight_through(best(scores, mask), share)


class Selection(nnx.Module):
    """`hard`; no parameters."""

    draws: ClassVar = False

    def __init__(self, config: AttentionConfig, num_heads: int, size: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        pass

    def __call__(
        self,
        scores: Scores,
        q: Float[Array, "B H Q C"],
        k: Float[Array, "B H K C"],
        v: Float[Array, "B H K C"],
        visibility: Visibility,
        *,
        rate: float = 0.0,
        key: jax.Array | None = None,
        weights: bool = False,
    ) -> tuple[Float[Array, "B H Q C"], Float[Array, "B H Q K"] | None]:
        out, found = read(hard(scores(q, k, visibility), visibility.mask()[:, None]), v, rate=rate, key=key)
        return out, found if weights else None
