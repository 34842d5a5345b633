"""All objectives of a run on one batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax

from singlestream.batch import Batch, Encoded, Spec
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
        self._model, self._key = model, key
        self._done: list[tuple[Batch, str | None, Encoded]] = []
        self._views: dict[str, Any] = {}

    def __call__(self, batch: Batch, *, direction: str | None = None) -> Encoded:
        for known, other, encoded in self._done:
            if known is batch and other == direction:
                return encoded
        key = None if self._key is None else jax.random.fold_in(self._key, len(self._done))
        sees = {} if direction is None else {"direction": direction}
        self._done.append((batch, direction, self._model(batch, key=key, **sees)))
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
    state: Mapping[str, dict[str, jax.Array]],
    *,
    train: bool,
    teacher: Any = None,
) -> tuple[Metrics, dict[str, dict[str, jax.Array]]]:
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
    for i, (name, objective) in sorted(numbered, key=lambda item: bool(item[1][1].needs)):
        own = jax.random.fold_in(key, i)
        found, states[name] = objective.loss(encode, model.heads, batch, spec, own, state[name])
        metrics |= {f"{name}/{metric}": sums for metric, sums in found.items()}
    return metrics, states


def loss_weights(objectives: Mapping[str, Objective], weights: Mapping[str, float]) -> dict[str, float]:
    """The weight of each loss term in the total, by its key in the metrics."""
    return {
        f"{name}/{term}": weights[name] * weight
        for name, objective in sorted(objectives.items())
        for term, weight in objective.terms.items()
    }
