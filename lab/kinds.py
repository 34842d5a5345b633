"""The library's scores, by name."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import cast

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

Score = Callable[[jax.Array, jax.Array], jax.Array]


def score(name: str, size: int, key: jax.Array) -> Score:
    """The score of this name for one head of `size` numbers, its parameters drawn from `key`."""
    module = importlib.import_module(f"singlestream.model.attention.scores.{name}")
    return cast(Score, module.Score(1, size, dtype=jnp.dtype("float32"), rngs=nnx.Rngs(params=key)))


def standardised(scores: Float[jax.Array, "B H Q K"], ordinary: slice) -> Float[jax.Array, "B H Q K"]:
    """Scores divided by their standard deviation over ordinary keys, so that kinds of scores can be compared."""
    return scores / scores[..., ordinary].std()
