"""What selections that read one key a query have in common."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Float

from singlestream.batch import Array
from singlestream.model.attention.plain import MASKED, Mask
from singlestream.model.noise import dropout


def best(scores: Float[Array, "B H Q K"], mask: Mask) -> Float[Array, "B H Q K"]:
    """1 at the visible key of the highest score, the first of equal ones, 0 elsewhere."""
    top = jnp.where(mask, scores, MASKED).argmax(-1)
    return jax.nn.one_hot(top, scores.shape[-1], dtype=scores.dtype)


def straight_through(chosen: Float[Array, "*S"], share: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """The value of `chosen`, bit for bit, with the gradient of `share` (Bengio et al. 2013, section 3.2)."""
    return chosen + (share - jax.lax.stop_gradient(share))


def read(
    weights: Float[Array, "B H Q K"], v: Float[Array, "B H K C"], *, rate: float, key: jax.Array | None
) -> tuple[Float[Array, "B H Q C"], Float[Array, "B H Q K"]]:
    """The values weighed, and the weights as they were applied: some dropped, the others scaled up."""
    weights = dropout(weights, rate, key)
    return jnp.einsum("bhqk,bhkc->bhqc", weights.astype(v.dtype), v), weights


def halves(key: jax.Array | None) -> tuple[jax.Array | None, jax.Array | None]:
    """A key for what is drawn and one for dropout; neither where noise is off."""
    return (None, None) if key is None else tuple(jax.random.split(key))
