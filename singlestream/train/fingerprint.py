"""Sums over the bits of arrays, kept with a checkpoint: its files have no checksum over an array's content."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from singlestream.train.paths import path_of


def device_sums(tree: Any) -> jax.Array:
    """uint32 [leaves]: for each leaf the sum modulo 2^32 of its bits as integers; the same however it is sharded."""

    def one(x: jax.Array) -> jax.Array:
        x = x.astype(jnp.uint8) if x.dtype == bool else x
        bits = jax.lax.bitcast_convert_type(x, jnp.dtype(f"uint{8 * min(x.dtype.itemsize, 4)}"))
        return bits.sum(dtype=jnp.uint32)

    return jnp.stack([one(leaf) for leaf in jax.tree.leaves(tree)])


def host_sum(x: Any) -> int:
    """What `device_sums` gives for one array, in numpy."""
    x = np.ascontiguousarray(x)
    bits = x.reshape(-1).view(np.dtype(f"uint{8 * min(x.dtype.itemsize, 4)}"))
    return int(bits.sum(dtype=np.uint64) & 0xFFFFFFFF)


def digest(tree: Any) -> int:
    """One number of all arrays of a tree: a CRC-32 of `device_sums`."""
    return zlib.crc32(np.asarray(device_sums(tree)).tobytes())


def by_path(tree: Any, sums: Any) -> dict[str, int]:
    """The sums as numbers under the paths of the tree's leaves."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {path_of(keys): int(n) for (keys, _), n in zip(leaves, np.asarray(sums), strict=True)}


def first_difference(found: Mapping[str, int], kept: Mapping[str, int]) -> str | None:
    """The first path in both whose sums differ."""
    return next((path for path in sorted(found.keys() & kept.keys()) if found[path] != kept[path]), None)
