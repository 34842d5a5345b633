"""Keys in a window around the query, and everything of the other modality."""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Bool, Float

from singlestream.batch import Array
from singlestream.model.attention.config import AttentionConfig
from singlestream.model.attention.whole import Softmax
from singlestream.model.attention.windows import within
from singlestream.model.visibility import Visibility


class Selection(Softmax):
    """Softmax over the visible keys `within` the window; no parameters.

    A word reads the words at most `window` places away and all patches; a patch reads the patches of its picture at
    most `window` rows and columns away and all words. These are sliding windows (Beltagy et al. 2020, section 3.1; over
    rows and columns Parmar et al. 2018, section 3.3), with the other modality in the part of their global tokens: a
    word may mean any place, and joins places that do not see each other. The whole matrix is computed.
    """

    def __init__(self, config: AttentionConfig, num_heads: int, size: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.window = config.window

    def see(
        self, scores: Float[Array, "B H Q K"], visibility: Visibility
    ) -> tuple[Float[Array, "B H Q K"], Bool[Array, "B Q K"]]:
        return scores, visibility.mask() & within(visibility, self.window)
