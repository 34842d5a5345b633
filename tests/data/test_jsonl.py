"""Questions in lines of JSON beside their pictures or region features: read as they are, every mistake named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from singlestream.batch import check_batch
from singlestream.config import Config, CorpusConfig, DataConfig, ModelConfig
from singlestream.data.mixture import open_training
from singlestream.data.pipeline import eval_batches, train_iterator
from singlestream.data.processor import Processor
from singlestream.data.record import DataError
from singlestream.data.sources import open_split, split_names
from tests.data.toy_regions import found, vilbert_line, write_table

LINES = [
    {"image": "a.png", "question": "What is it?", "answer": "a cat", "id": 7, "kind": "what", "extra": [1]},
    {"image": "b.png", "question": "Is it red?", "answer": "no"},
    {"image": "a.png", "question": "How many?", "answer": "two", "kind": "count"},
    {"image": ["a.png", "b.png"], "caption": "Two pictures."},
]
MODEL = ModelConfig(patch_size=8, num_images=2)
REGIONS = ModelConfig(image_stem="regions", image_positions="boxes", region_dim=6, num_images=2)


def _write(folder: Path, lines: list, split: str = "train") -> Path:
    path = folder / f"{split}.jsonl"
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


@pytest.fixture
def folder(tmp_path) -> Path:
    for i, name in enumerate(("a.png", "b.png")):
        pixels = np.random.default_rng(i).integers(0, 256, (16, 24, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / name)
    for split in split_names(DataConfig(name="jsonl")):
        _write(tmp_path, LINES, split)
    return tmp_path


def _data(folder: Path, **changes) -> DataConfig:
    return DataConfig(name="jsonl", dir=str(folder), max_patches=6, text_length=8, texts="all", **changes)


def _open(folder: Path, split: str = "train", **changes):
    return open_split(_data(folder, **changes), split)


def test_a_detectors_probabilities_are_read_where_they_are_wanted(folder):
    write_table(folder / "regions.tsv", ["a", "b"], vilbert_line)
    source = _open(folder, options={"features": "regions.tsv", "distribution": True})
    assert source.region_classes == {"detected": ("1", "2", "3", "4")}
    np.testing.assert_array_equal(source[1].regions[0].distribution, found(1)["cls_prob"])
    assert _open(folder, options={"features": "regions.tsv"}).region_classes == {}


def test_a_line_is_a_record(folder):
    source = _open(folder)
    assert len(source) == 4
    records = [source[i] for i in range(4)]
    assert [record.id for record in records] == ["7", "train-2", "train-3", "train-4"]
    assert [record.picture for record in records] == [1, 2, 1, 3]
    (text,) = records[0].texts
    assert (text.text, text.answer, text.kind) == ("What is it?", "a cat", "what")
    assert records[3].texts[0].text == "Two pictures." and records[3].texts[0].answer == ""
    assert [len(record.images) for record in records] == [len(record.files) for record in records] == [1, 1, 1, 2]
    assert records[3].files[1] == "b.png"
    np.testing.assert_array_equal(records[3].images[1], np.asarray(Image.open(folder / "b.png")))


def test_answers_are_not_known_or_those_of_several_annotators(folder):
    given = ["Bed.", "sofa", "bed", "a bed", "bed"]
    _write(
        folder, [{**GOOD, "answer": None}, _answered(given), _answered(["T-Shirt"] * 4), _answered(["the", "a"] * 2)]
    )
    found = [text for i in range(4) for text in _open(folder).texts(i)]
    assert [(text.answer, text.answers) for text in found] == [
        (None, ()),
        ("bed", tuple(given)),
        ("T-Shirt", ("T-Shirt",) * 4),  # as all wrote it
        ("the", ("the", "a", "the", "a")),  # of which the normalisation leaves nothing
    ]
    assert [text.score("bed") for text in found[1:]] == [1, 0, 0] and found[2].score("T-Shirt") == 1


def test_texts_that_share_a_row_share_their_picture(folder):
    source = _open(folder, texts_per_row=2)
    assert [[text.id for text in source.texts(i)] for i in range(len(source))] == [
        ["7", "train-3"],
        ["train-2"],
        ["train-4"],
    ]
    assert [text.id for text in source[0].texts] == ["7", "train-3"]


def test_pictures_can_lie_elsewhere(folder):
    (folder / "images").mkdir()
    for name in ("a.png", "b.png"):
        (folder / name).rename(folder / "images" / name)
    assert len(_open(folder, options={"images": "images"})[3].images) == 2


@pytest.mark.parametrize("names", [["a", "b"], ["a.png", "b.png"]])
def test_region_features_stand_in_for_pictures(folder, names):
    write_table(folder / "regions.tsv", names)
    for name in ("a.png", "b.png"):
        (folder / name).unlink()
    record = _open(folder, options={"features": "regions.tsv"})[3]
    assert record.images == () and len(record.regions) == 2
    np.testing.assert_array_equal(record.regions[1].features, found(1)["features"])


@pytest.mark.parametrize("model", [MODEL, REGIONS], ids=["pixels", "regions"])
@pytest.mark.parametrize("settings", [{}, {"examples_per_row": 2}])
def test_it_trains_and_evaluates(folder, model, settings):
    write_table(folder / "regions.tsv", ["a", "b"])
    options = {"features": "regions.tsv"} if model is REGIONS else {}
    config = Config(data=_data(folder, options=options, num_threads=1, prefetch=1, **settings), model=model)
    source = open_split(config.data, "train")
    processor = Processor.build(config, source)
    assert processor.answers == ("a cat", "no", "two")
    batch = next(train_iterator(source, processor, batch_size=2, seed=0))
    check_batch(batch)
    asked = [text.id for _, rows in eval_batches(source, processor, batch_size=2) for row in rows for _, text in row]
    assert asked == ["7", "train-2", "train-3", "train-4"]


@pytest.mark.parametrize("texts_per_row", [1, 2])
def test_pairs_texts_alone_and_pictures_alone_in_one_training(folder, texts_per_row):
    """In files of their own, as corpora of a mixture, and in one."""
    alone = [{"image": None, "caption": text} for text in ("Rain.", "Snow again.")]
    shown = [{"image": "b.png", "caption": None, "id": "b"}, {"image": ["b.png", "a.png"], "caption": None}]
    for name, lines in (("texts", alone), ("pictures", shown)):
        (folder / name).mkdir()
        _write(folder / name, lines)
    corpora = {
        "texts": CorpusConfig(name="jsonl", dir=str(folder / "texts"), texts="all", pictures=False),
        "pictures": CorpusConfig(name="jsonl", dir=str(folder / "pictures"), texts="none", options={"images": ".."}),
    }
    data = _data(folder, corpora=corpora, texts_per_row=texts_per_row)
    model = ModelConfig(patch_size=8, num_images=2, direction="prefix")
    config = Config(data=data, model=model, objectives={"mlm": 1.0})
    source = open_training(data)
    assert len(source) == (4 if texts_per_row == 1 else 3) + 2 + 2
    batch = next(train_iterator(source, Processor.build(config, source), batch_size=16, seed=0))
    check_batch(batch)
    read, seen = (batch.text.segments > 0).any(1), (batch.image.segments > 0).any(1)
    assert (read & seen).any() and (read & ~seen).any() and (~read & seen).any() and (read | seen).all()

    _write(folder, [*LINES, *alone, {"image": "b.png", "caption": None, "id": "b"}])
    source = _open(folder, texts_per_row=texts_per_row)
    last = [source[i] for i in range(len(source) - 3, len(source))]
    assert [record.texts[0].text for record in last[:2]] == ["Rain.", "Snow again."] and last[2].texts == ()
    assert [len(record.images) for record in last] == [0, 0, 1] and last[2].id == "b"
    assert [record.picture for record in last] == [0, 0, source[1].picture]


GOOD = {"image": "a.png", "question": "What?", "answer": "it"}


def _answered(answers) -> dict:
    return {"image": "a.png", "question": "What?", "answers": answers}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "no JSON"),
        ("[1]", 'expected an object {"image": ..., "question": ..., "answer": ...}'),
        ("[" * 100000, "no JSON"),
        ({"question": "What?", "answer": "it"}, '"image" is None, expected the name of a file'),
        ({**GOOD, "image": None}, '"image" is None, expected the name of a file'),
        ({"image": None, "caption": None}, '"image" is None, expected .* or null beside a "caption"'),
        ({"caption": "It."}, '"image" is None, expected .* or null beside a "caption" that is a text alone$'),
        ({**GOOD, "image": []}, r'"image" is \[\], expected'),
        ({**GOOD, "image": 3}, '"image" is 3, expected'),
        ({**GOOD, "image": ["a.png", 3]}, r'"image" is \[\'a.png\', 3\], expected'),
        ({"image": "a.png"}, 'expected either "question" with "answer" or "answers", or "caption"; found image$'),
        ({**GOOD, "caption": "It."}, "found image, question, answer, caption"),
        ({"image": "a.png", "question": "What?"}, "found image, question$"),
        ({"image": "a.png", "caption": "It.", "answer": None}, "found image, caption, answer$"),
        ({**GOOD, "answers": ["it"] * 4}, "found image, question, answer, answers$"),
        (_answered(["it"] * 3), r"\"answers\" is \['it', 'it', 'it'\], expected the answers of at least 4 annotators"),
        (_answered(["it"] * 3 + [" "]), r"\"answers\" is .*, expected the answers .*; give one answer as \"answer\"$"),
        (_answered("it is"), "\"answers\" is 'it is', expected"),
        ({**GOOD, "answer": 2}, '"answer" is 2, expected a text'),
        ({**GOOD, "question": " "}, "\"question\" is ' ', expected a text"),
        ({**GOOD, "image": "none.png"}, r"no such image file .*none\.png$"),
        ({**GOOD, "image": ["none.png", "nil.png"]}, "no such image file .*none.png; 2 of 3 are missing"),
    ],
)
def test_a_line_that_is_no_example_is_named(folder, line, message):
    _write(folder, [GOOD, "", line])
    with pytest.raises(DataError, match=r"train\.jsonl, line 3: .*" + message.replace("{", r"\{")):
        _open(folder)


def test_a_picture_that_cannot_be_read_is_named_with_its_line(folder):
    (folder / "b.png").write_text("no picture")
    with pytest.raises(DataError, match=r"train\.jsonl, line 2: .*b\.png: not a readable image"):
        _open(folder)[1]


def test_a_picture_without_features_is_named_with_its_line(folder):
    write_table(folder / "regions.tsv", ["a"])
    with pytest.raises(DataError, match=r"train\.jsonl, line 2: no region features of 'b\.png'$"):
        _open(folder, options={"features": "regions.tsv"})
    table = write_table(folder / "regions.tsv", ["b", "a"])
    table.write_text(table.read_text()[:-20] + "\n")
    with pytest.raises(DataError, match=r"train\.jsonl, line 1: .*regions\.tsv, line 2: features is not the base64"):
        _open(folder, options={"features": "regions.tsv"})[0]


def test_files_that_are_missing_or_no_text_are_named(folder, tmp_path):
    with pytest.raises(DataError, match="config.data.dir is empty"):
        open_split(DataConfig(name="jsonl"), "train")
    (folder / "validation.jsonl").unlink()
    with pytest.raises(DataError, match=r"validation\.jsonl: no such file; config\.data\.dir has to hold train\.jsonl"):
        _open(folder, "validation")
    _write(folder, ["", " "])
    with pytest.raises(DataError, match=r"train\.jsonl: holds no line"):
        _open(folder)
    (folder / "train.jsonl").write_bytes(json.dumps(GOOD).encode() + b"\n\xff\xfe")
    with pytest.raises(DataError, match=r"train\.jsonl, after line \d: cannot be read"):
        _open(folder)
