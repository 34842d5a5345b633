"""What selections that compute every score have in common."""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Bool, Float

from singlestream.batch import Array
from singlestream.model.attention.choice import halves, read, straight_through
from singlestream.model.attention.config import AttentionConfig
from singlestream.model.attention.plain import Mask, Scores, weigh
from singlestream.model.visibility import Visibility

PerKey = Float[Array, "B H Q K"]
Values = Float[Array, "B H _ C"]
Key = jax.Array | None  # of what is drawn


class Whole(nnx.Module):
    """A selection without parameters to which every score is computed; `apply` reads by them."""

    draws: ClassVar = False

    def __init__(self, config: AttentionConfig, num_heads: int, size: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        pass

    def apply(
        self, scores: PerKey, v: Values, visibility: Visibility, *, rate: float, key: Key, weights: bool
    ) -> tuple[Values, PerKey | None]:
        """What each query reads and, if asked for, the weights with which; the rest as `__call__` has it."""
        raise NotImplementedError

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
        return self.apply(self.score(scores, q, k, visibility), v, visibility, rate=rate, key=key, weights=weights)

    def score(
        self, scores: Scores, q: Float[Array, "B H Q C"], k: Float[Array, "B H K C"], visibility: Visibility
    ) -> PerKey:
        """What `apply` gets: the scores, unless a selection adds something of its own."""
        return scores(q, k, visibility)


class Softmax(Whole):
    """Softmax over the keys that `see` leaves; without more, every visible one."""

    def see(self, scores: PerKey, visibility: Visibility) -> tuple[PerKey, Bool[Array, "B Q K"]]:
        """The scores, and which keys are read."""
        return scores, visibility.mask()

    def apply(
        self, scores: PerKey, v: Values, visibility: Visibility, *, rate: float, key: Key, weights: bool
    ) -> tuple[Values, PerKey | None]:
        found, mask = self.see(scores, visibility)
        return weigh(found, v, mask[:, None], rate=rate, key=key, weights=weights)


class OneKey(Whole):
    """One key a query, by the weights that `choose` gives."""

    straight: ClassVar = True  # whether what is read has the gradient of the weights; if not, they alone have it

    def choose(self, scores: PerKey, mask: Mask, *, key: Key) -> PerKey:
        """1 at the chosen key, with the gradient that the scores get; `key` is of what is drawn."""
        raise NotImplementedError

    def apply(
        self, scores: PerKey, v: Values, visibility: Visibility, *, rate: float, key: Key, weights: bool
    ) -> tuple[Values, PerKey | None]:
        draw, noise = halves(key)
        chosen = self.choose(scores, visibility.mask()[:, None], key=draw)
        out, applied = read(chosen if self.straight else jax.lax.stop_gradient(chosen), v, rate=rate, key=noise)
        if not self.straight:
            # What is dropped of the weights is not read; the others' gradients are as they were.
            applied = straight_through(applied, chosen)
        return out, applied if weights else None
