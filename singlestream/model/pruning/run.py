"""An encoder that drops, merges or hides image tokens in the middle of its layers.

A layer that prunes attends with every token it was given and feeds forward those that are left, as in EViT (Liang et
al. 2022, between MHSA and FFN), LTP (Kim et al. 2022) and ToMe (Bolya et al. 2023, section 3: keys of a layer, merged
between its attention and its MLP). FastV (Chen et al. 2024, section 4.1) and SparseVLM (Zhang et al. 2025, section 3.2)
drop after the whole layer. That makes the same of the tokens that stay, since the feed-forward layer reads each by
itself; the last state of a dropped one, which no later layer reads, is here that before it.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Bool, Float

from singlestream.batch import Array
from singlestream.model.attention.share import at_most, how_many
from singlestream.model.encoder import Encoder, rematerialised
from singlestream.model.pruning.choose import above, best, received, room, same
from singlestream.model.pruning.config import PruningConfig
from singlestream.model.pruning.kept import Kept
from singlestream.model.pruning.merge import first_set, match, merge
from singlestream.model.visibility import Visibility


def run_pruned(
    encoder: Encoder,
    x: Float[Array, "B L D"],
    visibility: Visibility,
    *,
    key: jax.Array | None = None,
    attention: bool = False,
) -> tuple[Float[Array, "B L D"], Any, Float[Array, "layers B H L L"] | None, Bool[Array, "drops B N"]]:
    """What `Encoder.__call__` does, with fewer image tokens from the middle of each of `config.pruning.layers` on.

    All that comes back has every token in its place: a dropped one keeps the state that it had, after the attention of
    the layer in which it went, and attention from and to it is 0 in the layers after; one that was merged has the state
    of what it went into, and attends like it, and the attention to it is shared evenly by all that went into it.

    Returns:
        Final states; those after each layer; attention weights where asked for; which image tokens were still there,
        by themselves, after each drop.
    """
    state = Kept.whole(x, visibility, visibility.num_image)
    hidden: list[Array] = []
    maps: list[Array] = []
    kept: list[Array] = []
    for number, layer in enumerate(encoder.divided(key), 1):
        before = state
        if number in encoder.config.pruning.layers:
            x, state, weights = _prune(encoder, layer, len(kept) + 1, x, state, attention)
            kept.append(state.own)
        else:
            x, _, weights = encoder.run(layer, x, state.visibility, attention=attention)
            weights = weights[0] if attention else None
        hidden.append(state.restore(x))
        if attention:
            maps.append(before.spread(weights))
    return encoder.finish(state.restore(x)), tuple(hidden), jnp.stack(maps) if maps else None, jnp.stack(kept)


def _prune(
    encoder: Encoder, layer: Any, number: int, x: Float[Array, "B L D"], state: Kept, attention: bool
) -> tuple[Float[Array, "B M D"], Kept, Float[Array, "B H L L"] | None]:
    """One layer, of `Encoder.divided`, with the drop of this number in its middle; its attention weights if asked for.

    The halves are computed again in the backward pass each by itself where `config.remat` says so.
    """
    pruning, graph = encoder.config.pruning, nnx.graphdef(encoder.blocks)
    params, depth_rate, key, index = jax.tree.map(lambda p: p[0], layer)
    sees = state.visibility.in_layer(index)
    noise: dict[str, Any] = {"depth_rate": depth_rate, "key": key}

    def attend(params: Any, x: Array) -> tuple[Array, Array | None, Array]:
        block = nnx.merge(graph, params)
        still = key is None or not block.attention.attend.noisy
        ranks = pruning.method != "merge"
        after, weights = block.attend(x, sees, weights=attention or (ranks and still), **noise)
        # Projections are computed twice as written; XLA computes them once.
        read = block.before(x, block.attention_norm)
        if not ranks:
            return after, weights, block.attention.project(read)[1].mean(2)
        # Without noise, so that in training the same tokens go as afterwards.
        return after, weights, weights if still else block.attention(read, sees, weights=True)[1]

    def feed(params: Any, x: Array) -> Array:
        return nnx.merge(graph, params).feed(x, **noise)

    x, weights, found = rematerialised(attend, encoder.config)(params, x)
    choose = _merge if pruning.method == "merge" else _drop
    x, state = choose(pruning, number, x, found, state)
    return rematerialised(feed, encoder.config)(params, x), state, weights


def _drop(pruning: PruningConfig, number: int, x: Array, weights: Array, state: Kept) -> tuple[Array, Kept]:
    """`drop` and `mask`, by the attention weights of the layer."""
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
    """`merge`, by the keys of the layer."""
    segments, image, share = state.visibility.segments[:, state.image], state.image, pruning.share(number)
    among = same(segments)
    goes = among.sum(-1, dtype=jnp.int32) - how_many(share, state.count)
    into = match(keys[:, image], among, first_set(state.number, among, goes), goes)
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
