"""Rotary position embedding: queries and keys are turned by their places, so that a product sees their difference.

Words by their place in the text (Su et al. 2024, equation 34). Patches by row and column, half of the channels each, at
a lower base, since a picture has fewer rows than a text has words (Heo et al. 2024, section 3, axial). The score of any
other pair, a word and a patch or patches of two pictures, is that of the vectors as they are: their places are counted
on different axes, and to turn by both would say that word 3 is near row 3.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from singlestream.batch import TEXT, Array
from singlestream.model.attention.apart import apart
from singlestream.model.visibility import Visibility

TEXT_BASE, IMAGE_BASE = 10_000.0, 100.0  # of the papers


def angles(tokens: Visibility, size: int, dtype: jnp.dtype) -> Float[Array, "B L F"]:
    """By how much each token turns its size / 2 pairs of channels; regions stay as they are."""

    def of(places: Array, pairs: int, base: float) -> Float[Array, "B L F"]:
        return places[..., None].astype(dtype) * base ** (-jnp.arange(pairs, dtype=dtype) / pairs)

    words = of(tokens.place, size // 2, TEXT_BASE)
    if tokens.where is None:
        patches = jnp.zeros_like(words)
    else:
        patches = jnp.concatenate([of(tokens.where[..., i], size // 4, IMAGE_BASE) for i in (1, 2)], axis=-1)
    return jnp.where((tokens.modality == TEXT)[..., None], words, patches)


def turn(x: Float[Array, "B H L C"], by: Float[Array, "B L F"]) -> Float[Array, "B H L C"]:
    """Channels i and i + C / 2 make a pair (Su et al. pair neighbours: the same but for the channels' order)."""
    first, second = jnp.split(x.astype(by.dtype), 2, axis=-1)
    cos, sin = jnp.cos(by)[:, None], jnp.sin(by)[:, None]
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x.dtype)


class Relative(nnx.Module):
    """Scores of turned or plain queries and keys; no parameters. Heads have a multiple of 4 channels."""

    def __init__(self, num_heads: int, size: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        pass

    def __call__(
        self,
        score: Callable[[Array, Array], Array],
        q: Float[Array, "B H Q C"],
        k: Float[Array, "B H K C"],
        visibility: Visibility,
    ) -> Float[Array, "B H Q K"]:
        dtype, size = jnp.promote_types(q.dtype, jnp.float32), q.shape[-1]
        turned = (turn(x, angles(who, size, dtype)) for x, who in ((q, visibility), (k, visibility.read)))
        pairs = apart(visibility)
        return jnp.where((pairs.in_text | pairs.in_picture)[:, None], score(*turned), score(q, k))
