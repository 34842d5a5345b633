"""Several corpora in one training: at their rates, with texts or pictures alone, cut and shared like one."""

from __future__ import annotations

import collections
import dataclasses
import json

import jax
import numpy as np
import pytest
from PIL import Image

from singlestream.config import Config, ConfigError, CorpusConfig, DataConfig
from singlestream.data.mixture import Corpus, Mixture, TextsAlone, corpora_of, open_training
from singlestream.data.overlap import PictureId, picture_ids
from singlestream.data.pipeline import count_truncated, priors, read_entry, train_iterator, training_texts
from singlestream.data.processor import Processor
from singlestream.data.survey import survey

from .conftest import ToySource, toy_config

ALONE = {
    "sentences": CorpusConfig(name="jsonl", pictures=False, rate=0.5),
    "pictures": CorpusConfig(name="jsonl", texts="none", rate=0.25),
}


@pytest.fixture
def folder(tmp_path):
    """Six pictures of one colour each, two lines on every one: pairs of a question and a caption."""
    lines = []
    for i in range(6):
        Image.fromarray(np.full((16, 16, 3), 20 * i, np.uint8)).save(tmp_path / f"{i}.png")
        lines.append({"image": f"{i}.png", "question": f"which number is picture {i}?", "answer": str(i)})
        lines.append({"image": f"{i}.png", "caption": f"number {i} is a picture of one colour"})
    for split in ("train", "validation", "test"):
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return tmp_path


def mixed(folder, **changes) -> Config:
    """A run on the folder's questions, with its captions without pictures and its pictures without texts beside."""
    corpora = {name: dataclasses.replace(corpus, dir=str(folder)) for name, corpus in ALONE.items()}
    corpora["sentences"] = dataclasses.replace(corpora["sentences"], texts="captions")
    changes = {"name": "jsonl", "dir": str(folder), "texts": "questions", "corpora": corpora, **changes}
    return toy_config(**{"max_patches": 4, **changes})


def opened(config):
    source = open_training(config.data, progress=False)
    return source, Processor.build(config, source)


def kinds(batch):
    """Of each row what it holds: a pair, a text, a picture."""
    words, seen = (batch.text.segments > 0).any(1), (batch.image.segments > 0).any(1)
    return [("pair" if w and s else "text" if w else "picture") for w, s in zip(words, seen, strict=True)]


def test_corpora_come_at_their_rates_and_each_record_once_an_epoch(folder):
    source, processor = opened(mixed(folder))
    iterator = train_iterator(source, processor, batch_size=7, seed=0)
    batches = [next(iterator) for _ in range(12)]
    found = collections.Counter(kind for batch in batches for kind in kinds(batch))
    assert found == {"pair": 48, "text": 24, "picture": 12}  # of 84 rows, as 1 to 0.5 to 0.25
    shown: dict[str, collections.Counter] = {"pair": collections.Counter(), "picture": collections.Counter()}
    for batch in batches:
        for kind, picture in zip(kinds(batch), batch.picture[:, 0].tolist(), strict=True):
            if kind != "text":
                shown[kind][picture] += 1
    # Whole epochs: eight of the six questions, one of the twelve lines, two a picture.
    assert sorted(shown["pair"].values()) == [8] * 6 and sorted(shown["picture"].values()) == [2] * 6


@pytest.mark.parametrize("settings", [{}, {"examples_per_row": 2}, {"examples_per_row": 3, "row_patches": 8}])
def test_a_restored_mixture_goes_on_where_it_was(folder, settings):
    source, processor = opened(mixed(folder, **settings))
    iterator = train_iterator(source, processor, batch_size=3, seed=1)
    for _ in range(5):
        next(iterator)
    state = json.loads(json.dumps(iterator.get_state()))
    expected = [next(iterator) for _ in range(4)]
    other = train_iterator(source, processor, batch_size=3, seed=1)
    other.set_state(state)
    jax.tree.map(np.testing.assert_array_equal, [next(other) for _ in range(4)], expected)


def test_processes_share_the_same_global_batch(folder):
    source, processor = opened(mixed(folder))
    whole = train_iterator(source, processor, batch_size=4, seed=3)
    parts = [train_iterator(source, processor, batch_size=4, seed=3, process_index=p, process_count=2) for p in (0, 1)]
    for _ in range(4):
        batches = [next(part) for part in parts]
        joined = jax.tree.map(lambda *leaves: np.concatenate(leaves), *batches)
        jax.tree.map(np.testing.assert_array_equal, joined, next(whole))


