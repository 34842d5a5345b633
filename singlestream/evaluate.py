"""Evaluation of a run from its folder: metrics, predictions, and the page.

Beside the model's accuracy stand what the question alone reaches ("blind"), the commonest answer ("majority"), and the
model itself with the picture taken away. Shares come with 95% intervals: `KEY/low`, `KEY/high`.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from singlestream.answers import Answered, Evaluation, Pointing, prior_answers, summarise
from singlestream.batch import Batch, without_image
from singlestream.config import ConfigError
from singlestream.data.pipeline import EvalItem, eval_batches
from singlestream.data.record import DataError, Source
from singlestream.data.sources import open_split, split_names
from singlestream.explain.pointing import PointingCounts, add_counts, count_pointing
from singlestream.explain.scores import wilson_interval
from singlestream.loading import load
from singlestream.objectives import build_objectives
from singlestream.objectives.total import loss_weights
from singlestream.page import make_report
from singlestream.predict import Model
from singlestream.train.build import validation_split
from singlestream.train.checkpoint import restore_tree
from singlestream.train.errors import FolderError
from singlestream.train.folder import RunFolder, make_writable, write_together
from singlestream.train.metrics import Totals
from singlestream.train.step import make_eval_step

MAX_ROWS = 32  # of a batch
TOP = 5  # most probable answers that are kept of each prediction
CountFn = Callable[[Any, Batch], PointingCounts]
POINTING_BATCHES = 16  # that layer and head are chosen on, and that the chosen pair is measured on


def evaluate(
    workdir: str | os.PathLike[str],
    *,
    split: str = "test",
    checkpoint: str | int = "best",
    data_dir: str = "",
    report: bool = False,
) -> dict[str, float]:
    """Evaluates a run and writes `eval/SPLIT/` of its folder.

    Args:
        workdir: the run's folder.
        split: one of the source's splits.
        checkpoint: `best`, `latest` or a step.
        data_dir: where the data lies, if not where the run's config says.
        report: also write the page.

    Returns:
        The metrics by name.

    Raises:
        ConfigError, DataError, FolderError, CheckpointError: what a user can mend, in words.
    """
    folder = RunFolder.at(workdir)
    model = load(workdir, checkpoint)
    if data_dir:
        model.move_data(data_dir)
    splits = split_names(model.config.data)
    if split not in splits:
        raise ConfigError(f"--split={split}: {model.config.data.name} has {', '.join(splits)}")
    place = folder.eval(split)
    try:
        make_writable(place)
    except OSError as error:
        raise FolderError(f"{place} cannot be written: {error.strerror}") from error
    found = run_evaluation(model, folder, split)
    files = {place / "metrics.json": json.dumps(found.metrics, indent=1) + "\n"}
    if found.answered:
        files[place / "predictions.jsonl"] = "".join(f"{each.to_json()}\n" for each in found.answered)
    if report:
        files[place / "report.html"] = make_report(found).to_html()
    with folder.writing():
        write_together(files)
    return found.metrics


def run_evaluation(model: Model, folder: RunFolder, split: str) -> Evaluation:
    """Computes everything; reads `priors.json` of the folder, and `eval/pointing.json` or makes it."""
    source = open_split(model.config.data, split)
    losses, answered = _measure(model, folder, source)
    metrics = summarise(answered) if answered else {}
    metrics |= {name: value for name, value in losses.items() if name not in metrics}
    pointing = None
    if _has_pointing(model):
        count = _count_fn(model)
        pointing = _choose_head(model, folder, count)
        metrics |= _pointing_metrics(pointing, _count_hits(model, source, count))
    return Evaluation(
        model=model,
        folder=folder,
        split=split,
        source=source,
        metrics=metrics,
        answered=answered,
        pointing=pointing,
    )


def _batches(model: Model, source: Source, limit: int = 0) -> Iterator[EvalItem]:
    rows = min(model.config.train.batch_size, MAX_ROWS)
    return eval_batches(source, model.processor, batch_size=rows, limit=limit)


# ---- losses and answers ----------------------------------------------------------------------------------------------


def _measure(model: Model, folder: RunFolder, source: Source) -> tuple[dict[str, float], list[Answered]]:
    """The objectives' metrics and the texts that were cut; every question answered, with and without its picture."""
    config, spec = model.config, model.spec
    objectives = build_objectives(config, spec)
    graphdef = nnx.split(model.module)[0]
    eval_step = jax.jit(make_eval_step(graphdef, objectives, config, spec))
    kept = jax.eval_shape(lambda: {"objectives": {n: o.init_state(spec) for n, o in objectives.items()}})
    state = {"params": model.params, **restore_tree(folder.checkpoints, model.step, kept)}
    answers = _answers_fn(graphdef, min(TOP, spec.num_answers)) if "vqa" in objectives else None
    priors = folder.read_json(folder.priors) if answers else {}
    totals, answered, truncated = Totals(), [], 0
    for number, (batch, items) in enumerate(_batches(model, source)):
        totals.add(eval_step(state, batch, np.int32(number)))
        truncated += sum(model.processor.truncates(sentence.text) for row in items for _, sentence in row)
        if answers is None:
            continue
        probability, ids = jax.device_get(answers(model.params, batch))
        _, no_image = jax.device_get(answers(model.params, without_image(batch)))
        for row, row_items in enumerate(items):
            for k, (record, sentence) in enumerate(row_items):
                if not sentence.answer:
                    continue
                top = zip(ids[row, k], probability[row, k], strict=True)
                answered.append(
                    Answered(
                        record=record,
                        sentence=sentence,
                        top=tuple((model.answers[i], float(p)) for i, p in top),
                        no_image=model.answers[no_image[row, k, 0]],
                        **prior_answers(priors, sentence),
                    )
                )
    return {**totals.means(loss_weights(objectives, config.objectives)), "text/truncated": truncated}, answered


