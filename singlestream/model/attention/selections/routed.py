"""Blocks of keys, chosen for each block of queries by coarse keys: most scores are never computed."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Bool, Float, Int32

from singlestream.batch import Array
from singlestream.model.attention import turns
from singlestream.model.attention.blocks import Blocks, make_blocks
from singlestream.model.attention.config import AttentionConfig
from singlestream.model.attention.plain import MASKED, Scores, weigh
from singlestream.model.attention.share import at_most, how_many
from singlestream.model.attention.turns import in_turn, join, split
from singlestream.model.visibility import Visibility


def route(
    coarse: Float[Array, "B H M N"], seen: Bool[Array, "B M N"], keep: float
) -> tuple[Int32[Array, "B M R"], Bool[Array, "B M R"]]:
    """Which blocks of keys each block of queries reads, the best ones first, and which of these count.

    Heads choose together: each takes the softmax of its coarse scores over the blocks that can be seen, and the sum
    over heads decides (Yuan et al. 2025, equations 9 and 10); of equal ones the first.

    Args:
        coarse: scores of N blocks of keys for M blocks of queries.
        seen: what can be chosen.
        keep: 1 or more, a number of blocks; below 1, a share of those that can be chosen, rounded up.
    """
    share = jax.nn.softmax(jnp.where(seen[:, None], coarse, MASKED), axis=-1).sum(1)
    most = at_most(keep, seen.shape[-1])
    _, chosen = jax.lax.top_k(jnp.where(seen, share, -1.0), most)
    return chosen, jnp.arange(most) < how_many(keep, seen.sum(-1, dtype=jnp.int32))[..., None]


class Selection(nnx.Module):
    """Softmax attention of each block of queries over its own block and `keep` others; no parameters.

    The tokens of one segment, modality and part are cut into blocks of `block`, in their order (`make_blocks`), so that
    neither padding nor what is packed beside them moves a border. A block's coarse query and key are the means of its
    queries and keys; the model's own score of the two ranks the blocks, as by mean-pooled keys in Lu et al. 2025 (MoBA,
    equations 5 and 6), here with the queries in blocks, too; where distance counts, a block stands where its first
    token does. Within the blocks that are read every visible key counts. The choice has no gradient. Between two
    streams no block is a query's own.

    L tokens in blocks of S that read R blocks have L R S scores and (L / S)^2 coarse ones; the queries take turns.
    """

    draws: ClassVar = False

    def __init__(self, config: AttentionConfig, num_heads: int, size: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.keep, self.block = config.keep, config.block

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
        if visibility.direction == "causal":
            raise ValueError("config.model.attention.selection='routed' does not go with the direction 'causal'")
        mine, read = make_blocks(visibility, self.block), make_blocks(visibility.read, self.block)
        asked, keys, values = mine.gather(q), read.gather(k), read.gather(v)
        chosen, counts = self._choose(scores, mine, read, asked, keys, visibility)

        def step(asked: Array, token: Array, chosen: Array, counts: Array, key: jax.Array | None) -> Any:
            who, there = _tokens(visibility, read, token, chosen, counts)
            asked, *found = _folded(asked), *(_side_by_side(x, chosen) for x in (keys, values))
            mask = who.mask() & there[:, None]
            out = weigh(scores(asked, found[0], who), found[1], mask[:, None], rate=rate, key=key, weights=weights)
            return jax.tree.map(lambda x: x.reshape(*token.shape[:2], *x.shape[1:]), out)

        stretches = [split(x, 1, max(1, turns.QUERIES // self.block)) for x in (asked, mine.token, chosen, counts)]
        out, found = jax.tree.map(lambda x: join(x, 1, mine.token.shape[1]), in_turn(step, *stretches, key=key))
        return mine.scatter(out), _whole(found, mine, read, chosen) if weights else None

    def _choose(
        self, scores: Scores, mine: Blocks, read: Blocks, asked: Array, keys: Array, visibility: Visibility
    ) -> tuple[Int32[Array, "B M R"], Bool[Array, "B M R"]]:
        """The blocks that each block reads, its own first, and which of them count."""
        firsts = visibility.at(mine.first).towards(visibility.read.at(read.first))
        coarse = jax.lax.stop_gradient(scores(mine.mean(asked), read.mean(keys), firsts))
        seen = firsts.mask() & mine.used[..., None] & read.used[:, None]
        if visibility.keys is not None:
            return route(coarse, seen, self.keep)
        count = seen.shape[1]
        chosen, counts = route(coarse, seen & ~jnp.eye(count, dtype=bool), self.keep)
        own = jnp.broadcast_to(jnp.arange(count, dtype=jnp.int32)[:, None], (len(seen), count, 1))
        return jnp.concatenate([own, chosen], -1), jnp.concatenate([mine.used[..., None], counts], -1)


def _folded(x: Array) -> Array:
    """Rows and their blocks on one axis."""
    return x.reshape(-1, *x.shape[2:])


def _pick(x: Array, chosen: Int32[Array, "B M R"]) -> Array:
    """Of each row's blocks [B, N, ...] those that are chosen: [B, M, R, ...]."""
    return jax.vmap(lambda row, index: row[index])(x, chosen)


def _side_by_side(blocks: Float[Array, "B N H S C"], chosen: Int32[Array, "B M R"]) -> Float[Array, "BM H RS C"]:
    """What each block of queries reads, as one sequence."""
    found = _folded(_pick(blocks, chosen)).swapaxes(1, 2)
    return found.reshape(*found.shape[:2], -1, found.shape[-1])


def _tokens(
    visibility: Visibility, read: Blocks, token: Int32[Array, "B M S"], chosen: Array, counts: Array
) -> tuple[Visibility, Bool[Array, "BM RS"]]:
    """Who asks and who is read in each block of queries, and which of those that are read are there."""
    rows, blocks = chosen.shape[:2]

    def of(tokens: Visibility, index: Array) -> Visibility:
        bare = dataclasses.replace(tokens, edges=None, perturbation=None)  # which know the rows as they were
        size = index.shape[2]
        return bare.at(index.reshape(rows, -1)).each(lambda x: x.reshape(rows * blocks, size, *x.shape[2:]))

    keys = _pick(read.token, chosen).reshape(rows, blocks, -1)
    there = (_pick(read.there, chosen) & counts[..., None]).reshape(rows * blocks, -1)
    return of(visibility, token).towards(of(visibility.read, keys)), there


def _whole(
    found: Float[Array, "B M H S RS"], mine: Blocks, read: Blocks, chosen: Int32[Array, "B M R"]
) -> Float[Array, "B H Q K"]:
    """The weights in the whole matrix, 0 where no score was computed."""
    rows, lengths = len(found), [blocks.place.shape[1] for blocks in (mine, read)]
    queries = jnp.where(mine.there, mine.token, lengths[0])[..., None]  # what is no token falls out of the matrix
    keys = _pick(read.token, chosen).reshape(rows, found.shape[1], 1, -1)
    whole = jnp.zeros((rows, *lengths, found.shape[2]), found.dtype)
    row = jnp.arange(rows)[:, None, None, None]
    return jnp.moveaxis(whole.at[row, queries, keys].add(jnp.moveaxis(found, 2, -1), mode="drop"), -1, 1)
