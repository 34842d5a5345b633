"""Edges between tokens that come with a batch."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int32

from singlestream.batch import Array, Batch, BatchError
from singlestream.model.attention.config import AttentionConfig


def edges_of(batch: Batch, config: AttentionConfig) -> Int32[Array, "B E 2"] | None:
    """`batch.targets["edges"]` where the model's attention goes along them, else None.

    Each is a pair of numbers of tokens of a row: a scene graph's relations, arcs between words. Text tokens count from
    0, image tokens go on from there; (NONE, NONE) is no edge, (i, ALL) joins token i with all of its modality.

    Raises:
        BatchError: they are missing, or no int32[B, E, 2].
    """
    if not config.reads_edges:
        return None
    edges, rows = batch.targets.get("edges"), batch.text.ids.shape[0]
    shape = np.shape(edges)
    if edges is None or len(shape) != 3 or shape[0] != rows or shape[2] != 2 or edges.dtype != np.int32:
        found = "there are none" if edges is None else f"got {edges.dtype}{list(shape)}"
        raise BatchError(
            f"targets['edges']: config.model.attention.graph='edges' reads int32[{rows}, any, 2], pairs of tokens of a "
            f"row that see each other, {found}"
        )
    return edges