def _answers_fn(graphdef: Any, count: int) -> Any:
    """(params, batch) -> probabilities and ids of the `count` most probable answers, [B, K, count] each."""

    @jax.jit
    def answers(params: Any, batch: Batch) -> tuple[jax.Array, jax.Array]:
        model = nnx.merge(graphdef, params)
        probability, ids = jax.lax.top_k(jax.nn.softmax(model.heads["vqa"](model(batch)), axis=-1), count)
        return probability, ids

    return answers


# ---- pointing --------------------------------------------------------------------------------------------------------


def _has_pointing(model: Model) -> bool:
    # With several pictures an example, boxes speak of the first alone (`data.targets`).
    return model.processor.mentions and model.config.model.num_images == 1


def _count_fn(model: Model) -> CountFn:
    continuations = model.spec.continuations

    @jax.jit
    def count(params: Any, batch: Batch) -> PointingCounts:
        encoded = nnx.merge(model.graphdef, params)(batch, attention=True)
        assert encoded.attention is not None
        return count_pointing(encoded.attention["self"], batch=batch, continuations=continuations)

    return count


def _count_hits(model: Model, source: Source, count: CountFn) -> PointingCounts:
    """Hits of every head on the first batches of a split."""
    config = model.config.model
    zero = jnp.zeros((), jnp.float32)
    totals = PointingCounts(hits=jnp.zeros((config.num_layers, config.num_heads)), chance=zero, words=zero)
    for batch, _ in _batches(model, source, POINTING_BATCHES):
        totals = add_counts(totals, count(model.params, batch))
    return jax.device_get(totals)


def _choose_head(model: Model, folder: RunFolder, count: CountFn) -> Pointing:
    """The layer and head that point best on the validation split; kept in `eval/pointing.json` for its checkpoint."""
    path = folder.path / "eval" / "pointing.json"
    if path.is_file():
        try:
            kept = Pointing(**folder.read_json(path))
        except (TypeError, FolderError):
            kept = None  # not ours, or of another version: it is made anew
        if kept is not None and kept.step == model.step:
            return kept
    split = validation_split(model.config)
    if not split:
        raise DataError(f"source {model.config.data.name!r} has no validation split to choose a head on")
    counts = _count_hits(model, open_split(model.config.data, split), count)
    layer, head = np.unravel_index(np.argmax(counts.hits), counts.hits.shape)
    shares = np.asarray(counts.hits) / max(float(counts.words), 1)
    chosen = Pointing(step=model.step, split=split, layer=int(layer), head=int(head), by_head=shares.tolist())
    with folder.writing():
        folder.write_json(path, dataclasses.asdict(chosen))
    return chosen


def _pointing_metrics(chosen: Pointing, counts: PointingCounts) -> dict[str, float]:
    words = int(counts.words)
    if not words:
        return {}
    hits = int(counts.hits[chosen.layer, chosen.head])
    low, high = wilson_interval(hits, words)
    return {
        "attention/pointing": hits / words,
        "attention/pointing/low": low,
        "attention/pointing/high": high,
        "attention/pointing_chance": float(counts.chance) / words,
        "attention/pointing_words": words,
    }
