"""One layer of the encoder, attention over the stream and a feed-forward layer with residuals, and its parts."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from singlestream.batch import Array
from singlestream.model.attention.attend import merge_heads, split_heads
from singlestream.model.attention.module import Attention
from singlestream.model.config import ModelConfig
from singlestream.model.init import initializer, zeros
from singlestream.model.noise import drop_path, dropout, split_off
from singlestream.model.visibility import Visibility


def gelu(x: Float[Array, ...]) -> Float[Array, ...]:
    """x * Phi(x) by the error function (Hendrycks & Gimpel 2016), as torch computes it.

    `jax.nn.gelu(approximate=False)` calls erfc for the sake of the far left tail, which XLA on CPU computes in
    branches: with erf a quickstart step takes 0.84 of the CPU time. The two differ by less than 1e-6 on [-12, 12].
    In float32 or wider, since 1 + erf cancels on the left.
    """
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return (0.5 * wide * (1.0 + jax.lax.erf(wide * math.sqrt(0.5)))).astype(x.dtype)


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": gelu,
    "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True),
    "relu": jax.nn.relu,
}


def compute_dtype(config: ModelConfig) -> jnp.dtype:
    return jnp.dtype(config.dtype)


def param_dtype(config: ModelConfig) -> jnp.dtype:
    """Parameters are float32, whatever the compute dtype; float64 only for a float64 model."""
    return jnp.promote_types(jnp.float32, jnp.float64 if config.dtype == "float64" else jnp.float32)


class Dense(nnx.Linear):
    """`nnx.Linear` over tokens flattened to one axis.

    With [B, L, D] the gradient of the kernel contracts two axes, and XLA's CPU backend first writes a transposed copy
    of an operand, into which it fuses everything that led to it (all earlier layers' gradients of the residual
    stream, computed again). With [B * L, D] there is no copy: 0.80 of the CPU time of a quickstart step.
    """

    def __call__(self, inputs: Float[Array, "... D"], out_sharding: Any = None) -> Float[Array, "... E"]:
        flat = super().__call__(inputs.reshape(-1, inputs.shape[-1]), out_sharding)
        return flat.reshape(*inputs.shape[:-1], flat.shape[-1])


def dense(config: ModelConfig, features_in: int, features_out: int, *, rngs: nnx.Rngs) -> Dense:
    """A projection with bias, in the model's dtypes."""
    return Dense(
        features_in,
        features_out,
        kernel_init=initializer("dense", config),
        dtype=compute_dtype(config),
        param_dtype=param_dtype(config),
        rngs=rngs,
    )


def layer_norm(
    config: ModelConfig, *, rngs: nnx.Rngs, width: int | None = None, eps: float | None = None
) -> nnx.LayerNorm:
    """LayerNorm whose statistics are computed in float32 or wider."""
    return nnx.LayerNorm(
        width or config.width,
        epsilon=config.norm_eps if eps is None else eps,
        dtype=compute_dtype(config),
        param_dtype=param_dtype(config),
        use_fast_variance=False,
        rngs=rngs,
    )


def attention(config: ModelConfig, width: int, num_heads: int, *, rngs: nnx.Rngs) -> Attention:
    """Attention of the model's kind over projections of a width."""
    return Attention(
        config.attention,
        num_heads,
        width // num_heads,
        rate=config.attention_dropout,
        dtype=param_dtype(config),
        rngs=rngs,
    )