def test_vocabulary_answers_and_priors_are_of_every_text_that_is_read(folder):
    source, processor = opened(mixed(folder))
    assert processor.tokenizer.unk_id not in processor.tokens("number 3 is a picture of one colour").ids
    assert processor.answers == tuple("012345")
    counts = training_texts(source, processor.data)
    assert len(counts) == 12 and sum(text.answer != "" for text in counts) == 6
    assert priors(source, processor.data)["text"]["which number is picture 2?"] == "2"
    assert count_truncated(source, processor)[1] == 12
    assert len(survey(source).texts) == len(source) == sum(len(corpus.source) for corpus in source.corpora)
    assert [source[i].texts[0].text for i in (0, len(source) - 1)] == [
        source.texts(i)[0].text for i in (0, len(source) - 1)
    ]


def test_one_corpus_is_no_mixture(folder):
    data = mixed(folder, corpora={}).data
    source = open_training(data, progress=False)
    assert not isinstance(source, Mixture) and [corpus.source for corpus in corpora_of(source, data)] == [source]


def test_each_corpus_has_its_own_augmentations(folder):
    """`shift` moves the pictures of one corpus; those of the other, the same ones, stay."""
    other = CorpusConfig(name="jsonl", dir=str(folder), texts="none", augment=("brightness",))
    source, processor = opened(mixed(folder, corpora={"other": other}, texts="captions"))
    iterator = train_iterator(source, processor, batch_size=12, seed=0)
    batch = next(iterator)
    levels = {"pair": set(), "picture": set()}
    for kind, pixels in zip(kinds(batch), batch.image.pixels, strict=True):
        levels[kind].add(int(pixels[0, 0]))
    assert levels["pair"] <= {20 * i for i in range(6)} and not levels["picture"] <= {20 * i for i in range(6)}


def test_classes_of_another_corpus_are_not_those_of_the_run():
    """Colours of one and colours of the other may have the same numbers: no patch learns the other's."""
    first, second = ToySource(), ToySource(region_classes={"colour": ("black", "grey", "white")})
    data = toy_config(augment=("shift",), kinds=("colour",)).data  # texts that name a thing
    parts = [Corpus(source=first, data=data), Corpus(source=second, data=data, same_classes=False)]
    processor = Processor.build(toy_config(), Mixture(parts))
    for part in parts:
        row = processor.row([read_entry(part, 0, np.random.default_rng(0))])
        assert (row["targets/region_class"] >= 0).any() == part.same_classes
        assert row["targets/word_boxes"].any()


def test_pictures_of_all_corpora_are_known_but_of_those_read_for_their_texts():
    class Known(ToySource):
        def picture_ids(self):
            return [(PictureId("coco", self.size),)]

    data = toy_config().data
    parts = [Known(size=3), Known(size=4), TextsAlone(Known(size=5))]
    both = Mixture([Corpus(source=part, data=data) for part in parts])
    assert picture_ids(both) == [(("coco", 3),), (("coco", 4),)]


def test_mistakes_name_the_corpus(folder):
    for changes, line in (
        ({"rate": 0.0}, r"config.data.corpora.more: config.data.rate=0.0: must be above 0"),
        ({"share": 2.0}, r"config.data.corpora.more: config.data.share=2.0: must be in \(0, 1\]"),
        ({"pictures": False, "augment": ("retell",)}, "'scenes' has pictures=False: its texts alone are read"),
        ({"texts": "some"}, r"config.data.corpora.more: config.data.texts='some': choose one of"),
    ):
        with pytest.raises(ConfigError, match=line):
            DataConfig(corpora={"more": CorpusConfig(**changes)})
    for changes, line in (
        ({"name": "nothing"}, "config.data.corpora.more: config.data.name='nothing': no such source"),
        ({"augment": ("spin",)}, "config.data.corpora.more: config.data.augment has 'spin'"),
        ({"options": {"colour": 1}}, "config.data.corpora.more: config.data.options.colour: no such key"),
    ):
        corpus = CorpusConfig(**{"name": "jsonl", "dir": str(folder), **changes})
        with pytest.raises(ConfigError, match=line):
            open_training(mixed(folder, corpora={"more": corpus}).data, progress=False)
    with pytest.raises(ConfigError, match="config.data.texts='none': a run is evaluated on texts"):
        mixed(folder, texts="none")
    with pytest.raises(ConfigError, match="config.data.corpora.more.reads: no such key"):
        raw = json.loads(mixed(folder).to_json())
        raw["data"]["corpora"] = {"more": {"reads": "both"}}
        Config.from_json(json.dumps(raw))


def test_a_mixture_is_kept_with_the_run(folder):
    config = mixed(folder)
    assert Config.from_json(config.to_json()) == config
    flags = config.to_config_dict()
    flags.data.corpora.pictures.rate = 0.75
    assert Config.from_config_dict(flags).data.corpora["pictures"].rate == 0.75
    absolute = mixed(folder, corpora={"more": CorpusConfig(name="jsonl", dir="here")}).with_absolute_paths()
    assert absolute.data.corpora["more"].dir.endswith("/here") and absolute.data.corpora["more"].dir.startswith("/")
