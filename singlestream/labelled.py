"""How well a run's labels rank the examples of a split: the area under the ROC curve, exactly over all of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
from flax import nnx

from singlestream.answers import Metrics
from singlestream.batch import Batch
from singlestream.data.pipeline import EvalItem
from singlestream.explain.scores import auroc
from singlestream.objectives.classify import label_odds
from singlestream.objectives.vqa import answer_points
from singlestream.predict import Model

LABEL_HEAD = "classify"


def measure_labels(model: Model, batches: Iterable[EvalItem]) -> Metrics:
    """`classify/auroc`, the mean over the labels that some examples have and others have not.

    And of each such label `classify/auroc/LABEL`, where there are more than two: of two, either ranks as the other.
    """
    several = bool(model.config.objective_options.get(LABEL_HEAD, {}).get("several"))

    @jax.jit
    def read(params: Any, batch: Batch) -> tuple[jax.Array, jax.Array]:
        module = nnx.merge(model.graphdef, params)
        logits = module.heads[LABEL_HEAD](module(batch))
        return label_odds(logits, several=several), answer_points(batch, logits) > 0

    odds: list[np.ndarray] = []
    there: list[np.ndarray] = []
    for batch, _ in batches:
        asked = batch.example_mask & (batch.targets["answer"] >= 0)
        for kept, values in zip((odds, there), jax.device_get(read(model.params, batch)), strict=True):
            kept.append(values[asked])
    columns = zip(model.answers, np.concatenate(odds).T, np.concatenate(there).T, strict=True)
    areas = {label: auroc(scores, has) for label, scores, has in columns if has.any() and not has.all()}
    if not areas:
        return {}
    of_each = {f"{LABEL_HEAD}/auroc/{label}": area for label, area in areas.items()} if len(model.answers) > 2 else {}
    return {f"{LABEL_HEAD}/auroc": float(np.mean(list(areas.values()))), **of_each}
