"""Which image tokens stay: ranked by the attention that they receive, within their own segment alone.

So an example's choice is its own, whatever lies beside it in row and batch. Equal tokens rank in raster order.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Bool, Float, Int32

from singlestream.batch import TEXT, Array, Size
from singlestream.model.visibility import Visibility


def same(segments: Int32[Array, "B N"]) -> Bool[Array, "B N N"]:
    """Pairs of tokens of one segment; padding is with none."""
    return (segments[:, :, None] == segments[:, None]) & (segments[:, None] != 0)


def received(weights: Float[Array, "B H L L"], visibility: Visibility, image: slice, by: str) -> Float[Array, "B N"]:
    """Attention that each image token receives from its segment, the mean over heads and queries.

    From text tokens, as in FastV (Chen et al. 2024, section 4.1, which takes the last token) and in SparseVLM (Zhang
    et al. 2025, section 3.2); of an example without text, and with `by="all"`, from all tokens (LTP, Kim et al. 2022,
    equation 1). Texts that share a picture rank its tokens together.
    """
    segments = visibility.segments
    pairs = (segments[:, :, None] == segments[:, None, image]) & (segments[:, :, None] != 0)  # [B, L, N]
    if by == "text":
        told = pairs & (visibility.modality == TEXT)[:, :, None]
        pairs = jnp.where(told.any(1, keepdims=True), told, pairs)
    given = weights[..., image].mean(1)
    return jnp.where(pairs, given, 0).sum(1) / jnp.maximum(pairs.sum(1), 1)


def best(score: Float[Array, "B N"], among: Bool[Array, "B N N"], count: Int32[Array, "B N"]) -> Bool[Array, "B N"]:
    """The `count` best tokens of each group.

    Args:
        score: of each token; the first of equals goes first.
        among: for each token, with which it competes.
        count: how many of its group are taken.
    """
    first = jnp.arange(score.shape[1])
    ahead = score[:, None] > score[:, :, None]
    ahead |= (score[:, None] == score[:, :, None]) & (first < first[:, None])
    return (among & ahead).sum(-1) < count


def above(score: Float[Array, "B N"], among: Bool[Array, "B N N"], threshold: float) -> Bool[Array, "B N"]:
    """Tokens with at least this share of their group's mean score (a threshold as in LTP, Kim et al. 2022)."""
    mean = jnp.where(among, score[:, None], 0).sum(-1) / jnp.maximum(among.sum(-1), 1)
    return score >= threshold * mean


def room(keep: int, pictures: Size) -> Size:
    """Image tokens that a row needs where it holds `keep` (its share, rounded up) of at most so many pictures.

    Each picture rounds up by itself: sum ceil(s n) <= ceil(s N) + pictures - 1.
    """
    return keep + pictures - 1
