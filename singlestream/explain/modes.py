"""Singular modes of the co-attention: which words go together with which patches, taken apart into simple pairs."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Bool, Float

from singlestream.batch import Array


class Modes(NamedTuple):
    """The strongest modes of each map, the strongest first.

    A map is the sum over modes of strength x words x patches. Vectors have length 1; the largest entry of `patches` is
    positive, so that a mode is told from its mirror.
    """

    strength: Float[Array, "*S M"]
    words: Float[Array, "*S M T"]
    patches: Float[Array, "*S M N"]


def modes(maps: Float[Array, "*S T N"], own: Bool[Array, "*B T N"], number: int) -> Modes:
    """The singular value decomposition of each map (Eckart & Young 1936).

    Args:
        maps: what words give to image tokens, as `model.maps.text_to_image` [layers, B, H, T, N] has it.
        own: which of the weights count, broadcast against `maps`; padding would make modes of its own.
        number: of modes, at most as many as there are words and patches.
    """
    words, strength, patches = jnp.linalg.svd(jnp.where(own, maps, 0), full_matrices=False)
    words, strength, patches = words.mT[..., :number, :], strength[..., :number], patches[..., :number, :]
    largest = jnp.take_along_axis(patches, jnp.abs(patches).argmax(-1, keepdims=True), axis=-1)
    sign = jnp.where(largest < 0, -1, 1)
    return Modes(strength, words * sign, patches * sign)
