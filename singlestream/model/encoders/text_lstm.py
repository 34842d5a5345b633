"""A bidirectional LSTM over each text, as the systems before transformers read their questions."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Bool, Float, Int32

from singlestream.batch import Array
from singlestream.model.block import dense, param_dtype
from singlestream.model.config import ModelConfig
from singlestream.model.init import initializer
from singlestream.model.one_branch import OneBranch
from singlestream.model.visibility import Visibility


def lstm(
    inputs: Float[Array, "B M four_H"], first: Bool[Array, "B M"], recurrent: Float[Array, "H four_H"]
) -> Float[Array, "B M H"]:
    """The outputs of an LSTM with forget gates, from left to right.

    (Hochreiter & Schmidhuber 1997; forget gates Gers et al. 2000, whose bias has 1 added, so that it starts out
    remembering, Jozefowicz et al. 2015, section 2.2.)

        i, f, o = sigmoid(...), sigmoid(... + 1), sigmoid(...);  g = tanh(...)
        c' = f c + i g;  h' = o tanh(c')

    Args:
        inputs: what the gates i, f, g, o get from each token.
        first: True where a text begins: what was there before is forgotten.
        recurrent: what they get from the output before.
    """

    def step(state: tuple[Array, Array], now: tuple[Array, Array]) -> tuple[tuple[Array, Array], Array]:
        (h, c), (gates, begins) = state, now
        h, c = (jnp.where(begins[:, None], 0, kept) for kept in (h, c))
        gates = (gates + h @ recurrent).astype(c.dtype)
        i, f, g, o = jnp.split(gates, 4, axis=-1)
        c = jax.nn.sigmoid(f + 1) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = (jax.nn.sigmoid(o) * jnp.tanh(c)).astype(inputs.dtype)
        return (h, c), h

    empty = jnp.zeros((inputs.shape[0], recurrent.shape[0]), inputs.dtype)
    start = (empty, empty.astype(jnp.promote_types(inputs.dtype, jnp.float32)))
    _, outputs = jax.lax.scan(step, start, (inputs.swapaxes(0, 1), first.T))
    return outputs.swapaxes(0, 1)


def by_text(visibility: Visibility) -> Int32[Array, "B T"]:
    """The order in which a row's tokens stand text by text, each text's by their places, wherever they lie."""
    assert visibility.place is not None
    return jnp.lexsort((visibility.place, visibility.part, visibility.segments), axis=-1).astype(jnp.int32)


class Layer(OneBranch):
    """An LSTM from left to right and one from right to left (Graves & Schmidhuber 2005), D / 2 numbers of each."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        super().__init__(config, rngs=rngs)
        half, init = config.width // 2, initializer("dense", config)
        self.inputs = dense(config, config.width, 8 * half, rngs=rngs)  # of both directions, side by side
        kernels = [init(rngs.params(), (half, 4 * half), param_dtype(config)) for _ in range(2)]
        self.recurrent = nnx.Dict(kernel=nnx.Param(jnp.stack(kernels, axis=1)))

    def branch(self, x: Float[Array, "B T D"], visibility: Visibility) -> Float[Array, "B T D"]:
        order = by_text(visibility)
        sees = visibility.at(order)
        segments, part = sees.segments, sees.part
        inputs = jnp.take_along_axis(self.inputs(x), order[..., None], axis=1)
        recurrent = self.recurrent["kernel"][...].astype(inputs.dtype)
        changes = (segments[:, 1:] != segments[:, :-1]) | (part[:, 1:] != part[:, :-1])
        first, last = jnp.pad(changes, ((0, 0), (1, 0))), jnp.pad(changes, ((0, 0), (0, 1)))
        forward, backward = jnp.split(inputs, 2, axis=-1)
        # Both at once, the second from the end: one loop over the tokens.
        inputs, first = jnp.stack([forward, backward[:, ::-1]]), jnp.stack([first, last[:, ::-1]])
        ahead, back = jax.vmap(lstm)(inputs, first, recurrent.swapaxes(0, 1))
        found = jnp.concatenate([ahead, back[:, ::-1]], axis=-1)
        return jnp.take_along_axis(found, jnp.argsort(order, axis=-1)[..., None], axis=1)
