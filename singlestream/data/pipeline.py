"""From a source to batches: the endless shuffled stream that training reads, and every text once for evaluation."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import grain
import numpy as np

from singlestream.batch import Batch
from singlestream.config import ConfigError, DataConfig
from singlestream.data.mixture import Corpus, corpora_of
from singlestream.data.packing import NextFit
from singlestream.data.processor import Entry, Processor
from singlestream.data.record import DataError, Sentence, Source
from singlestream.data.survey import is_question, survey

EPOCHS = 1 << 31  # in effect endless; Grain's own `repeat(None)` overflows when a batch takes one element


def train_iterator(
    source: Source,
    processor: Processor,
    *,
    batch_size: int,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
) -> grain.DatasetIterator[Batch]:
    """Endless batches, reshuffled each epoch; with `get_state()` and `set_state(state)` (JSON) it goes on where it was.

    What comes depends on the seed and the step alone, not on threads. The global batch of a step is the same however
    many processes share it, process p holding its p-th block of rows. With `data.row_patches` each process packs
    a stream of its own, so there the rows depend on the number of processes.

    Args:
        batch_size: rows of the global batch; each process gets batch_size // process_count of them.
        seed: of the order, of the choice of texts, and of augmentation.

    Raises:
        ConfigError: no text is of the wanted kinds, or the batch does not divide among the processes.
    """
    if batch_size % process_count:
        raise ConfigError(
            f"config.train.batch_size={batch_size} is not divisible by the number of processes, {process_count}"
        )
    data, corpora = processor.data, corpora_of(source, processor.data)
    orders = [
        grain.MapDataset.source([(number, record) for record in training_records(corpus.source, corpus.data)])
        .seed(seed + number)
        .shuffle()
        .repeat(EPOCHS)
        for number, corpus in enumerate(corpora)
    ]
    order = grain.MapDataset.mix(orders, [corpus.rate for corpus in corpora]) if len(orders) > 1 else orders[0]
    numbered = order.map_with_index(lambda index, place: (place, index))
    options = grain.ReadOptions(num_threads=data.num_threads, prefetch_buffer_size=data.prefetch)
    rows = batch_size // process_count

    def entry(numbered_place: tuple[tuple[int, int], int]) -> Entry:
        (number, record), index = numbered_place
        # A generator of its own for each place of the stream: the thread or process that asks does not matter.
        return read_entry(corpora[number], record, np.random.default_rng((seed, index)))

    if data.row_patches:
        mine = numbered[process_index::process_count].map(entry).to_iter_dataset(options)
        packed = NextFit(mine, processor).batch(rows, batch_fn=processor.batch)
        return iter(grain.experimental.ThreadPrefetchIterDataset(packed, prefetch_buffer_size=1))

    size = data.examples_per_row

    def batch(elements: list[tuple[tuple[int, int], int]]) -> Batch:
        mine = elements[process_index * rows * size : (process_index + 1) * rows * size]
        made = [entry(element) for element in mine]
        return processor.batch([processor.row(made[i : i + size]) for i in range(0, len(made), size)])

    return iter(numbered.batch(batch_size * size, batch_fn=list).map(batch).to_iter_dataset(options))


def read_entry(corpus: Corpus, index: int, rng: np.random.Generator) -> Entry:
    """A record with as many of its wanted texts as a row takes, drawn without repetition; augmented."""
    record, data = corpus.source[index], corpus.data
    texts = [text for text in record.texts if wanted(text, data)]
    if len(texts) > data.texts_per_row:
        texts = [texts[i] for i in rng.permutation(len(texts))[: data.texts_per_row]]
    record = corpus.prepared(dataclasses.replace(record, texts=tuple(texts)), rng)
    return record, record.texts


def wanted(text: Sentence, data: DataConfig, *, any_kind: bool = False) -> bool:
    """Whether `data.texts` and (unless `any_kind`) `data.kinds` let the text in."""
    right = {"all": True, "none": False}.get(data.texts, is_question(text) == (data.texts == "questions"))
    return right and (any_kind or not data.kinds or text.kind in data.kinds)


def evaluated(text: Sentence, data: DataConfig) -> bool:
    """Whether an evaluation reads the text: questions of every kind, captions of those that are trained on.

    Answers are counted by kind, and what a model says to one that it never met is worth knowing; captions are counted
    all in one.
    """
    return wanted(text, data, any_kind=is_question(text))


def training_records(source: Source, data: DataConfig) -> list[int]:
    """Indices of the records to train on: the first share of a fixed shuffle, without those that have no wanted text.

    Raises:
        ConfigError: none is left, or a kind does not occur; lists the kinds that do.
    """
    count = max(1, round(data.share * len(source)))
    records = sorted(np.random.default_rng(0).permutation(len(source))[:count].tolist())
    if data.texts == "none":
        return records
    texts = survey(source).texts
    kinds = {text.kind for i in records for text in texts[i] if wanted(text, data, any_kind=True)}
    kept = [i for i in records if any(wanted(text, data) for text in texts[i])]
    if missing := sorted(set(data.kinds) - kinds):
        raise ConfigError(f"config.data.kinds has {missing[0]!r}: the training texts are of {', '.join(sorted(kinds))}")
    if not kept:
        raise ConfigError(
            f"config.data.texts={data.texts!r}: source {data.name!r} has no such text in its training split"
        )
    return kept


def check_training_rows(source: Source, data: DataConfig) -> None:
    """Refuses what `check_rows` does, of the texts to train on.

    Raises:
        ConfigError: as `training_records`.
        DataError: as `check_rows`.
    """
    for corpus in corpora_of(source, data):
        texts = survey(corpus.source).texts
        for i in training_records(corpus.source, corpus.data):
            _check_row(corpus.source, i, [text for text in texts[i] if wanted(text, corpus.data)], corpus.data)


def check_edges(source: Source, data: DataConfig) -> None:
    """Refuses to train on edges where no corpus knows any.

    Raises:
        ConfigError: neither relations of objects nor arcs between words are known.
    """
    for corpus in corpora_of(source, data):
        # A source that knows relations knows them, or that there are none, of its first record, too.
        if corpus.source[0].relations is not None or survey(corpus.source).arcs:
            return
    raise ConfigError(
        f"config.model.attention.graph='edges' needs edges, but the source {data.name!r} knows neither relations "
        "between the objects of a picture (Record.relations) nor arcs between the words of a text (Sentence.arcs)"
    )


def check_rows(source: Source, data: DataConfig) -> None:
    """Refuses records whose texts an evaluation would divide among rows, for who compares the texts of a record.

    Raises:
        DataError: names the first of them.
    """
    for i in range(len(source)):
        _check_row(source, i, [text for text in source.texts(i) if evaluated(text, data)], data)


def _check_row(source: Source, i: int, texts: Sequence[Sentence], data: DataConfig) -> None:
    if len(texts) > data.texts_per_row and any(map(is_question, texts)):
        raise DataError(
            f"record {source[i].id} has {len(texts)} texts that belong into one row, which holds "
            f"config.data.texts_per_row={data.texts_per_row}: set it to the most texts of a record"
        )


def training_texts(source: Source, data: DataConfig) -> collections.Counter[Sentence]:
    """How often each text comes in an epoch of all that is trained on; texts are without ids and mentions.

    Of a mixture: in an epoch of each corpus.

    Raises:
        ConfigError: as `training_records`.
    """
    counts: collections.Counter[Sentence] = collections.Counter()
    for corpus in corpora_of(source, data):
        texts = survey(corpus.source).texts
        records = training_records(corpus.source, corpus.data)
        counts.update(text for i in records for text in texts[i] if wanted(text, corpus.data))
    return counts


def count_truncated(source: Source, processor: Processor) -> tuple[int, int]:
    """How many different texts of the training lose their end, and how many different ones there are.

    Raises:
        ConfigError: as `training_records`.
        DataError: a text holds no word; names it.
    """
    cut: dict[str, bool] = {}
    for corpus in corpora_of(source, processor.data):
        texts = survey(corpus.source).texts
        for i in training_records(corpus.source, corpus.data):
            for k, text in enumerate(texts[i]):
                if text.text in cut or not wanted(text, corpus.data):
                    continue
                try:
                    cut[text.text] = processor.truncates(text.text)
                except DataError as error:
                    raise DataError(f"text {corpus.source.texts(i)[k].id}: {error}") from error
    return sum(cut.values()), len(cut)


EvalItem = tuple[Batch, list[list[tuple[int, Sentence]]]]
EvalRow = tuple[int, int, int]  # a record, and the first and last + 1 of its texts


def eval_batches(
    source: Source,
    processor: Processor,
    *,
    batch_size: int,
    limit: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[EvalItem]:
    """Every text of every record that is `evaluated`, once, in order; nothing is augmented, no two records share a row.

    Args:
        batch_size: rows of the global batch; each process yields batch_size // process_count of them, and as many
            batches as every other process (the last ones are filled with empty rows, `example_mask` False).
        limit: batches at most; 0: all.

    Yields:
        The batch, and for each row the (index of the record, text) of each of its examples.
    """
    if batch_size % process_count:
        raise ConfigError(f"a batch of {batch_size} rows is not divisible by the number of processes, {process_count}")
    processor = processor.unpacked()
    rows: list[EvalRow | None] = [*_eval_rows(source, processor.data, limit * batch_size)]
    rows += [None] * (-len(rows) % batch_size)  # empty rows
    mine = slice(process_index * batch_size // process_count, (process_index + 1) * batch_size // process_count)

    def make(batch: list[EvalRow | None]) -> EvalItem:
        entries = [_eval_entry(source, processor.data, row) for row in batch[mine]]
        made = processor.batch([processor.row([(record, texts)] if texts else []) for _, record, texts in entries])
        return made, [[(i, text) for text in texts] for i, _, texts in entries]

    options = grain.ReadOptions(num_threads=processor.data.num_threads, prefetch_buffer_size=processor.data.prefetch)
    yield from grain.MapDataset.source(rows).batch(batch_size, batch_fn=list).map(make).to_iter_dataset(options)


def _eval_rows(source: Source, data: DataConfig, limit: int) -> Iterator[EvalRow]:
    made = 0
    for i in range(len(source)):
        count = sum(evaluated(text, data) for text in source.texts(i))
        for first in range(0, count, data.texts_per_row):
            if limit and made >= limit:
                return
            yield i, first, min(first + data.texts_per_row, count)
            made += 1
    if not made:
        raise DataError(
            f"config.data.texts={data.texts!r}, config.data.kinds={data.kinds}: source {data.name!r} has "
            "no such text in this split"
        )


def _eval_entry(source: Source, data: DataConfig, row: EvalRow | None) -> tuple[int, Any, list[Sentence]]:
    if row is None:
        return -1, None, []
    i, first, last = row
    record = source[i]
    return i, record, [text for text in record.texts if evaluated(text, data)][first:last]


def priors(source: Source, data: DataConfig) -> dict[str, Any]:
    """What the question alone predicts, counted over the questions that are trained on.

    Returns:
        {"text": {question: its most frequent answer}, "prefix": {first two words: answer}, "majority": answer,
        "by_kind": {kind: answer}}; questions in lower case. Ties go to the alphabetically first answer.
    """
    tables: dict[str, dict[str, collections.Counter[str]]] = {"text": {}, "prefix": {}, "by_kind": {}}
    whole: collections.Counter[str] = collections.Counter()
    for text, count in training_texts(source, data).items():
        if not text.answer:
            continue
        question, prefix = _keys(text.text)
        for table, key in (("text", question), ("prefix", prefix), ("by_kind", text.kind)):
            tables[table].setdefault(key, collections.Counter())[text.answer] += count
        whole[text.answer] += count
    result: dict[str, Any] = {
        name: {key: _most_frequent(counts) for key, counts in table.items()} for name, table in tables.items()
    }
    return {**result, "majority": _most_frequent(whole) if whole else ""}


def blind_answer(priors: Mapping[str, Any], question: str) -> str:
    """The answer that the question alone suggests: same question, else same first two words, else the majority."""
    text, prefix = _keys(question)
    return priors["text"].get(text) or priors["prefix"].get(prefix) or priors["majority"]


def _keys(question: str) -> tuple[str, str]:
    words = question.lower().split()
    return " ".join(words), " ".join(words[:2])


def _most_frequent(counts: collections.Counter[str]) -> str:
    return min(counts, key=lambda answer: (-counts[answer], answer))
