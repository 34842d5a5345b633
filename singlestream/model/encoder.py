"""The stack of layers: one array for each parameter of all layers, run in a Python loop or scanned."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from singlestream.batch import Array
from singlestream.model.block import Block, layer_norm
from singlestream.model.config import ModelConfig
from singlestream.model.visibility import Visibility

REMAT_POLICIES = {"dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable, "full": None}


class Encoder(nnx.Module):
    """`num_layers` blocks whose parameters carry a leading axis of layers, and pre-LN's last LayerNorm."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.config = config

        @nnx.vmap(in_axes=0, out_axes=0)
        def make(key: jax.Array) -> Block:
            return Block(config, rngs=nnx.Rngs(params=key))

        self.blocks = make(jax.random.split(rngs.params(), config.num_layers))
        self.norm = layer_norm(config, rngs=rngs) if config.norm == "pre" else None

    def __call__(
        self,
        x: Float[Array, "B L D"],
        visibility: Visibility,
        *,
        key: jax.Array | None = None,
        attention: bool = False,
    ) -> tuple[Float[Array, "B L D"], Any, Float[Array, "layers B H L L"] | None]:
        """Runs the stack.

        Returns:
            The final states; the states after each layer (`hidden[i]`, before the last LayerNorm); the attention
            weights where asked for.
        """
        config = self.config
        graph, params = nnx.split(self.blocks)
        layers = (
            params,
            jnp.linspace(0.0, config.stochastic_depth, config.num_layers, dtype=jnp.float32),
            None if key is None else jax.random.split(key, config.num_layers),
        )

        def layer(x: Array, inputs: Any) -> tuple[Array, tuple[Array, Array | None]]:
            params, depth_rate, key = inputs
            block = nnx.merge(graph, params)
            x, weights = block(x, visibility, depth_rate=depth_rate, key=key, weights=attention)
            return x, (x, weights)

        if config.remat != "none":
            # Unrolled, XLA's common-subexpression elimination must be kept from undoing the rematerialisation.
            prevent_cse = config.layers == "unrolled"
            layer = jax.checkpoint(layer, policy=REMAT_POLICIES[config.remat], prevent_cse=prevent_cse)
        if config.layers == "scan":
            x, (hidden, weights) = jax.lax.scan(layer, x, layers)
        else:
            x, hidden, weights = _unrolled(layer, x, layers, config.num_layers)
        return (self.norm(x) if self.norm is not None else x), hidden, weights


def _unrolled(layer: Any, x: Array, layers: Any, num_layers: int) -> tuple[Array, tuple[Array, ...], Array | None]:
    """What `jax.lax.scan` does, in a Python loop: slower to compile, faster to run."""

    # lax.split and not indexing: its transpose is one concatenation, where the gradient of p[i] pads to all layers.
    def unstack(p: Array) -> list[Array]:
        return [part[0] for part in jax.lax.split(p, [1] * num_layers)]

    leaves, tree = jax.tree.flatten(layers)
    outputs = []
    for each in zip(*map(unstack, leaves), strict=True):
        x, output = layer(x, jax.tree.unflatten(tree, each))
        outputs.append(output)
    hidden, weights = zip(*outputs, strict=True)
    return x, hidden, None if weights[0] is None else jnp.stack(weights)
