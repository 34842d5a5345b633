"""All objectives of a run on one batch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Int32

from singlestream.batch import Array, Batch, Encoded, Spec
from singlestream.objectives.base import Metrics, Objective


class SharedEncode:
    """The model as objectives call it: the same `Batch` object is encoded once, others draw other noise.

    Args:
        model: the model.
        key: of dropout; None switches it off.
        teacher: the model with averaged parameters; None: the model itself, as in an evaluation, which reads these.
    """

    def __init__(self, model: Any, key: jax.Array | None, teacher: Any = None):
        self.heads = model.heads
        self.teacher: SharedEncode = self if teacher is None else SharedEncode(teacher, None)
        self.found: dict[str, Metrics] = {}
        self._model, self._key = model, key
        self._done: list[tuple[Batch, str | None, Encoded]] = []
        self._views: dict[str, Any] = {}

    def __call__(self, batch: Batch, *, direction: str | None = None, attention: bool = False) -> Encoded:
        for known, other, encoded in self._done:
            if known is batch and other == direction and (encoded.attention is not None or not attention):
                return encoded
        key = None if self._key is None else jax.random.fold_in(self._key, len(self._done))
        asked = ({} if direction is None else {"direction": direction}) | ({"attention": True} if attention else {})
        self._done.append((batch, direction, self._model(batch, key=key, **asked)))
        return self._done[-1][2]

    def view(self, name: str, make: Callable[[], Any]) -> Any:
        if name not in self._views:
            self._views[name] = make()
        return self._views[name]


def total_loss(
    model: Any,
    objectives: Mapping[str, Objective],
    batch: Batch,
    spec: Spec,
    key: jax.Array,
    state: Mapping[str, dict[str, Any]],
    *,
    train: bool,
    teacher: Any = None,
) -> tuple[Metrics, dict[str, dict[str, Any]]]:
    """Runs every objective; returns sums and counts by "objective/metric", and the objectives' new states.

    The loss of the run is the sum over `loss_weights` of weight x sum / count; the division waits until sums and
    counts of all parts of a batch are added. `train` switches the model's dropout on; `teacher` is what objectives
    reach as `encode.teacher`, by default the model.
    """
    noise, key = jax.random.split(key)
    encode = SharedEncode(model, noise if train else None, teacher)
    metrics: Metrics = {}
    states = {}
    numbered = list(enumerate(sorted(objectives.items())))
    for i, (name, objective) in sorted(numbered, key=lambda item: _turn(item[1][1])):
        own = jax.random.fold_in(key, i)
        found, states[name] = objective.loss(encode, model.heads, batch, spec, own, state[name])
        encode.found[name] = found
        metrics |= {f"{name}/{metric}": sums for metric, sums in found.items()}
    return metrics, states


def _turn(objective: Objective) -> tuple[bool, bool]:
    """What others read comes before them: what is needed, then encodings with attention weights."""
    return bool(objective.needs), not objective.needs_attention


def drawn_loss(
    drawn: Int32[Array, ""],
    model: Any,
    objectives: Mapping[str, Objective],
    batch: Batch,
    spec: Spec,
    key: jax.Array,
    state: Mapping[str, dict[str, Any]],
    *,
    teacher: Any = None,
) -> tuple[Metrics, dict[str, dict[str, Any]]]:
    """`total_loss` of one objective in training, that with number `drawn` in the order of names; only it is computed.

    The others' sums and counts are 0 and their states stay (tasks sampled a step at a time: UNITER, section 4).
    """

    def alone(name: str) -> tuple[Metrics, dict[str, dict[str, Any]]]:
        return total_loss(model, {name: objectives[name]}, batch, spec, key, state, train=True, teacher=teacher)

    names = sorted(objectives)
    shapes = [jax.eval_shape(functools.partial(alone, name))[0] for name in names]
    nothing = {
        name: jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), found) for s in shapes for name, found in s.items()
    }

    def branch(name: str) -> tuple[Metrics, dict[str, dict[str, Any]]]:
        metrics, own = alone(name)
        return {**nothing, **metrics}, {**state, **own}

    return jax.lax.switch(drawn, [functools.partial(branch, name) for name in names])


def loss_weights(objectives: Mapping[str, Objective], weights: Mapping[str, float]) -> dict[str, float]:
    """The weight of each loss term in the total, by its key in the metrics."""
    return {
        f"{name}/{term}": weights[name] * weight
        for name, objective in sorted(objectives.items())
        for term, weight in objective.terms.items()
    }
