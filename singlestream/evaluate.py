"""Evaluation of a run from its folder: metrics, predictions, and the page.

Beside the model's accuracy stand what the question alone reaches ("blind"), the commonest answer ("majority"), and the
model itself with the picture taken away and, where it reads audio, with the sound taken away. Shares come with 95%
intervals: `KEY/low`, `KEY/high`.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx

from singlestream.answers import Answered, Evaluation, Line, Metrics, Pointing, prior_answers, summarise
from singlestream.batch import Batch, without_audio, without_image
from singlestream.captioned import FILE as CAPTIONS
from singlestream.captioned import Captioned, summarise_captions, unscored, write_captions
from singlestream.chosen import FILE as CHOICES
from singlestream.chosen import choose_texts, read_choices, summarise_choices, summarise_together
from singlestream.config import Config, ConfigError
from singlestream.data.overlap import overlap_lines, read_ids
from singlestream.data.pipeline import EvalItem, eval_batches
from singlestream.data.record import DataError, Source
from singlestream.data.sources import open_split, source_module, split_names
from singlestream.data.survey import is_question
from singlestream.explain.pointing import PointingCounts, add_counts, count_pointing
from singlestream.explain.scores import wilson_interval
from singlestream.grounded import FILE as GROUNDINGS
from singlestream.grounded import ground_texts, summarise_groundings
from singlestream.labelled import FILE as LABELS
from singlestream.labelled import label_texts, summarise_labels
from singlestream.loading import load
from singlestream.model.answering import LABEL_HEAD, answering, gives_several, probabilities
from singlestream.model.captions import Search, writing
from singlestream.objectives import build_objectives
from singlestream.objectives.choose import CHOICE_HEAD
from singlestream.objectives.total import loss_weights
from singlestream.page import make_report
from singlestream.predict import Model
from singlestream.retrieval import retrieve
from singlestream.train.build import validation_split
from singlestream.train.checkpoint import restore_tree
from singlestream.train.errors import FolderError
from singlestream.train.fingerprint import digest
from singlestream.train.folder import RunFolder, make_writable, write_together
from singlestream.train.metrics import Totals
from singlestream.train.step import make_eval_step
from singlestream.train.teachers import kept_teachers

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
    shortlist: int = 0,
    prune: float = 0.0,
    together: str | os.PathLike[str] = "",
    search: Search | None = None,
) -> Metrics:
    """Evaluates a run and writes `eval/SPLIT/` of its folder.

    Where a split's answers are not published, there is also `submission.json`, as the dataset's server takes it; of
    captions `captions_results.json`, where the dataset's own evaluation reads a file.

    Args:
        workdir: the run's folder.
        split: one of the source's splits.
        checkpoint: `best`, `latest` or a step.
        data_dir: where the data lies, if not where the run's config says.
        report: also write the page.
        shortlist: also retrieve texts and pictures over the whole split, re-ranking so many for each; 0: do not.
        prune: share of the image tokens that stay, as `Model.pruned(keep=...)` has it; the files then go to
            `eval/SPLIT-prune-SHARE/`. 0: as the run is.
        together: of two runs on `choose`, the other one's folder: also count the questions that both answer right.
        search: of a run that writes captions, how; None: the best of a beam of five.

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
    chooser, model = model, model.pruned(keep=prune) if prune else model
    place = folder.eval(f"{split}-prune-{prune:g}" if prune else split)
    if together and CHOICE_HEAD not in model.heads:
        raise ConfigError(f"--together={together}: it is for two runs with config.objectives.choose, {workdir} is none")
    if search and not writing(model.heads):
        raise ConfigError(
            f"--search={search.kind}: it is for a run with config.objectives.prefix_lm or caption, {workdir} is none"
        )
    others = read_choices(RunFolder.at(together), place.name) if together else {}
    try:
        make_writable(place)
    except OSError as error:
        raise FolderError(f"{place} cannot be written: {error.strerror}") from error
    found = run_evaluation(model, folder, split, chooser=chooser)
    for line in overlap_lines(read_ids(folder.pictures), found.source, split):
        print(line, file=sys.stderr)
    lines = _lines(found, others if together else None, search)
    if shortlist > 0:
        with folder.writing():
            found.metrics.update(retrieve(model, found.source, place / "retrieval", shortlist=shortlist))
    files = _files(found, lines)
    if report:
        files["report.html"] = make_report(found).to_html()
    with folder.writing():
        write_together({place / name: text for name, text in files.items()})
    return found.metrics


