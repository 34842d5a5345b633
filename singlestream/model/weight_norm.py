"""Weight normalisation (Salimans & Kingma 2016), with one length for the whole matrix."""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from singlestream.batch import Array
from singlestream.model.block import compute_dtype, param_dtype
from singlestream.model.config import ModelConfig
from singlestream.model.init import initializer


class WeightNormDense(nnx.Module):
    """x (g v / |v|) + b, where |v| is the root of all of v's squares: torch's `weight_norm(Linear, dim=None)`."""

    def __init__(self, config: ModelConfig, features_in: int, features_out: int, *, rngs: nnx.Rngs):
        self.dtype, kind = compute_dtype(config), param_dtype(config)
        kernel = initializer("dense", config)(rngs.params(), (features_in, features_out), kind)
        self.kernel = nnx.Param(kernel)
        self.scale = nnx.Param(jnp.linalg.norm(kernel))
        self.bias = nnx.Param(jnp.zeros((features_out,), kind))

    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... E"]:
        kernel = self.kernel[...]
        kernel = kernel * (self.scale[...] / jnp.sqrt(jnp.sum(kernel**2)))
        return x @ kernel.astype(self.dtype) + self.bias[...].astype(self.dtype)
