"""Ranks in a gallery, 1 and how many are ahead, and recall. numpy only; vectors may lie in a file (`np.memmap`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

AT = (1, 5, 10)
_CELLS = 1 << 25  # similarities that are held at once: 128 MiB


def first_stage(
    queries: Float[np.ndarray, "Q E"],
    gallery: Float[np.ndarray, "G E"],
    own: Sequence[Int[np.ndarray, " M"]],
    count: int,
) -> tuple[Int[np.ndarray, "Q k"], Int[np.ndarray, " Q"]]:
    """By similarity: the best `count` of the gallery, best first; the rank, from 1, of the best of each query's own."""
    count, size = min(count, len(gallery)), max(1, _CELLS // len(gallery))
    best, ranks = [], []
    for start in range(0, len(queries), size):
        similar = queries[start : start + size] @ gallery.T
        some = np.argpartition(-similar, count - 1, axis=1)[:, :count]
        order = np.argsort(-np.take_along_axis(similar, some, axis=1), axis=1, kind="stable")
        best.append(np.take_along_axis(some, order, axis=1))
        for row, mine in zip(similar, own[start : start + size], strict=True):
            ranks.append(1 + int((row > row[mine].max()).sum()))
    return np.concatenate(best), np.array(ranks)


def reranked(
    scores: Float[np.ndarray, "Q k"], true: Bool[np.ndarray, "Q k"], rank: Int[np.ndarray, " Q"]
) -> Int[np.ndarray, " Q"]:
    """The rank of the best of each query's own after its shortlist was put in the order of `scores`.

    As before a rank is 1 and how many are ahead; what is on no shortlist keeps its `rank`.
    """
    best = np.where(true, scores, -np.inf).max(axis=1, keepdims=True)
    return np.where(true.any(axis=1), 1 + (scores > best).sum(axis=1), rank)


def recall(name: str, ranks: Int[np.ndarray, " Q"]) -> dict[str, int | float]:
    """`NAME/r1`, `NAME/r5`, `NAME/r10`: the share of queries that rank so high; `NAME/median`: the median rank."""
    shares: dict[str, int | float] = {f"{name}/r{at}": float((ranks <= at).mean()) for at in AT}
    return {**shares, f"{name}/median": float(np.median(ranks))}
