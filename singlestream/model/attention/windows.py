"""Neighbourhoods of tokens: in their text, and in their picture."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Bool

from singlestream.batch import IMAGE, Array
from singlestream.model.attention.apart import Apart, apart
from singlestream.model.visibility import Visibility


def within(visibility: Visibility, window: int) -> Bool[Array, "B Q K"]:
    """True where a query is no farther from a key than `window`: words in their text, patches in their picture.

    Between patches the larger one of the distances in rows and in columns counts. Patches of two pictures are never
    near. A pair that has no distance, a word and a patch, or a class token and anything, always is.
    """
    pairs = apart(visibility)
    beside = jnp.maximum(jnp.abs(pairs.row), jnp.abs(pairs.column)) <= window
    return near(visibility, pairs, jnp.abs(pairs.place) <= window, beside)


def touching(visibility: Visibility) -> Bool[Array, "B Q K"]:
    """True where key and query are one token or neighbours: words side by side, patches that share an edge.

    Of pairs without such a distance as in `within`.
    """
    pairs = apart(visibility)
    beside = jnp.abs(pairs.row) + jnp.abs(pairs.column) <= 1
    return near(visibility, pairs, jnp.abs(pairs.place) <= 1, beside)


def near(
    visibility: Visibility, pairs: Apart, words: Bool[Array, "B Q K"], patches: Bool[Array, "B Q K"]
) -> Bool[Array, "B Q K"]:
    """`words` for two words of a text, `patches` for two patches of a picture, and what `within` says of others."""
    two_patches = _patches(visibility)[:, :, None] & _patches(visibility.read)[:, None]
    return jnp.where(pairs.in_text, words, jnp.where(two_patches, pairs.in_picture & patches, True))


def _patches(tokens: Visibility) -> Bool[Array, "B L"]:
    if tokens.where is None:
        return jnp.zeros(tokens.modality.shape, bool)
    return (tokens.modality == IMAGE) & (tokens.where[..., 0] >= 0)
