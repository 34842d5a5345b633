"""Every visible key, by softmax of the scores."""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from singlestream.batch import Array
from singlestream.model.attention.config import AttentionConfig
from singlestream.model.attention.plain import Scores, weigh
from singlestream.model.visibility import Visibility


class Selection(nnx.Module):
    """`weigh` over the whole matrix; no parameters."""

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
        return weigh(scores(q, k, visibility), v, visibility.mask()[:, None], rate=rate, key=key, weights=weights)
