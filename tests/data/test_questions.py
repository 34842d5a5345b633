"""VQA v2 and GQA from their published files: what is read, what a row then holds, and what is said of a half copy."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from singlestream.batch import check_batch
from singlestream.config import Config, ConfigError, DataConfig, ModelConfig
from singlestream.data.pipeline import eval_batches, priors, train_iterator
from singlestream.data.processor import Processor
from singlestream.data.record import DataError, Sentence
from singlestream.data.sources import open_split, vqav2
from singlestream.data.targets import MAX_ANSWERS, answer_points
from tests.data.toy_questions import write_gqa, write_vqav2
from tests.data.toy_regions import found, write_table

MODEL = ModelConfig(patch_size=8, direction="prefix")


@pytest.fixture
def vqa(tmp_path) -> Path:
    return write_vqav2(tmp_path)


@pytest.fixture
def gqa(tmp_path) -> Path:
    return write_gqa(tmp_path)


def _data(folder: Path, name: str = "vqav2", **changes) -> DataConfig:
    return DataConfig(**{"name": name, "dir": str(folder), "max_patches": 6, "text_length": 8, **changes})


def _texts(source) -> list[Sentence]:
    return [text for i in range(len(source)) for text in source.texts(i)]


def test_a_question_has_the_answers_of_its_annotators(vqa):
    source = open_split(_data(vqa), "train")
    first, count, other, wear = _texts(source)
    assert [text.id for text in (first, count, other, wear)] == ["9000", "9001", "25000", "9002"]
    assert first.answers == ("yes",) * 9 + ("no",) and first.answer == "yes" and first.kind == "yes/no"
    assert count.answers[5] == "two" and count.answer == "2" and count.kind == "number"
    assert wear.answers[0] == "t-shirt" and wear.answer == "t shirt"
    assert [text.text for text in (first, wear)] == ["Is it a dog?", "What does it wear?"]
    assert count.score("2") == count.score("Two.") == 1.0 and count.score("3") == 0.3  # ["2"] * 8 when normalised


def test_an_answer_that_all_give_is_learned_to_the_letter(vqa):
    """For to the letter it is compared."""
    path = vqa / "v2_mscoco_train2014_annotations.json"
    path.write_text(path.read_text().replace('"answer": "yes"', '"answer": "t-shirt"').replace('"no"', '"t-shirt"'))
    first = _texts(open_split(_data(vqa), "train"))[0]
    assert first.answers == ("t-shirt",) * 10 and first.answer == "t-shirt"
    assert first.score("t-shirt") == 1 and first.score("t shirt") == 0


def test_the_picture_is_the_one_of_its_part(vqa):
    for split, picture, name in (
        ("train", 2, "train2014/COCO_train2014_000000000025.jpg"),
        ("validation", 0, "val2014/COCO_val2014_000000000042.jpg"),
        ("test_dev", 0, "test2015/COCO_test2015_000000000001.jpg"),
    ):
        record = open_split(_data(vqa), split)[picture]
        np.testing.assert_array_equal(record.images[0], np.asarray(Image.open(vqa / name)))


def test_questions_share_their_picture_where_rows_do(vqa):
    source = open_split(_data(vqa, texts_per_row=3), "train")
    assert [[text.id for text in source.texts(i)] for i in range(len(source))] == [["9000", "9001", "9002"], ["25000"]]
    assert [source[i].picture for i in range(2)] == [9, 25]
    alone = open_split(_data(vqa), "train")
    assert [alone[i].picture for i in range(4)] == [9, 9, 25, 9]
    assert alone.picture_ids() == [(("coco", 9),), (("coco", 25),)]


def test_pictures_are_held_out_of_val2014(vqa):
    ids = {
        split: [text.id for text in _texts(open_split(_data(vqa, options={"held_out": 2}), split))]
        for split in ("train", "validation")
    }
    assert ids == {"train": ["9000", "9001", "25000", "9002", "42000"], "validation": ["73000", "74000"]}
    texts = _texts(open_split(_data(vqa), "validation"))
    assert [text.answer for text in texts] == ["yes", "net", "a"]  # an article alone stays what it is
    with pytest.raises(ConfigError, match=r"config\.data\.options\.held_out=-1"):
        open_split(_data(vqa, options={"held_out": -1}), "train")


def test_rows_hold_the_points_of_known_answers(vqa):
    config = Config(data=_data(vqa, texts_per_row=3), model=MODEL)
    source = open_split(config.data, "train")
    processor = Processor.build(config, source)
    assert processor.answers == ("2", "no", "t shirt", "yes") and processor.annotators
    record = source[0]
    row = processor.row([(record, record.texts)])
    assert row["targets/answer"].tolist() == [3, 0, 2]
    assert row["targets/answer_ids"].tolist() == [[3, 1] + [-1] * 8, [0] + [-1] * 9, [2] + [-1] * 9]
    np.testing.assert_allclose(row["targets/answer_points"][:, :2], [[1, 0.3], [1, 0], [1, 0]], rtol=1e-6)
    assert row["targets/answer_points"].dtype == np.float32 and not row["targets/answer_points"][:, 2:].any()
    batch = next(train_iterator(source, processor, batch_size=2, seed=0))
    check_batch(batch)
    assert batch.targets["answer_points"].shape == (2, 3, MAX_ANSWERS)


def test_a_run_reads_its_targets_again(vqa, tmp_path):
    config = Config(data=_data(vqa), model=MODEL)
    processor = Processor.build(config, open_split(config.data, "train"))
    processor.save(tmp_path)
    assert Processor.from_folder(tmp_path, config).annotators
    (tmp_path / "spec.json").write_text(json.dumps({"region_classes": {}, "mentions": False}))
    assert not Processor.from_folder(tmp_path, config).annotators  # of a run from before there were annotators


def test_points_beyond_ten_answers_go_to_the_best():
    answers = [f"{i}" for i in range(12)] + ["11", "11", "11"]
    ids, points = answer_points({f"{i}": i for i in range(12)}, answers)
    assert ids[0] == 11 and points[0] == 1.0 and (ids >= 0).all() and len(ids) == MAX_ANSWERS


def test_rare_answers_are_left_out(vqa):
    config = Config(data=_data(vqa, options={"held_out": 2}, min_answer_count=2), model=MODEL)
    source = open_split(config.data, "train")
    processor = Processor.build(config, source)
    assert processor.answers == ("yes",)
    record = source[1]
    row = processor.row([(record, record.texts)])
    assert row["targets/answer"].tolist() == [1] and (row["targets/answer_ids"] == -1).all()
    with pytest.raises(ConfigError, match=r"config\.data\.min_answer_count=0: must be at least 1"):
        DataConfig(min_answer_count=0)


def test_what_the_question_alone_predicts_goes_by_the_commonest_answer(vqa):
    data = _data(vqa)
    table = priors(open_split(data, "train"), data)
    assert table["by_kind"] == {"yes/no": "no", "number": "2", "other": "t shirt"}


def test_questions_without_published_answers_are_asked(vqa):
    config = Config(data=_data(vqa), model=MODEL)
    processor = Processor.build(config, open_split(config.data, "train"))
    source = open_split(config.data, "test")
    assert [text.answer for text in _texts(source)] == [None] * 3
    batches = list(eval_batches(source, processor, batch_size=4))
    assert [text.id for _, rows in batches for row in rows for _, text in row] == ["1000", "16000", "1001"]
    assert (batches[0][0].targets["answer"] == -1).all() and batches[0][0].example_mask.sum() == 3
    assert vqav2.submission({"1000": "yes", "16000": "net"}) == [
        {"question_id": 1000, "answer": "yes"},
        {"question_id": 16000, "answer": "net"},
    ]


def test_gqa_has_one_answer_a_question(gqa):
    source = open_split(_data(gqa, "gqa"), "train")
    assert [(text.id, text.answer, text.kind) for text in _texts(source)] == [
        ("02930152", "yes", "verify"),
        ("07333408", "pipe", "query"),
        ("07333405", "no", "verify"),
    ]
    assert not any(text.answers for text in _texts(source))
    assert [source[i].picture for i in range(3)] == [-2354786, -2375429, -2375429]  # of Visual Genome
    np.testing.assert_array_equal(source[0].images[0], np.asarray(Image.open(gqa / "images" / "2354786.jpg")))
    (text,) = _texts(open_split(_data(gqa, "gqa"), "test_dev"))
    assert text.id == "201307251" and text.text == "Is it overcast?"
    assert open_split(_data(gqa, "gqa"), "test_dev")[0].picture == 1  # of no collection
    assert len(open_split(_data(gqa, "gqa", texts_per_row=2), "train")) == 2


@pytest.mark.parametrize("names", [["COCO_train2014_000000000009", "COCO_train2014_000000000025"], ["9", "25"]])
def test_region_features_stand_in_for_pictures(vqa, names):
    """By LXMERT's names of the pictures, and by those of bottom-up-attention."""
    write_table(vqa / "regions.tsv", names)
    record = open_split(_data(vqa, options={"features": "regions.tsv"}), "train")[2]
    assert record.images == ()
    np.testing.assert_array_equal(record.regions[0].features, found(1)["features"])
    with pytest.raises(
        DataError, match=r"regions\.tsv: 3 of the split's 3 pictures are missing, the first is val2014/"
    ):
        open_split(_data(vqa, options={"features": "regions.tsv"}), "validation")


