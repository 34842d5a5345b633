"""A loud key does not take the attention under cosine either: a scaled key changes nothing.

Source: cosine attention, Liu et al. 2022 (Swin Transformer V2), equation 2.

Test: the tokens of experiment 2, one key multiplied by 10: how far the weights move from those of the unscaled key,
and the loud key's weight in fair shares.

Refuted if: a weight moves by more than 1e-6, or the loud key gets more than 1.5 fair shares; or if the scaled dot
product's weights move by less than 0.1, for then there was nothing to show.

Seen: as claimed; what moves is the rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from lab import kinds
from lab.c02_loud_key import KEYS, SIZE, tokens
from lab.experiment import Check, Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def weights(name: str, key: jax.Array, loudness: float) -> jax.Array:
    """[B, 1, Q, K]."""
    q, k = tokens(key, jnp.asarray(loudness))
    return jax.nn.softmax(kinds.score(name, SIZE, key)(q, k))


def run(seed: int, *, score: str = "cosine") -> Result:
    key = jax.random.key(seed)
    result: Result = {}
    for kind, name in (("normed", score), ("dot", "scaled_dot")):
        plain, loud = weights(name, key, 1.0), weights(name, key, 10.0)
        result[f"{kind}_moved"] = float(jnp.abs(loud - plain).max())
        result[f"{kind}_share"] = float(KEYS * loud[..., 0].mean())
        moved = jnp.abs(loud - plain).reshape(-1)
        result[f"{kind}_sorted"] = [float(x) for x in jnp.quantile(moved, jnp.linspace(0, 1, 21))]
    return result


def judge(results: Sequence[Result]) -> list[Check]:
    return [
        Check("cosine, key x 10: largest change of a weight", [r["normed_moved"] for r in results], most=1e-6),
        Check("cosine, key x 10: fair shares", [r["normed_share"] for r in results], most=1.5),
        Check("dot product: largest change of a weight", [r["dot_moved"] for r in results], least=0.1),
        Check("dot product: fair shares", [r["dot_share"] for r in results]),
    ]


def draw(results: Sequence[Result], axes: Axes) -> None:
    places = np.linspace(0, 100, 21)
    for kind, label in (("dot", "scaled dot product"), ("normed", "cosine")):
        values = np.median([r[f"{kind}_sorted"] for r in results], 0)
        axes.plot(places, np.maximum(values, 1e-10), marker="o", label=label)
    axes.set(yscale="log", xlabel="percentile of the weights", ylabel="change when one key is 10 times as long")
    axes.legend()