def _lines(
    found: Evaluation, others: Mapping[str, bool | None] | None, search: Search | None
) -> dict[str, Sequence[Line]]:
    """What each of the run's tasks says of the split, by the names of the files; its figures join `found.metrics`.

    Args:
        others: of `read_choices`, where two runs are counted together.
        search: how captions are written; None: as captioning is reported.
    """
    model, source, heads = found.model, found.source, found.model.heads
    lines: dict[str, Sequence[Line]] = {"predictions.jsonl": found.answered}
    if writing(heads):
        lines[CAPTIONS] = captioned = write_captions(model, source, search)
        if why := unscored(captioned):
            print(f"captions get no BLEU, ROUGE-L and CIDEr: {why}", file=sys.stderr)
        found.metrics.update(summarise_captions(captioned))
    if LABEL_HEAD in heads:
        priors = found.folder.read_json(found.folder.priors)
        lines[LABELS] = labelled = label_texts(model, priors, _batches(model, source))
        found.metrics.update(summarise_labels(labelled))
    if model.config.objectives.get("ground"):
        lines[GROUNDINGS] = grounded = ground_texts(model, _batches(model, source))
        found.metrics.update(summarise_groundings(grounded))
    if CHOICE_HEAD in heads:
        lines[CHOICES] = chosen = choose_texts(model, source, _batches(model, source))
        found.metrics.update(summarise_choices(chosen))
        found.metrics.update({} if others is None else summarise_together(chosen, others))
    return {name: each for name, each in lines.items() if each}


def _files(found: Evaluation, lines: Mapping[str, Sequence[Line]]) -> dict[str, str]:
    """What is written of an evaluation, by the names of the files."""
    files = {"metrics.json": json.dumps(found.metrics, indent=1) + "\n"}
    files |= {name: "".join(f"{each.to_json()}\n" for each in some) for name, some in lines.items()}
    source = source_module(found.model.config.data.name)
    submission = getattr(source, "submission", None)
    if submission and found.answered and not found.judged:
        said = {each.sentence.id: each.predicted for each in found.answered}
        files["submission.json"] = json.dumps(submission(said)) + "\n"
    captioned = [each for each in lines.get(CAPTIONS, ()) if isinstance(each, Captioned)]
    if captioned and (results := getattr(source, "caption_results", None)):
        said = {each.record.files[0]: each.caption.text for each in captioned}
        files["captions_results.json"] = json.dumps(results(said)) + "\n"
    return files


def run_evaluation(model: Model, folder: RunFolder, split: str, *, chooser: Model) -> Evaluation:
    """Computes everything; reads `priors.json` of the folder, and `eval/pointing.json` or makes it.

    `chooser` is the run's own model, which chooses the head that points: `model`, or that model before it was pruned.
    """
    source = open_split(model.config.data, split)
    losses, answered = _measure(model, folder, source)
    metrics = summarise(answered) if answered else {}
    metrics |= {name: value for name, value in losses.items() if name not in metrics}
    pointing = None
    if _has_pointing(model):
        count = _count_fn(model)
        pointing = _choose_head(chooser, folder, count if chooser is model else _count_fn(chooser))
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


def _measure(model: Model, folder: RunFolder, source: Source) -> tuple[Metrics, list[Answered]]:
    """The objectives' metrics and the texts that were cut; every question answered, with and without its picture."""
    config, spec = model.config, model.spec
    objectives = build_objectives(config, spec, kept_teachers(folder))
    graphdef = nnx.split(model.module)[0]
    eval_step = jax.jit(make_eval_step(graphdef, objectives, config, spec))
    kept = jax.eval_shape(lambda: {"objectives": {n: o.init_state(spec) for n, o in objectives.items()}})
    # Once: a queue or a teacher in numpy would travel to the device with every batch.
    state = {"params": model.params, **jax.device_put(restore_tree(folder.checkpoints, model.step, kept))}
    head = answering(model.heads)
    one_answer = head and not (head == LABEL_HEAD and gives_several(config))
    answers = _answers_fn(graphdef, config, min(TOP, spec.num_answers)) if one_answer else None
    priors = folder.read_json(folder.priors) if answers else {}
    totals, answered, truncated = Totals(), [], 0
    for number, (batch, items) in enumerate(_batches(model, source)):
        totals.add(eval_step(state, batch, np.int32(number)))
        truncated += sum(model.processor.truncates(sentence.text) for row in items for _, sentence in row)
        if answers is None:
            continue
        probability, ids = jax.device_get(answers(model.params, batch))
        _, no_image = jax.device_get(answers(model.params, without_image(batch)))
        no_audio = None
        if batch.audio is not None:
            _, no_audio = jax.device_get(answers(model.params, without_audio(batch)))
        for row, row_items in enumerate(items):
            for k, (record, sentence) in enumerate(row_items):
                if not is_question(sentence):
                    continue
                top = zip(ids[row, k], probability[row, k], strict=True)
                answered.append(
                    Answered(
                        record=record,
                        sentence=sentence,
                        top=tuple((model.answers[i], float(p)) for i, p in top),
                        no_image=model.answers[no_image[row, k, 0]],
                        no_audio=None if no_audio is None else model.answers[no_audio[row, k, 0]],
                        **prior_answers(priors, sentence),
                    )
                )
    return {**totals.means(loss_weights(objectives, config.objectives)), "text/truncated": truncated}, answered


