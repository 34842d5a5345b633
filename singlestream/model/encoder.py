"""The stack of layers: one array for each parameter of all layers, run in a Python loop or scanned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from singlestream.batch import Array
from singlestream.model.block import Block, layer_norm
from singlestream.model.config import ModelConfig
from singlestream.model.visibility import Visibility

REMAT_POLICIES = {"dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable, "full": None}


Module = TypeVar("Module", bound=nnx.Module)


def stacked(make: Callable[[nnx.Rngs], Module], num_layers: int, *, rngs: nnx.Rngs) -> Module:
    """`num_layers` modules made alike, as one whose parameters carry a leading axis of layers."""

    @nnx.vmap(in_axes=0, out_axes=0)
    def one(key: jax.Array) -> Module:
        return make(nnx.Rngs(params=key))

    return one(jax.random.split(rngs.params(), num_layers))


def divide(layers: Any, sizes: Sequence[int]) -> list[Any]:
    """Arrays with a leading axis of layers, divided into stretches of so many layers."""
    # lax.split and not indexing: its transpose is one concatenation, where the gradient of p[i] pads to all layers.
    leaves, tree = jax.tree.flatten(layers)
    return [jax.tree.unflatten(tree, each) for each in zip(*(jax.lax.split(p, sizes) for p in leaves), strict=True)]


def rematerialised(layer: Callable[..., Any], config: ModelConfig) -> Callable[..., Any]:
    """The layer, computed again in the backward pass where `config.remat` says so."""
    if config.remat == "none":
        return layer
    # Unrolled, XLA's common-subexpression elimination must be kept from undoing the rematerialisation.
    prevent_cse = config.layers == "unrolled"
    return jax.checkpoint(layer, policy=REMAT_POLICIES[config.remat], prevent_cse=prevent_cse)


class Stack(nnx.Module):
    """`num_layers` blocks whose parameters carry a leading axis of layers, and the last LayerNorm, but in post-LN.

    Args:
        config: of each block, and how many there are.
        make: makes a block.
    """

    def __init__(self, config: ModelConfig, make: Callable[[nnx.Rngs], nnx.Module], *, rngs: nnx.Rngs):
        self.config = config
        self.blocks = stacked(make, config.num_layers, rngs=rngs)
        self.norm = None if config.norm == "post" else layer_norm(config, rngs=rngs)

    def finish(self, x: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
        """The last LayerNorm, where there is one."""
        return x if self.norm is None else self.norm(x)

    def each(self) -> list[Any]:
        """The blocks one by one, each with its own parameters."""
        graph, layers = nnx.split(self.blocks)
        return [
            nnx.merge(graph, jax.tree.map(lambda p: p[0], layer))
            for layer in divide(layers, [1] * self.config.num_layers)
        ]

    def layers(self, key: jax.Array | None = None) -> Any:
        """What `run` takes of each layer, with a leading axis: parameters, rate of stochastic depth, key, number."""
        config = self.config
        return (
            nnx.split(self.blocks)[1],
            jnp.linspace(0.0, config.stochastic_depth, config.num_layers, dtype=jnp.float32),
            None if key is None else jax.random.split(key, config.num_layers),
            jnp.arange(config.num_layers, dtype=jnp.int32),
        )

    def divided(self, key: jax.Array | None = None) -> list[Any]:
        """The same as stretches of one layer each."""
        layers = self.layers(key)
        return divide(layers, [1] * len(jax.tree.leaves(layers)[0]))

    def run(
        self, layers: Any, x: Float[Array, "B L D"], *reads: Any, attention: bool = False
    ) -> tuple[Float[Array, "B L D"], Any, Float[Array, "layers B H L M"] | None]:
        """Runs all layers, or a stretch of them (`divide`), without the last LayerNorm.

        Args:
            layers: from `layers`.
            x: the states that go through.
            reads: what every block takes besides.
            attention: also return its weights.

        Returns:
            The states after the last layer; those after each; the attention weights where asked for.
        """
        graph = nnx.graphdef(self.blocks)

        def layer(x: Array, inputs: Any) -> tuple[Array, tuple[Array, Array | None]]:
            params, depth_rate, key, number = inputs
            block = nnx.merge(graph, params)
            seen = (read.in_layer(number) if isinstance(read, Visibility) else read for read in reads)
            x, weights = block(x, *seen, depth_rate=depth_rate, key=key, weights=attention)
            return x, (x, weights)

        layer = rematerialised(layer, self.config)
        if self.config.layers == "unrolled":
            return _unrolled(layer, x, layers)
        x, (hidden, weights) = jax.lax.scan(layer, x, layers)
        return x, hidden, weights


class Encoder(Stack):
    """The stack over one stream."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        super().__init__(config, lambda rngs: Block(config, rngs=rngs), rngs=rngs)

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
        x, hidden, weights = self.run(self.layers(key), x, visibility, attention=attention)
        return self.finish(x), hidden, weights


class NoLayers(Encoder):
    """The encoder of late fusion: it has no layer, text and picture do not meet before they are pooled."""

    def __init__(self, config: ModelConfig):
        self.config, self.blocks, self.norm = config, None, None

    def each(self) -> list[Any]:
        return []

    def __call__(
        self,
        x: Float[Array, "B L D"],
        visibility: Visibility,
        *,
        key: jax.Array | None = None,
        attention: bool = False,
    ) -> tuple[Float[Array, "B L D"], Any, Float[Array, "0 B H L L"] | None]:
        """The states as they are, and of none of the layers anything."""
        rows, length = x.shape[:2]
        weights = jnp.zeros((0, rows, self.config.num_heads, length, length)) if attention else None
        return x, (), weights


def _unrolled(layer: Any, x: Array, layers: Any) -> tuple[Array, tuple[Array, ...], Array | None]:
    """What `jax.lax.scan` does, in a Python loop: slower to compile, faster to run."""
    outputs = []
    for each in divide(layers, [1] * len(jax.tree.leaves(layers)[0])):
        x, output = layer(x, jax.tree.map(lambda p: p[0], each))
        outputs.append(output)
    hidden, weights = zip(*outputs, strict=True)
    return x, hidden, None if weights[0] is None else jnp.stack(weights)
