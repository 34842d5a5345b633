"""What a pruning dropped: in which layer each image token went."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int


def gone_after(kept: Bool[np.ndarray, "drops N"], layers: Sequence[int]) -> Int[np.ndarray, " N"]:
    """The layer, from 1, in which a token was dropped, hidden, or merged into another; 0 if it stayed to the end.

    Args:
        kept: `Encoded.extra["kept"]`: which tokens were still there, by themselves, after each drop. Padding never is.
        layers: in which layers there was a drop (`config.model.pruning.layers`).

    Raises:
        ValueError: another number of drops than of layers.
    """
    if len(kept) != len(layers):
        raise ValueError(f"{len(kept)} drops, but pruning in {len(layers)} layers: {tuple(layers)}")
    kept = np.asarray(kept)
    return np.where(kept[-1], 0, np.asarray(layers)[np.argmin(kept, axis=0)])