class SelfAttention(nnx.Module):
    """Multi-head attention of the stream to itself; query, key and value projections are one array [D, 3, D]."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.num_heads, self.dtype = config.num_heads, compute_dtype(config)
        shape, kind = (config.width, config.width), param_dtype(config)
        init = initializer("dense", config)
        self.kernel = nnx.Param(jnp.stack([init(rngs.params(), shape, kind) for _ in range(3)], axis=1))
        self.bias = nnx.Param(zeros(rngs.params(), (3, config.width), kind))
        self.out = dense(config, config.width, config.width, rngs=rngs)
        self.attend = attention(config, config.width, config.num_heads, rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "B L D"],
        visibility: Visibility,
        *,
        key: jax.Array | None = None,
        weights: bool = False,
    ) -> tuple[Float[Array, "B L D"], Float[Array, "B H L L"] | None]:
        """`key` is of the noise of attention weights."""
        q, k, v = self.project(x)
        out, found = self.attend(q, k, v, visibility, key=key, weights=weights)
        return self.out(merge_heads(out)), found

    def project(self, x: Float[Array, "B L D"]) -> list[Float[Array, "B L H C"]]:
        """Queries, keys and values."""
        kernel, bias = self.kernel[...].astype(self.dtype), self.bias[...].astype(self.dtype)
        # One flat product, as in `Dense`.
        flat = x.reshape(-1, x.shape[-1]) @ kernel.reshape(kernel.shape[0], -1) + bias.reshape(-1)
        qkv = flat.reshape(*x.shape[:2], *bias.shape)
        return [split_heads(qkv[:, :, i], self.num_heads) for i in range(3)]


class FeedForward(nnx.Module):
    """Two projections with an activation between."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.activation = config.activation
        self.up = dense(config, config.width, config.mlp_dim, rngs=rngs)
        self.down = dense(config, config.mlp_dim, config.width, rngs=rngs)

    def __call__(self, x: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
        return self.down(ACTIVATIONS[self.activation](self.up(x)))


class Residual(nnx.Module):
    """How a layer adds its branches f.

    Pre-LN (x + f(LN x), as in ViT), post-LN (LN(x + f x), as in BERT), or sandwich (x + LN(f(LN x)); CogView, Ding et
    al. 2021, section 2.4), in which no branch can outgrow the others.
    """

    def __init__(self, config: ModelConfig):
        self.norm, self.dropout_rate, self.has_depth = config.norm, config.dropout, config.stochastic_depth > 0

    def before(self, x: Float[Array, "B L D"], norm: nnx.LayerNorm) -> Float[Array, "B L D"]:
        """What a branch reads."""
        return x if self.norm == "post" else norm(x)

    def after(
        self,
        x: Float[Array, "B L D"],
        branch: Float[Array, "B L D"],
        norm: nnx.LayerNorm,
        out_norm: nnx.LayerNorm | None,
        depth_rate: Float[Array, ""],
        keys: Sequence[jax.Array | None],
    ) -> Float[Array, "B L D"]:
        """`x` with the branch added; `keys` are of dropout and of stochastic depth."""
        branch = branch if out_norm is None else out_norm(branch)
        branch = dropout(branch, self.dropout_rate, keys[0])
        x = x + (drop_path(branch, depth_rate, keys[1]) if self.has_depth else branch)
        return norm(x) if self.norm == "post" else x


def out_norm(config: ModelConfig, *, rngs: nnx.Rngs) -> nnx.LayerNorm | None:
    """The LayerNorm of what a branch adds, which only a sandwich has."""
    return layer_norm(config, rngs=rngs) if config.norm == "sandwich" else None


class Block(Residual):
    """A layer of the encoder: self-attention, then the feed-forward layer."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        super().__init__(config)
        self.attention_norm = layer_norm(config, rngs=rngs)
        self.attention = SelfAttention(config, rngs=rngs)
        self.mlp_norm = layer_norm(config, rngs=rngs)
        self.mlp = FeedForward(config, rngs=rngs)
        self.attention_out_norm, self.mlp_out_norm = (out_norm(config, rngs=rngs) for _ in range(2))

    def __call__(
        self,
        x: Float[Array, "B L D"],
        visibility: Visibility,
        *,
        depth_rate: Float[Array, ""],
        key: jax.Array | None = None,
        weights: bool = False,
        attention: Callable[..., tuple[Array, Array | None]] | None = None,
    ) -> tuple[Float[Array, "B L D"], Float[Array, "B H L L"] | None]:
        """One layer: `attend`, then `feed`."""
        noise: dict[str, Any] = {"depth_rate": depth_rate, "key": key}
        x, found = self.attend(x, visibility, weights=weights, attention=attention, **noise)
        return self.feed(x, **noise), found

    def attend(
        self,
        x: Float[Array, "B L D"],
        visibility: Visibility,
        *,
        depth_rate: Float[Array, ""],
        key: jax.Array | None = None,
        weights: bool = False,
        attention: Callable[..., tuple[Array, Array | None]] | None = None,
    ) -> tuple[Float[Array, "B L D"], Float[Array, "B H L L"] | None]:
        """The layer's first half: its attention, added.

        Args:
            depth_rate: this layer's rate of stochastic depth.
            key: of the layer; None switches all noise off.
            attention: called in place of the layer's own (`caching`).
        """
        attention_key, keys = self._keys(key)
        branch, found = (attention or self.attention)(
            self.before(x, self.attention_norm), visibility, key=attention_key, weights=weights
        )
        return self.after(x, branch, self.attention_norm, self.attention_out_norm, depth_rate, keys[:2]), found

    def feed(
        self, x: Float[Array, "B L D"], *, depth_rate: Float[Array, ""], key: jax.Array | None = None
    ) -> Float[Array, "B L D"]:
        """Its second half, each token by itself: the feed-forward layer, added. `depth_rate` and `key` as before."""
        _, keys = self._keys(key)
        branch = self.mlp(self.before(x, self.mlp_norm))
        return self.after(x, branch, self.mlp_norm, self.mlp_out_norm, depth_rate, keys[2:])

    def _keys(self, key: jax.Array | None) -> tuple[jax.Array | None, list[Any]]:
        """Of the noise of attention weights, and two of each half's residual."""
        key, attention_key = split_off(key, self.attention.attend.noisy)
        return attention_key, [None] * 4 if key is None else list(jax.random.split(key, 4))
