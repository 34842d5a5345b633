"""Keys in a window around the query, and everything of the other modality."""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from singlestream.batch import Array
from singlestream.model.attention.config import AttentionConfig
from singlestream.model.attention.plain import Scores, weigh
from singlestream.model.attention.windows import within
from singlestream.model.visibility import Visibility


class Selection(nnx.Module):
    """Softmax over the visible keys `within` the window; no parameters.

    A word reads the words at most `window` places away and all patches; a patch reads the patches of its picture at
    most `window` rows and columns away and all words. These are sliding windows (Beltagy et al. 2020, section 3.1; over
    rows and columns Parmar et al. 2018, section 3.3), with the other modality in the part of their global tokens: a
    word may mean any place, and joins places that do not see each other. The whole matrix is computed.
    """

    draws: ClassVar = False

    def __init__(self, config: AttentionConfig, num_heads: int, size: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.window = config.window

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
        mask = (visibility.mask() & within(visibility, self.window))[:, None]
        return weigh(scores(q, k, visibility), v, mask, rate=rate, key=key, weights=weights)