# ---- what is missing or damaged --------------------------------------------------------------------------------------


def test_a_half_copied_folder_is_told_what_is_missing(vqa, tmp_path):
    with pytest.raises(DataError, match=r"config\.data\.dir is empty: VQA v2 is not downloaded, give the folder that"):
        open_split(DataConfig(name="vqav2"), "train")
    with pytest.raises(
        DataError, match=r"none: no such folder .* expects v2_OpenEnded_mscoco_train2014_questions\.json"
    ):
        open_split(_data(tmp_path / "none"), "train")
    (vqa / "v2_mscoco_val2014_annotations.json").unlink()
    open_split(_data(vqa), "train")  # needs its own files alone
    says = (
        r"is not VQA v2, or not all of it: expected v2_OpenEnded_mscoco_val2014_questions\.json, "
        r"v2_mscoco_val2014_annotations\.json, val2014/; found test2015/, .*; it has no v2_mscoco_val2014_annotations"
    )
    with pytest.raises(DataError, match=says):
        open_split(_data(vqa), "validation")
    with pytest.raises(DataError, match=r"; it has no pictures/test2015/$"):
        open_split(_data(vqa, options={"images": "pictures"}), "test")
    (vqa / "train2014" / "COCO_train2014_000000000025.jpg").unlink()
    with pytest.raises(
        DataError, match=r"1 of the split's 2 pictures are missing, the first is train2014/COCO_train2014_0"
    ):
        open_split(_data(vqa), "train")


