"""The stream of batches: the same from the same seed, wherever it is cut, stopped or shared."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest

from singlestream.batch import check_batch
from singlestream.config import ConfigError, DataConfig
from singlestream.data.pipeline import (
    blind_answer,
    count_truncated,
    eval_batches,
    evaluated,
    priors,
    train_iterator,
    training_records,
)
from singlestream.data.record import DataError, Sentence
from singlestream.data.sources import open_split, source_names, split_names


def _equal(first, second):
    jax.tree.map(np.testing.assert_array_equal, first, second)


def _take(iterator, count):
    return [next(iterator) for _ in range(count)]


SETTINGS = [{"texts_per_row": 2, "augment": ("shift", "brightness")}, {"examples_per_row": 2}, {}]


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_restored_stream_goes_on_where_it_was(source, make_processor, settings):
    processor = make_processor(**settings)
    iterator = train_iterator(source, processor, batch_size=5, seed=1)
    _take(iterator, 4)
    state = json.loads(json.dumps(iterator.get_state()))
    expected = _take(iterator, 4)  # past the end of the epoch
    other = train_iterator(source, processor, batch_size=5, seed=1)
    other.set_state(state)
    _equal(_take(other, 4), expected)
    iterator.set_state(state)
    _equal(_take(iterator, 4), expected)


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("count", [2, 4])
def test_processes_share_the_same_global_batch(source, make_processor, settings, count):
    processor = make_processor(**settings)
    whole = train_iterator(source, processor, batch_size=4, seed=3)
    parts = [
        train_iterator(source, processor, batch_size=4, seed=3, process_index=p, process_count=count)
        for p in range(count)
    ]
    for _ in range(5):
        batches = [next(part) for part in parts]
        _equal(jax.tree.map(lambda *leaves: np.concatenate(leaves), *batches), next(whole))


def test_threads_do_not_matter(source, make_processor):
    one, many = (make_processor(texts_per_row=2, augment=("shift",), num_threads=n, prefetch=4) for n in (1, 4))
    for n in range(2):
        _equal(*(_take(train_iterator(source, p, batch_size=3, seed=n), 8) for p in (one, many)))


def test_the_seed_matters(source, make_processor):
    first, second = (next(train_iterator(source, make_processor(), batch_size=12, seed=n)) for n in (0, 1))
    assert first.picture.tolist() != second.picture.tolist()


def test_each_epoch_shows_every_record_once_in_a_new_order(source, make_processor):
    batches = _take(train_iterator(source, make_processor(texts_per_row=2), batch_size=12, seed=0), 3)
    check_batch(batches[0])
    orders = [batch.picture[:, 0].tolist() for batch in batches]
    assert all(sorted(order) == list(range(1, 13)) for order in orders)
    assert orders[0] != orders[1] != orders[2]


def test_texts_are_drawn_anew_without_repetition(source, make_processor):
    processor = make_processor(texts_per_row=2)
    drawn = set()
    for batch in _take(train_iterator(source, processor, batch_size=12, seed=0), 6):
        row = batch.picture[:, 0].tolist().index(1)
        ids = [processor.tokenizer.decode(text) for text in batch.text.ids[row].reshape(2, -1)]
        assert ids[0] != ids[1]
        drawn.add(tuple(sorted(ids)))
    assert len(drawn) > 1
    assert not any("a red box." in pair for pair in drawn)  # captions are not wanted


def test_captions_kinds_and_share(source, make_processor):
    processor = make_processor(texts="captions")
    batch = next(train_iterator(source, processor, batch_size=3, seed=0))
    assert all(processor.tokenizer.decode(ids).startswith("a ") for ids in batch.text.ids)
    processor = make_processor(kinds=("count",))
    batch = next(train_iterator(source, processor, batch_size=3, seed=0))
    assert {processor.tokenizer.decode(ids) for ids in batch.text.ids} == {"how many boxes are there?"}
    some = [training_records(source, DataConfig(share=share)) for share in (0.25, 0.5, 1.0)]
    assert [len(records) for records in some] == [3, 6, 12]
    assert set(some[0]) < set(some[1]) < set(some[2])


def test_questions_of_every_kind_are_evaluated_and_captions_of_those_trained_on():
    captions = {"long": "a box and a box", "short": "a box"}
    questions = {"count": "how many?", "colour": "what colour?"}
    texts = [Sentence(id=kind, text=text, kind=kind) for kind, text in captions.items()]
    texts += [Sentence(id=kind, text=text, kind=kind, answer="no") for kind, text in questions.items()]

    def kinds(**settings):
        return [text.kind for text in texts if evaluated(text, DataConfig(texts="all", **settings))]

    assert kinds() == ["long", "short", "count", "colour"]
    assert kinds(kinds=("long", "count")) == ["long", "count", "colour"]


def test_settings_that_leave_nothing_are_refused(source, make_processor):
    with pytest.raises(ConfigError, match=r"config\.data\.kinds has 'size': .* of colour, count, is$"):
        train_iterator(source, make_processor(kinds=("size",)), batch_size=2, seed=0)
    with pytest.raises(ConfigError, match="batch_size=3 is not divisible by the number of processes, 2"):
        train_iterator(source, make_processor(), batch_size=3, seed=0, process_count=2)
    with pytest.raises(ConfigError, match="3 rows is not divisible"):
        next(eval_batches(source, make_processor(), batch_size=3, process_count=2))


def test_a_source_without_captions_cannot_train_on_them(source, make_processor):
    source.texts = lambda i: (Sentence(id="a", text="a box", answer="yes"),)
    with pytest.raises(ConfigError, match=r"config\.data\.texts='captions': .* no such text"):
        train_iterator(source, make_processor(texts="captions"), batch_size=2, seed=0)
    with pytest.raises(DataError, match="no such text in this split"):
        next(eval_batches(source, make_processor(texts="captions"), batch_size=2))


def test_a_damaged_record_is_named_by_the_stream(source, make_processor):
    def damaged(i):
        raise DataError(f"record toy-{i}: damaged")

    processor = make_processor()
    source.__class__ = type("Damaged", (type(source),), {"__getitem__": lambda self, i: damaged(i)})
    with pytest.raises(DataError, match="record toy-.*: damaged"):
        next(train_iterator(source, processor, batch_size=2, seed=0))


@pytest.mark.parametrize("settings", SETTINGS)
def test_evaluation_asks_everything_once_in_order(source, make_processor, settings):
    processor = make_processor(**settings)
    asked = []
    for batch, items in eval_batches(source, processor, batch_size=5):
        check_batch(batch)
        assert len(items) == len(batch.example_mask) == 5
        for row, examples in enumerate(items):
            assert batch.example_mask[row].sum() == len(examples)
            for k, (record, text) in enumerate(examples):
                assert batch.picture[row, k] == record + 1
                assert processor.answers[batch.targets["answer"][row, k]] == text.answer
                asked.append((record, text.id))
    assert asked == [(i, text.id) for i in range(12) for text in source.texts(i)[:3]]


def test_processes_share_the_evaluation(source, make_processor):
    processor = make_processor(texts_per_row=2)
    whole = list(eval_batches(source, processor, batch_size=4, limit=5))
    assert len(whole) == 5
    parts = [
        list(eval_batches(source, processor, batch_size=4, limit=5, process_index=p, process_count=2)) for p in (0, 1)
    ]
    for (batch, items), first, second in zip(whole, *parts, strict=True):
        _equal(jax.tree.map(lambda *leaves: np.concatenate(leaves), first[0], second[0]), batch)
        named = [[[(i, text.id) for i, text in row] for row in part] for part in (first[1] + second[1], items)]
        assert named[0] == named[1]


def test_priors_count_what_the_question_alone_predicts(source):
    texts = [("What colour?", "red", "colour")] * 2 + [("What colour is it?", "blue", "colour")] * 3
    texts += [("Is it red?", "yes", "is"), ("Is it red?", "no", "is")]
    source.texts = lambda i: tuple(Sentence(id="", text=t, answer=a, kind=k) for t, a, k in texts[i : i + 1])
    table = priors(source, DataConfig())
    assert table == {
        "text": {"what colour?": "red", "what colour is it?": "blue", "is it red?": "no"},
        "prefix": {"what colour?": "red", "what colour": "blue", "is it": "no"},
        "by_kind": {"colour": "blue", "is": "no"},
        "majority": "blue",
    }
    assert blind_answer(table, "what  Colour?") == "red"
    assert blind_answer(table, "What colour is that?") == "blue"
    assert blind_answer(table, "Why?") == "blue"


def test_priors_of_captions_are_empty(source):
    empty = {"text": {}, "prefix": {}, "by_kind": {}, "majority": ""}
    assert priors(source, DataConfig(texts="captions")) == empty


def test_priors_know_only_what_is_trained_on(source):
    assert priors(source, DataConfig())["majority"] == "one"
    table = priors(source, DataConfig(kinds=("is",)))
    assert table["majority"] == "false" and set(table["by_kind"]) == {"is"}
    some = DataConfig(share=0.25, kinds=("is",))
    assert set(priors(source, some)["text"]) == {f"is the box number {i} red?" for i in training_records(source, some)}


def test_texts_that_are_cut_are_counted_once(source, make_processor):
    assert count_truncated(source, make_processor(text_length=8, kinds=("colour", "is"))) == (12, 13)
    assert count_truncated(source, make_processor(text_length=8, kinds=("is",), share=0.25)) == (3, 3)
    assert count_truncated(source, make_processor(texts="captions")) == (0, 3)


def test_wrong_names_list_the_valid():
    assert {"nlvr", "scenes"} <= set(source_names())
    assert not any(name.startswith("scenes_") for name in source_names())
    with pytest.raises(ConfigError, match=r"config\.data\.name='x': no such source; there are .*nlvr.*scenes"):
        open_split(DataConfig(name="x"), "train")
    with pytest.raises(DataError, match="source 'nlvr' has no split 'dev': choose one of train, validation, test"):
        open_split(DataConfig(name="nlvr"), "dev")
    with pytest.raises(ConfigError, match=r"config\.data\.options\.colour: no such key"):
        open_split(DataConfig(name="nlvr", options={"colour": 1}), "train")
    assert split_names(DataConfig(name="nlvr")) == ("train", "validation", "test")
