"""Evaluation while training, and the table at its end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from rich.table import Table

from singlestream.data.pipeline import blind_answer, eval_batches, evaluated
from singlestream.data.record import Sentence
from singlestream.objectives.total import loss_weights
from singlestream.train.build import Run
from singlestream.train.metrics import Totals
from singlestream.train.sharding import put_rows


def evaluate(eval_step: Callable[..., Any], state: Any, run: Run, mesh: Mesh, *, limit: int) -> dict[str, float]:
    """Means and loss over the validation split's first `limit` batches (0: all of it)."""
    totals, before = Totals(), None
    whole = NamedSharding(mesh, PartitionSpec())
    for number, (batch, _) in enumerate(_batches(run, limit)):
        metrics = eval_step(state, put_rows(batch, mesh), jax.device_put(np.int32(number), whole))
        # The metrics of the batch before: the host makes the next batch while the device computes this one.
        if before is not None:
            totals.add(before)
        before = metrics
    totals.add(before)
    return totals.means(loss_weights(run.objectives, run.config.objectives))


def _batches(run: Run, limit: int) -> Iterator[Any]:
    return eval_batches(
        run.validation,
        run.processor,
        batch_size=run.config.train.batch_size,
        limit=limit,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )


def without_picture(run: Run) -> dict[str, float]:
    """What the most frequent answer and the question alone reach on the validation split's questions."""
    data, split = run.config.data, run.validation
    texts = (text for i in range(len(split)) for text in split.texts(i) if evaluated(text, data))
    return baselines(texts, run.folder.read_json(run.folder.priors))


def baselines(texts: Iterable[Sentence], priors: Mapping[str, Any]) -> dict[str, float]:
    """{"vqa/majority_accuracy": share, "vqa/blind_accuracy": share} over the texts that are questions."""
    scores = [
        (text.score(priors["majority"]), text.score(blind_answer(dict(priors), text.text)))
        for text in texts
        if text.answer
    ]
    if not scores:
        return {}
    majority, blind = np.mean(scores, axis=0).tolist()
    return {"vqa/majority_accuracy": majority, "vqa/blind_accuracy": blind}


def results_table(values: Mapping[str, float], split: str) -> Table:
    """One line a metric that is an accuracy, beside it what majority and question alone reach; then the losses."""
    table = Table(title=f"results on {split}", title_justify="left")
    table.add_column("metric")
    for name in ("model", "majority", "question alone"):
        table.add_column(name, justify="right")
    for name in sorted(values, key=lambda name: ("accuracy" not in name, name)):
        if name.endswith(("majority_accuracy", "blind_accuracy")) or not isinstance(values[name], float):
            continue
        beside = [values.get(name.replace("accuracy", f"{kind}_accuracy")) for kind in ("majority", "blind")]
        shown = beside if name.endswith("accuracy") else [None, None]
        table.add_row(name, *("" if value is None else f"{value:.3f}" for value in (values[name], *shown)))
    return table