def test_a_missing_file_of_gqa_is_named(gqa):
    (gqa / "val_balanced_questions.json").unlink()
    with pytest.raises(
        DataError, match=r"is not GQA, .* found images/, testdev_balanced_questions\.json, .* no val_bal"
    ):
        open_split(_data(gqa, "gqa"), "validation")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "cannot be read"),
        ("[]", "expected a JSON object"),
        ("{}", "not VQA v2's questions"),
        ('{"questions": [{"id": 1}]}', "not VQA v2's questions"),
        (
            '{"questions": [{"question_id": 1, "question": "What?"}]}',
            r"not VQA v2's questions \(KeyError\('image_id'\)\)",
        ),
        ('{"questions": [{"question_id": 1, "image_id": 9, "question": "What?"}]}', "holds other questions than"),
    ],
)
def test_a_damaged_file_of_vqav2_is_named(vqa, content, says):
    (vqa / "v2_OpenEnded_mscoco_train2014_questions.json").write_text(content)
    with pytest.raises(DataError, match=says):
        open_split(_data(vqa), "train")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "cannot be read"),
        ("{}", "holds no question"),
        ('{"a": {"b": "c"}}', "expected a JSON object"),
        ('{"a": {"imageId": "1", "question": "What?"}}', r"not GQA's questions \(KeyError\('answer'\)\)"),
    ],
)
def test_a_damaged_file_of_gqa_is_named(gqa, content, says):
    (gqa / "train_balanced_questions.json").write_text(content)
    with pytest.raises(DataError, match=says):
        open_split(_data(gqa, "gqa"), "train")
