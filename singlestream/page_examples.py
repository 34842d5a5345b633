"""The examples of a run's page: answered questions with their attention, and what instruments say of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx

from singlestream.answers import Answered, Evaluation, by_kind
from singlestream.data.processor import Processor
from singlestream.data.record import Record
from singlestream.explain.instruments import explain
from singlestream.explain.question import Question, Relevance
from singlestream.explain.report import Example
from singlestream.model.answering import answering
from singlestream.model.maps import image_to_text, text_to_image
from singlestream.predict import Model
from singlestream.words import by_words, places, words_of

NUM_EACH = 12  # examples of right and of wrong answers
# Beside the weights themselves; all of them together take one pass forward and one backward.
INSTRUMENTS = ("rollout", "mean_attention", "attention_gradient", "chefer")

Looker = Callable[[Any, Question], Any]


def choose_examples(answered: Sequence[Answered], *, right: bool, count: int = NUM_EACH) -> list[Answered]:
    """Right or wrong answers, one of each kind in turn; a picture comes again only where a kind has no other."""
    waiting = list(by_kind(each for each in answered if each.correct == right).values())
    chosen: list[Answered] = []
    seen: set[int] = set()
    while waiting and len(chosen) < count:
        questions = waiting.pop(0)
        at = next((i for i, each in enumerate(questions) if each.record not in seen), 0)
        chosen.append(questions.pop(at))
        seen.add(chosen[-1].record)
        if questions:
            waiting.append(questions)
    return chosen


def make_examples(found: Evaluation, shown: Sequence[Answered]) -> list[Example]:
    """The chosen questions with their pictures and attention, each in a row of its own."""
    if not shown:
        return []
    model = found.model
    data = dataclasses.replace(model.processor.data, texts_per_row=1, examples_per_row=1, row_patches=0)
    processor = dataclasses.replace(model.processor, data=data)
    records = [found.source[each.record] for each in shown]
    if not all(record.images for record in records) or not model.config.model.meets:
        return []  # region features alone: there is no picture to show; otherwise no attention between both
    look = _look_fn(model)
    return [_example(model, processor, each, r, look) for each, r in zip(shown, records, strict=True)]


def _look_fn(model: Model) -> Looker:
    """(params, question) -> what words give to image tokens, the reverse, and what each of `INSTRUMENTS` says."""

    @jax.jit
    def look(params: Any, question: Question) -> tuple[jax.Array, jax.Array, dict[str, Relevance]]:
        module, batch = nnx.merge(model.graphdef, params), question.batch
        weights = module(batch, attention=True).attention
        assert weights is not None
        said = {name: explain(name, module, question) for name in INSTRUMENTS}
        return text_to_image(weights, batch=batch), image_to_text(weights, batch=batch), said

    return look


def _example(model: Model, processor: Processor, each: Answered, record: Record, look: Looker) -> Example:
    """Looked at alone: of a batch, the weights of every layer and their gradients would be in memory at once."""
    batch = processor.batch([processor.row([(record, [each.sentence])])])
    target = np.array([model.answers.index(each.predicted)], np.int32)
    question = Question(batch=batch, target=target, head=answering(model.heads), spec=model.spec)
    to_image, to_text, said = jax.device_get(look(model.params, question))
    words, patches = words_of(processor, each.sentence, batch, 0), places(batch.image, 0)
    seen = slice(len(patches))
    return Example(
        id=each.sentence.id,
        kind=each.sentence.kind,
        text=each.sentence.text,
        answer=each.sentence.answer or "",
        predicted=each.predicted,
        probabilities=each.top,
        images=record.images,
        words=words.words,
        patches=patches,
        # A word looks where its pieces look on average; a patch gives a word what it gives to all of its pieces.
        to_image=words.mean @ to_image[:, 0, ..., seen],
        to_text=to_text[:, 0, :, seen] @ words.total.T if model.config.model.picture_reads_text else None,
        instruments={name: by_words(one, words, len(patches), 0) for name, one in said.items()},
    )
