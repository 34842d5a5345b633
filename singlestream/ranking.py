"""Ranks in a gallery, 1 and how many others are not behind, and recall. numpy only; vectors may lie in a file.

What scores the same as one of a query's own counts as ahead of it: in whatever order equals are put, the rank is not
better than that, and vectors that all became one have no recall.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from singlestream.train.errors import NonFiniteError

AT = (1, 5, 10)
_CELLS = 1 << 25  # similarities that are held at once: 128 MiB


def first_stage(
    queries: Float[np.ndarray, "Q E"],
    gallery: Float[np.ndarray, "G E"],
    own: Sequence[Int[np.ndarray, " M"]],
    count: int,
) -> tuple[Int[np.ndarray, "Q k"], Int[np.ndarray, " Q"]]:
    """By similarity: the best `count` of the gallery, best first; the rank, from 1, of the best of each query's own.

    Raises:
        NonFiniteError: a similarity is no finite number.
    """
    count, size = min(count, len(gallery)), max(1, _CELLS // len(gallery))
    best, ranks = [], []
    for start in range(0, len(queries), size):
        similar = _finite(queries[start : start + size] @ gallery.T, "similarity")
        some = np.argpartition(-similar, count - 1, axis=1)[:, :count]
        order = np.argsort(-np.take_along_axis(similar, some, axis=1), axis=1, kind="stable")
        best.append(np.take_along_axis(some, order, axis=1))
        for row, mine in zip(similar, own[start : start + size], strict=True):
            least = row[mine].max()
            ranks.append(1 + int((row >= least).sum() - (row[mine] >= least).sum()))
    return np.concatenate(best), np.array(ranks)


def reranked(
    scores: Float[np.ndarray, "Q k"], true: Bool[np.ndarray, "Q k"], rank: Int[np.ndarray, " Q"]
) -> Int[np.ndarray, " Q"]:
    """The rank of the best of each query's own after its shortlist was put in the order of `scores`.

    What is on no shortlist keeps its `rank`.

    Raises:
        NonFiniteError: a score is no finite number.
    """
    best = np.where(true, _finite(scores, "score"), -np.inf).max(axis=1, keepdims=True)
    return np.where(true.any(axis=1), 1 + ((scores >= best) & ~true).sum(axis=1), rank)


def _finite(values: Float[np.ndarray, "Q G"], name: str) -> Float[np.ndarray, "Q G"]:
    if not np.isfinite(values).all():
        raise NonFiniteError(f"retrieval: a {name} is no finite number; evaluate another --checkpoint")
    return values


def recall(name: str, ranks: Int[np.ndarray, " Q"]) -> dict[str, int | float]:
    """`NAME/r1`, `NAME/r5`, `NAME/r10`: the share of queries that rank so high; `NAME/median`: the median rank."""
    shares: dict[str, int | float] = {f"{name}/r{at}": float((ranks <= at).mean()) for at in AT}
    return {**shares, f"{name}/median": float(np.median(ranks))}
