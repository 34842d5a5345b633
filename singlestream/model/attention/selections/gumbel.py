"""One key a query, drawn from the softmax by Gumbel noise while the model is trained, the best one without a key."""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from singlestream.batch import Array
from singlestream.model.attention.choice import Mask, best, halves, read, straight_through
from singlestream.model.attention.config import AttentionConfig
from singlestream.model.attention.plain import MASKED, Scores
from singlestream.model.visibility import Visibility


def gumbel(
    scores: Float[Array, "B H Q K"], mask: Mask, *, temperature: float, key: jax.Array | None
) -> Float[Array, "B H Q K"]:
    """Weights: 1 at the key of the highest score plus Gumbel noise g, a draw from the softmax of the scores.

    Their gradient is that of softmax((scores + g) / temperature): the straight-through Gumbel-softmax estimator (Jang
    et al. 2017, section 2.2; equation 2 for the softmax). Without a key there is no noise.
    """
    if key is not None:
        scores = scores + jax.random.gumbel(key, scores.shape, scores.dtype)
    # Masked after the division: what is masked stays finite at any temperature.
    share = jax.nn.softmax(jnp.where(mask, scores / temperature, MASKED), axis=-1)
    return straight_through(best(scores, mask), share)


class Selection(nnx.Module):
    """`gumbel` at the temperature of the settings; no parameters."""

    draws: ClassVar = True

    def __init__(self, config: AttentionConfig, num_heads: int, size: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.temperature = config.temperature

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
        draw, noise = halves(key)
        mask = visibility.mask()[:, None]
        chosen = gumbel(scores(q, k, visibility), mask, temperature=self.temperature, key=draw)
        out, found = read(chosen, v, rate=rate, key=noise)
        return out, found if weights else None
