"""Attention of one sequence to another."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from singlestream.batch import Array
from singlestream.model.attention.attend import merge_heads, split_heads
from singlestream.model.block import attention, dense
from singlestream.model.config import ModelConfig
from singlestream.model.visibility import Visibility


class Memory(NamedTuple):
    """What a layer's attention reads: keys and values of H heads."""

    keys: Float[Array, "B K H C"]
    values: Float[Array, "B K H C"]


class CrossAttention(nnx.Module):
    """Queries of one sequence over keys and values of another (Vaswani et al. 2017, section 3.2.3).

    A token whose example has nothing in the other sequence reads zeros.

    Args:
        reader: of the sequence that reads.
        read_width: width of the sequence that is read.
        width, num_heads: of the attention.
    """

    def __init__(self, reader: ModelConfig, *, read_width: int, width: int, num_heads: int, rngs: nnx.Rngs):
        self.num_heads = num_heads
        self.query = dense(reader, reader.width, width, rngs=rngs)
        self.key = dense(reader, read_width, width, rngs=rngs)
        self.value = dense(reader, read_width, width, rngs=rngs)
        self.out = dense(reader, width, reader.width, rngs=rngs)
        # Two sequences have no places in common that `relative` could tell apart.
        kind = dataclasses.replace(reader.attention, relative="none")
        self.attend = attention(dataclasses.replace(reader, attention=kind), width, num_heads, rngs=rngs)

    def memory(self, other: Float[Array, "B K E"]) -> Memory:
        """What `read` reads of the other sequence."""
        return Memory(*(split_heads(project(other), self.num_heads) for project in (self.key, self.value)))

    def read(
        self,
        x: Float[Array, "B Q D"],
        memory: Memory,
        visibility: Visibility,
        *,
        key: jax.Array | None = None,
        weights: bool = False,
    ) -> tuple[Float[Array, "B Q D"], Float[Array, "B H Q K"] | None]:
        """What each token reads, and the weights where asked for.

        Args:
            visibility: the reader's, `towards` the sequence that is read.
            key: of the noise of attention weights.
        """
        q = split_heads(self.query(x), self.num_heads)
        out, found = self.attend(q, *memory, visibility, key=key, weights=weights)
        # Beside its own sequence a token may be alone; what it would read then hangs on how far the row is padded.
        reads = visibility.mask().any(-1)[:, :, None, None]
        if found is not None:
            found = jnp.where(reads.swapaxes(1, 2), found, 0)
        return self.out(merge_heads(jnp.where(reads, out, 0))), found
