"""Several windows at once, and a learned gate that weighs them for each query."""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Bool, Float

from singlestream.batch import Array
from singlestream.model.attention.choice import read
from singlestream.model.attention.config import AttentionConfig
from singlestream.model.attention.plain import MASKED, Scores
from singlestream.model.attention.windows import within
from singlestream.model.visibility import Visibility


def gates(
    q: Float[Array, "B H Q C"], kernel: Float[Array, "C H S"], bias: Float[Array, "H S"]
) -> Float[Array, "B H Q S"]:
    """How much each query wants of each scale: the softmax of a linear function of it (Jacobs et al. 1991, a gate)."""
    kind = jnp.promote_types(q.dtype, jnp.float32)
    logits = jnp.einsum("bhqc,chs->bhqs", q.astype(kind), kernel.astype(kind)) + bias[:, None]
    return jax.nn.softmax(logits, axis=-1)


def multi_scale(
    scores: Float[Array, "B H Q K"], masks: list[Bool[Array, "B Q K"]], gate: Float[Array, "B H Q S"]
) -> Float[Array, "B H Q K"]:
    """Weights: the sum over scales s of gate[s] times the softmax of the scores over what scale s sees."""
    found = jnp.zeros_like(scores)
    for scale, mask in enumerate(masks):
        share = jax.nn.softmax(jnp.where(mask[:, None], scores, MASKED), axis=-1)
        found += gate[..., scale, None] * share
    return found


class Selection(nnx.Module):
    """`multi_scale` over the windows of the settings, 0 for everything, which share the scores.

    Heads with windows of their own are Guo et al.'s (2020, section 3.2); here each head has all, and each query's gate
    says which counts. Its kernel [C, H, S] and bias [H, S] start at 0, all scales alike.
    """

    draws: ClassVar = False

    def __init__(self, config: AttentionConfig, num_heads: int, size: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.windows = config.windows
        self.kernel = nnx.Param(jnp.zeros((size, num_heads, len(self.windows)), dtype))
        self.bias = nnx.Param(jnp.zeros((num_heads, len(self.windows)), dtype))

    def gates(self, q: Float[Array, "B H Q C"]) -> Float[Array, "B H Q S"]:
        """The gates of these queries, a share of each window."""
        return gates(q, self.kernel[...], self.bias[...])

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
        mask = visibility.mask()
        masks = [mask & within(visibility, window) if window else mask for window in self.windows]
        found = multi_scale(scores(q, k, visibility), masks, self.gates(q))
        out, found = read(found, v, rate=rate, key=key)
        return out, found if weights else None