def _answers_fn(graphdef: Any, config: Config, count: int) -> Any:
    """(params, batch) -> probabilities and ids of the `count` most probable answers, [B, K, count] each."""

    @jax.jit
    def answers(params: Any, batch: Batch) -> tuple[jax.Array, jax.Array]:
        model = nnx.merge(graphdef, params)
        head = answering(model.heads)
        probability, ids = jax.lax.top_k(probabilities(model.heads[head](model(batch)), head, config), count)
        return probability, ids

    return answers


# ---- pointing --------------------------------------------------------------------------------------------------------


def _has_pointing(model: Model) -> bool:
    # With several pictures an example, boxes speak of the first alone (`data.targets`).
    processor = model.processor
    return processor.mentions and processor.model.num_images == 1 and model.config.model.words_read_image


def _count_fn(model: Model) -> CountFn:
    continuations = model.spec.continuations

    @jax.jit
    def count(params: Any, batch: Batch) -> PointingCounts:
        encoded = nnx.merge(model.graphdef, params)(batch, attention=True)
        assert encoded.attention is not None
        return count_pointing(encoded.attention, batch=batch, continuations=continuations)

    return count


def _count_hits(model: Model, source: Source, count: CountFn) -> PointingCounts:
    """Hits of every head on the first batches of a split."""
    counts = (count(model.params, batch) for batch, _ in _batches(model, source, POINTING_BATCHES))
    return jax.device_get(functools.reduce(add_counts, counts))


def _choose_head(model: Model, folder: RunFolder, count: CountFn) -> Pointing:
    """The layer and head that point best on the validation split; kept in `eval/pointing.json` for its checkpoint."""
    path, weights = folder.path / "eval" / "pointing.json", digest(model.params)
    if path.is_file():
        try:
            kept = Pointing(**folder.read_json(path))
        except (TypeError, FolderError):
            kept = None  # not ours, or of another version: it is made anew
        if kept is not None and (kept.step, kept.weights) == (model.step, weights):
            return kept
    split = validation_split(model.config)
    if not split:
        raise DataError(f"source {model.config.data.name!r} has no validation split to choose a head on")
    counts = _count_hits(model, open_split(model.config.data, split), count)
    layer, head = np.unravel_index(np.argmax(counts.hits), counts.hits.shape)
    shares = np.asarray(counts.hits) / max(float(counts.words), 1)
    chosen = Pointing(
        step=model.step, weights=weights, split=split, layer=int(layer), head=int(head), by_head=shares.tolist()
    )
    with folder.writing():
        folder.write_json(path, dataclasses.asdict(chosen))
    return chosen


def _pointing_metrics(chosen: Pointing, counts: PointingCounts) -> Metrics:
    words = int(counts.words)
    if not words:
        return {}
    metrics: Metrics = {
        "attention/pointing_chance": float(counts.chance) / words,
        "attention/pointing_words": words,
    }
    shares = {"pointing": (counts.hits, words), "grounding": (counts.boxed, int(counts.single))}
    for name, (hits, count) in shares.items():
        if count:
            hit, key = float(hits[chosen.layer, chosen.head]), f"attention/{name}"
            metrics[key] = hit / count
            metrics[f"{key}/low"], metrics[f"{key}/high"] = wilson_interval(hit, count)
    return metrics
