"""Optimisers by name, schedules, and what applies to which parameter: always by its path, never by its rank.

(Layers are stacked, so a stacked bias is a matrix and a rule by rank would decay it.)
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax.contrib import MuonDimensionNumbers, scale_by_muon

from singlestream.config import ConfigError, GroupConfig, TrainConfig
from singlestream.train.paths import map_with_path, paths

# Weight decay takes the weights of linear maps; not biases, gains of norms, embeddings or position tables.
DECAYED = r"(^|/)kernel$"
# Muon takes the matrices of stacked layers; Adam everything else. Such a kernel is [layers, inputs, ..., outputs]:
# what stands between (query, key and value in one array) counts matrices, as the layers do.
MUON = r"(^|/)(blocks|cross)/.*kernel$"
_MATRIX = MuonDimensionNumbers(reduction_axis=1, output_axis=-1)

Schedule = Callable[[jax.Array], jax.Array]


def make_schedule(config: TrainConfig, peak: float) -> Schedule:
    """Rate at a step (counted from 0): linear warm-up to `peak`, then down to `final_rate * peak` at `num_steps`."""
    down = max(config.num_steps - config.warmup_steps, 1)

    def schedule(step: jax.Array) -> jax.Array:
        step = jnp.asarray(step, jnp.float32)
        warm = jnp.minimum(1.0, (step + 1) / max(config.warmup_steps, 1))
        done = jnp.clip((step - config.warmup_steps) / down, 0, 1)
        shape = {"cosine": 0.5 * (1 + jnp.cos(jnp.pi * done)), "linear": 1 - done, "constant": jnp.ones_like(done)}
        return peak * warm * (config.final_rate + (1 - config.final_rate) * shape[config.schedule])

    return schedule


def group_of(path: str, groups: tuple[GroupConfig, ...]) -> GroupConfig:
    """The first group whose pattern is found in the path; where none is, the plain one."""
    return next((g for g in groups if re.search(g.pattern, path)), GroupConfig())


def trainable(params: Any, config: TrainConfig) -> Any:
    """A tree like `params`: False where a group freezes the leaf."""
    return map_with_path(lambda path, _: not group_of(path, config.groups).frozen, params)


def make_optimizer(config: TrainConfig, params: Any) -> optax.GradientTransformation:
    """The chain clip -> direction -> decay -> rate, with each group's multipliers.

    Args:
        config: `optimizer`, rates, decay, `groups`.
        params: the parameters, or their shapes; only paths are read.

    Raises:
        ConfigError: a group's pattern is no regular expression or finds no parameter.
    """
    _check_groups(config, params)
    muon = config.optimizer == "muon"

    def label(path: str, _: Any) -> str:
        if group_of(path, config.groups).frozen:
            return "frozen"
        return "muon" if muon and re.search(MUON, path) else "plain"

    def decay(path: str, _: Any) -> float:
        factor = group_of(path, config.groups).decay
        return config.weight_decay * factor if re.search(DECAYED, path) else 0.0

    decays = map_with_path(decay, params)
    rates = map_with_path(lambda path, _: group_of(path, config.groups).rate, params)
    plain_rate = make_schedule(config, config.learning_rate)
    muon_rate = make_schedule(config, config.muon_learning_rate)
    after = _decay_and_scale(decays, rates)
    clip = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm > 0 else []
    labels = map_with_path(label, params)
    directions = optax.partition(
        {
            "plain": _direction(config),
            "muon": optax.chain(scale_by_muon(weight_dimension_numbers=_matrices), _match_width()),
            "frozen": optax.set_to_zero(),
        },
        labels,
    )
    by_schedule = optax.partition(
        {
            "plain": optax.scale_by_learning_rate(plain_rate),
            "muon": optax.scale_by_learning_rate(muon_rate),
            "frozen": optax.set_to_zero(),
        },
        labels,
    )
    return optax.chain(_zero_frozen(labels), *clip, directions, after, by_schedule)


def _direction(config: TrainConfig) -> optax.GradientTransformation:
    if config.optimizer == "lion":
        return optax.scale_by_lion(b1=config.beta1, b2=config.beta2)
    return optax.scale_by_adam(b1=config.beta1, b2=config.beta2)


def _matrices(params: Any) -> Any:
    """The same axes for every leaf that Muon is given."""
    return jax.tree.map(lambda _: _MATRIX, params)


def _match_width() -> optax.GradientTransformation:
    """Muon's scale sqrt(max(1, outputs / inputs)) (https://github.com/KellerJordan/Muon)."""

    def scale(update: jax.Array) -> jax.Array:
        inputs, outputs = update.shape[1], update.shape[-1]
        return update * max(1.0, outputs / inputs) ** 0.5

    return optax.stateless_with_tree_map(lambda update, _: scale(update))


def _decay_and_scale(decays: Any, rates: Any) -> optax.GradientTransformation:
    """Decoupled weight decay and the groups' rates, one factor a leaf."""

    def update_fn(updates: Any, params: Any) -> Any:
        return jax.tree.map(lambda u, p, decay, rate: rate * (u + decay * p), updates, params, decays, rates)

    return optax.stateless(update_fn)


def _zero_frozen(labels: Any) -> optax.GradientTransformation:
    """Frozen leaves give no gradient, so that they do not count in the norm that clipping looks at."""

    def update_fn(updates: Any, _: Any) -> Any:
        return jax.tree.map(lambda u, label: jnp.zeros_like(u) if label == "frozen" else u, updates, labels)

    return optax.stateless(update_fn)


def _check_groups(config: TrainConfig, params: Any) -> None:
    names = paths(params)
    for i, group in enumerate(config.groups):
        try:
            found = any(re.search(group.pattern, name) for name in names)
        except re.error as error:
            raise ConfigError(
                f"config.train.groups[{i}].pattern={group.pattern!r}: no regular expression: {error}"
            ) from error
        if not found:
            raise ConfigError(
                f"config.train.groups[{i}].pattern={group.pattern!r} finds no parameter; "
                f"paths look like {', '.join(names[:: max(1, len(names) // 4)][:4])}"
            )
