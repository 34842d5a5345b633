"""An encoder that drops, merges or hides image tokens between its layers."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Bool, Float

from singlestream.batch import Array
from singlestream.model.attention.share import at_most, how_many
from singlestream.model.encoder import Encoder
from singlestream.model.pruning.choose import above, best, received, room, same
from singlestream.model.pruning.config import PruningConfig
from singlestream.model.pruning.kept import Kept
from singlestream.model.pruning.merge import match, merge
from singlestream.model.visibility import Visibility


def run_pruned(
    encoder: Encoder,
    x: Float[Array, "B L D"],
    visibility: Visibility,
    *,
    key: jax.Array | None = None,
    attention: bool = False,
) -> tuple[Float[Array, "B L D"], Any, Float[Array, "layers B H L L"] | None, Bool[Array, "drops B N"]]:
    """What `Encoder.__call__` does, with fewer image tokens after each of `config.pruning.layers`.

    All that comes back has every token in its place: a dropped one keeps the state that it had, one that was merged
    has the state of what it went into; attention from and to both is 0.

    Returns:
        Final states; those after each layer; attention weights where asked for; which image tokens were still there,
        by themselves, after each drop.
    """
    pruning = encoder.config.pruning
    graph = nnx.graphdef(encoder.blocks)
    state = Kept.whole(x, visibility, visibility.num_image)
    hidden: list[Array] = []
    maps: list[Array] = []
    kept: list[Array] = []
    for number, layer in enumerate(encoder.divided(key), 1):
        prunes, read = number in pruning.layers, x
        asks = attention or (prunes and pruning.method != "merge")
        x, (states,), weights = encoder.run(layer, x, state.visibility, attention=asks)
        hidden.append(state.restore(states))
        if attention:
            maps.append(state.spread(weights[0]))
        if prunes and pruning.method == "merge":
            block = nnx.merge(graph, jax.tree.map(lambda p: p[0], layer[0]))
            # The layer has them already: XLA computes them once.
            keys = block.attention.project(block.before(read, block.attention_norm))[1]
            x, state = _merge(pruning, len(kept) + 1, x, keys.mean(2), state)
        elif prunes:
            x, state = _drop(pruning, len(kept) + 1, x, weights[0], state)
        if prunes:
            kept.append(state.own)
    return encoder.finish(state.restore(x)), tuple(hidden), jnp.stack(maps) if maps else None, jnp.stack(kept)


def _drop(pruning: PruningConfig, number: int, x: Array, weights: Array, state: Kept) -> tuple[Array, Kept]:
    """After `drop` and `mask`, by the attention weights of the last layer."""
    segments = state.visibility.segments[:, state.image]
    score, among = received(weights, state.visibility, state.image, pruning.by), same(segments)
    if pruning.method == "mask":
        stay = (segments != 0) & above(score, among, pruning.threshold)
        # The order must not change, nor the length: what is hidden has no segment any more.
        sees, image = state.visibility, state.image
        hidden = sees.segments.at[:, image].multiply(stay.astype(jnp.int32))
        last = state.restore(x)[:, image]
        sees = dataclasses.replace(sees, segments=hidden)
        return x, dataclasses.replace(
            state, visibility=sees, own=state.own & stay, spoken=state.spoken & stay, last=last
        )
    share = pruning.share(number)
    stay = (segments != 0) & best(score, among, how_many(share, state.count))
    return state.shorten(x, stay, None, _room(share, state))


def _merge(pruning: PruningConfig, number: int, x: Array, keys: Array, state: Kept) -> tuple[Array, Kept]:
    segments, image, share = state.visibility.segments[:, state.image], state.image, pruning.share(number)
    among = same(segments)
    goes = among.sum(-1, dtype=jnp.int32) - how_many(share, state.count)
    into = match(keys[:, image], among, goes)
    states, size = merge(x[:, image], state.size, into)
    stay = (segments != 0) & (into == jnp.arange(into.shape[1]))
    x = x.at[:, image].set(states)
    state = dataclasses.replace(state, size=size)
    x, state = state.shorten(x, stay, into, _room(share, state))
    # Proportional attention (Bolya et al. 2023, equation 1): a key counts for as many tokens as it stands for.
    beside = ((0, 0), (image.start, x.shape[1] - state.image.stop))
    log_size = jnp.pad(jnp.log(jnp.maximum(state.size, 1)), beside)
    return x, dataclasses.replace(state, visibility=dataclasses.replace(state.visibility, log_size=log_size))


def _room(share: float, state: Kept) -> Any:
    # Never more than there were, and sizes may be symbols (`singlestream.program`).
    sees, there = state.visibility, state.last.shape[1]
    return jax.core.min_dim(state.index.shape[1], room(at_most(share, there), sees.pictures))


def set_pruning(module: Any, pruning: PruningConfig) -> None:
    """Switches pruning on, changes it, or (`PruningConfig()`) off in a model as it is; it has no parameters.

    Raises:
        ValueError: it does not go with the model's settings.
    """
    config = dataclasses.replace(module.config, pruning=pruning)
    module.config = module.encoder.config = config
