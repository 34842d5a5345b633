"""Attention for rows in which several texts, each in a slot of its own, share one picture."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Float

from singlestream.batch import Array
from singlestream.model.attention.plain import MASKED
from singlestream.model.directions import HIDE_TEXT
from singlestream.model.noise import dropout
from singlestream.model.visibility import Visibility


def is_slotted(implementation: str, direction: str, slots: int) -> bool:
    """Whether `attend` takes this path, for settings of a model and `Text.slots` of a batch."""
    return implementation == "auto" and direction in HIDE_TEXT and slots > 1


def slotted(
    q: Float[Array, "B L H C"],
    k: Float[Array, "B L H C"],
    v: Float[Array, "B L H C"],
    visibility: Visibility,
    *,
    rate: float = 0.0,
    key: jax.Array | None = None,
) -> Float[Array, "B L H C"]:
    """The plain path's result without the scores between different texts; `q` comes scaled.

    With K texts of t tokens on N patches the matrix has (K t + N)^2 entries, of which K t (N + t) + N^2 can be seen;
    only these are computed. Needs a direction in which pictures see no text, and slots that no text crosses
    (`Visibility.slots`).
    """
    keys = (None,) * 3 if key is None else jax.random.split(key, 3)
    num_text, slots = visibility.num_text, visibility.slots
    rows, length, heads, size = q.shape
    text, image = slice(0, num_text), slice(num_text, length)
    q, k, v = (x.swapaxes(1, 2) for x in (q, k, v))
    slot = num_text // slots
    slot_shape = (rows, heads, slots, slot, size)

    def scores(queries: slice) -> Float[Array, "B H Q N"]:
        s = jnp.einsum("bhqc,bhkc->bhqk", q[:, :, queries], k[:, :, image])
        s = visibility.weigh_sizes(_wide(s), image)
        return _masked(s, visibility.mask(queries, image)[:, None])

    q_text, k_text, v_text = (x[:, :, text].reshape(slot_shape) for x in (q, k, v))
    own = _masked(jnp.einsum("bhsqc,bhskc->bhsqk", q_text, k_text), _slot_mask(visibility, slot)[:, None])
    own = own.reshape(rows, heads, num_text, slot)
    seen = scores(text)
    top = jax.lax.stop_gradient(jnp.maximum(own.max(-1), seen.max(-1, initial=MASKED)))[..., None]
    own, seen = jnp.exp(own - top), jnp.exp(seen - top)
    total = own.sum(-1) + seen.sum(-1)
    own, seen = dropout(own, rate, keys[0]), dropout(seen, rate, keys[1])  # after the sum, as in the plain path
    from_own = jnp.einsum("bhsqk,bhskc->bhsqc", own.reshape(*slot_shape[:-1], slot).astype(v.dtype), v_text)
    from_image = jnp.einsum("bhqk,bhkc->bhqc", seen.astype(v.dtype), v[:, :, image])
    # Added and divided in float32 or wider, rounded once, as in the plain path.
    both = from_own.reshape(from_image.shape).astype(total.dtype) + from_image.astype(total.dtype)
    out_text = (both / total[..., None]).astype(v.dtype)

    weights = dropout(jax.nn.softmax(scores(image), axis=-1), rate, keys[2])
    out_image = jnp.einsum("bhqk,bhkc->bhqc", weights.astype(v.dtype), v[:, :, image])
    return jnp.concatenate([out_text, out_image], axis=2).swapaxes(1, 2)


def _masked(scores: Array, mask: Array) -> Array:
    return jnp.where(mask, _wide(scores), MASKED)


def _wide(scores: Array) -> Array:
    return scores.astype(jnp.promote_types(scores.dtype, jnp.float32))


def _slot_mask(visibility: Visibility, slot: int) -> Array:
    """[B, slots, slot, slot]: who sees whom within each slot."""

    def within(x: Array) -> Array:
        return x[:, : visibility.num_text].reshape(-1, slot, *x.shape[2:])

    each = visibility.each(within)
    return each.mask().reshape(-1, visibility.slots, slot, slot)
