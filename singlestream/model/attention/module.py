"""Attention of the kind that the settings name: a score and a selection, put together."""

from __future__ import annotations

import importlib
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from singlestream.batch import Array
from singlestream.model.attention.attend import attend
from singlestream.model.attention.config import AttentionConfig
from singlestream.model.visibility import Visibility

NORM_EPS = 1e-6


class Attention(nnx.Module):
    """Attention of H heads to projected keys and values.

    With QK-norm, queries and keys of each head pass a LayerNorm first (Dehghani et al. 2023, section 2); with
    `head_scale` a learned factor, 1 at the start, multiplies each head's scores.

    Args:
        config: names the kind.
        num_heads, size: H heads of C numbers.
        rate: of dropout of the weights.
        dtype: of the parameters.
    """

    def __init__(
        self, config: AttentionConfig, num_heads: int, size: int, *, rate: float, dtype: jnp.dtype, rngs: nnx.Rngs
    ):
        self.rate, self.implementation = rate, config.implementation
        sizes: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        score = importlib.import_module(f"{__package__}.scores.{config.score}").Score
        selection = importlib.import_module(f"{__package__}.selections.{config.selection}").Selection
        self.score = score(num_heads, size, **sizes)
        self.relative = _relative(config, num_heads, size, **sizes)
        self.selection = selection(config, num_heads, size, **sizes)
        self.noisy = rate > 0 or self.selection.draws  # whether a call wants a key of its own
        self.plain = config.plain
        self.q_norm, self.k_norm = (_head_norm(size, **sizes) if config.qk_norm else None for _ in range(2))
        self.head_scale = nnx.Param(jnp.ones(num_heads, dtype)) if config.head_scale else None

    def __call__(
        self,
        q: Float[Array, "B Q H C"],
        k: Float[Array, "B K H C"],
        v: Float[Array, "B K H C"],
        visibility: Visibility,
        *,
        key: jax.Array | None = None,
        weights: bool = False,
    ) -> tuple[Float[Array, "B Q H C"], Float[Array, "B H Q K"] | None]:
        """What each query reads, and the weights where asked for.

        Args:
            visibility: who sees whom. A query that sees nothing (padding) gets an arbitrary finite vector.
            key: of dropout of the weights, and of what the selection draws; None switches noise off.
            weights: also return the attention weights, as they were applied.
        """
        if self.q_norm is not None:
            q, k = self.q_norm(q).astype(q.dtype), self.k_norm(k).astype(k.dtype)
        perturbed = visibility.perturbation is not None
        out, found = self._read(q, k, v, visibility, key, weights or perturbed)
        if perturbed:
            out = out + jnp.einsum("bhqk,bkhc->bqhc", visibility.perturbation, v).astype(out.dtype)
        return out, found

    def _read(
        self, q: Array, k: Array, v: Array, visibility: Visibility, key: jax.Array | None, weights: bool
    ) -> tuple[Array, Array | None]:
        noise: dict[str, Any] = {"rate": self.rate, "key": key, "weights": weights}
        if self.plain:
            return attend(q, k, v, visibility, implementation=self.implementation, **noise)
        q, k, v = (x.swapaxes(1, 2) for x in (q, k, v))
        out, found = self.selection(self.scores, q, k, v, visibility, **noise)
        return out.swapaxes(1, 2), found

    def scores(
        self, q: Float[Array, "B H Q C"], k: Float[Array, "B H K C"], visibility: Visibility
    ) -> Float[Array, "B H Q K"]:
        """Scores of these queries and keys, whose tokens `visibility` describes, in float32 or wider, unmasked."""
        if self.relative is None:
            return visibility.weigh_sizes(self._of_content(q, k))
        return visibility.weigh_sizes(self.relative(self._of_content, q, k, visibility))

    def _of_content(self, q: Float[Array, "B H Q C"], k: Float[Array, "B H K C"]) -> Float[Array, "B H Q K"]:
        """The same, whatever the tokens' places."""
        scores = self.score(q, k)
        scores = scores.astype(jnp.promote_types(scores.dtype, jnp.float32))
        return scores if self.head_scale is None else scores * self.head_scale[...][:, None, None]


def _relative(config: AttentionConfig, num_heads: int, size: int, **kwargs: Any) -> Any:
    if config.relative == "none":
        return None
    return importlib.import_module(f"{__package__}.relative.{config.relative}").Relative(num_heads, size, **kwargs)


def _head_norm(size: int, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> nnx.LayerNorm:
    return nnx.LayerNorm(size, epsilon=NORM_EPS, param_dtype=dtype, use_fast_variance=False, rngs=rngs)
