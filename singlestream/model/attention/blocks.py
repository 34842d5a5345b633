"""A row's tokens in blocks that do not depend on what else the row holds."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int32

from singlestream.batch import Array
from singlestream.model.visibility import Visibility, side_of

MODALITIES = 3  # text, image (and audio, on its side), learned tokens
PADDING = np.iinfo(np.int32).max  # in place of a segment: comes last


class Blocks(NamedTuple):
    """M blocks of S tokens of each row. What is left over is empty, and so is the end of a block."""

    token: Int32[Array, "B M S"]  # numbers of the tokens; 0 where there is none
    there: Bool[Array, "B M S"]
    place: Int32[Array, "B L"]  # of each token in the blocks laid end to end; M S for padding

    @property
    def first(self) -> Int32[Array, "B M"]:
        """A token of each block: all of a block see, and are seen by, the same ones (but for each itself)."""
        return self.token[..., 0]

    @property
    def used(self) -> Bool[Array, "B M"]:
        return self.there[..., 0]

    def gather(self, x: Float[Array, "B H L C"]) -> Float[Array, "B M H S C"]:
        """The tokens of each block; what is empty is 0."""
        # Row by row, so that an index is of a token: one of every number would be as large as what is gathered.
        found = jax.vmap(lambda row, token: row[:, token])(x, self.token)
        return jnp.where(self.there[:, None, ..., None], found, 0).swapaxes(1, 2)

    def scatter(self, x: Float[Array, "B M H S C"]) -> Float[Array, "B H L C"]:
        """The way back: each token's vector out of its block; 0 for padding."""
        flat = x.swapaxes(1, 2).reshape(x.shape[0], x.shape[2], -1, x.shape[4])
        return jax.vmap(lambda row, place: row.at[:, place].get(mode="fill", fill_value=0))(flat, self.place)

    def mean(self, blocks: Float[Array, "B M H S C"]) -> Float[Array, "B H M C"]:
        """The mean of each block's tokens, in float32 or wider."""
        kind = jnp.promote_types(blocks.dtype, jnp.float32)
        count = jnp.maximum(self.there.sum(-1), 1).astype(kind)[:, None, :, None]
        return blocks.sum(3, dtype=kind).swapaxes(1, 2) / count


def make_blocks(tokens: Visibility, size: int) -> Blocks:
    """Blocks of `size` tokens: those of one segment, modality and part, in their order, `size` after `size`.

    A row of L tokens has, of each of its G = `MODALITIES` x `tokens.examples` groups at most (one modality more with
    `bottleneck`), one block that is not full: L / S + G blocks hold all.
    """
    segments, part, length = tokens.segments, tokens.part, tokens.segments.shape[1]
    apart = tokens.direction == "bottleneck"  # in which audio is a modality by itself
    modality = tokens.modality if apart else side_of(tokens.modality)
    count = (length + (MODALITIES + apart) * tokens.examples * (size - 1)) // size
    segments = jnp.where(segments > 0, segments, PADDING)

    def of_row(*group: Array) -> tuple[Array, Array, Array]:
        order = jnp.lexsort(group[::-1]).astype(jnp.int32)
        numbers = jnp.arange(length, dtype=jnp.int32)
        group = tuple(x[order] for x in group)
        new = sum((x != jnp.roll(x, 1)).astype(jnp.int32) for x in group) > 0
        start = jax.lax.cummax(jnp.where(new | (numbers == 0), numbers, 0))
        slot = (numbers - start) % size
        block = jnp.cumsum(slot == 0, dtype=jnp.int32) - 1
        flat = jnp.where(group[0] == PADDING, count * size, block * size + slot)
        token = jnp.full((count * size,), -1, jnp.int32).at[flat].set(order, mode="drop")
        return (
            jnp.maximum(token, 0).reshape(count, size),
            (token >= 0).reshape(count, size),
            numbers.at[order].set(flat),
        )

    return Blocks(*jax.vmap(of_row)(segments, modality, part))
