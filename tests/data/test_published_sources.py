"""Datasets from miniature folders in their published formats: what a record holds, and what is said of a bad copy.

VQA v2 and GQA are in `test_questions.py`.
"""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from singlestream.batch import check_batch
from singlestream.config import Config, ConfigError, DataConfig, ModelConfig
from singlestream.data import image
from singlestream.data.overlap import FLICKR30K, PictureId
from singlestream.data.pipeline import train_iterator
from singlestream.data.processor import Processor
from singlestream.data.record import DataError, Sentence
from singlestream.data.sources import coco_captions, open_split
from singlestream.data.sources.hateful_memes import SPLITS
from singlestream.data.sources.vcr_words import names_of
from tests.data import toy_published as toy
from tests.data.toy_regions import found, vilbert_line, write_table

WRITERS = {
    "coco_captions": toy.write_coco,
    "flickr30k": toy.write_flickr30k,
    "nlvr2": toy.write_nlvr2,
    "snli_ve": toy.write_snli_ve,
    "refcoco": toy.write_refcoco,
    "visual_genome": toy.write_visual_genome,
    "conceptual_captions": toy.write_conceptual_captions,
    "clevr": toy.write_clevr,
    "vcr": toy.write_vcr,
    "hateful_memes": toy.write_hateful_memes,
}
OPTIONS = {"visual_genome": {"held_out": 1}}


def opened(name: str, folder: Path, split: str = "train", **changes):
    options = {**OPTIONS.get(name, {}), **changes.pop("options", {})}
    return open_split(DataConfig(name=name, dir=str(folder), options=options, **changes), split, progress=False)


def texts(source) -> list[Sentence]:
    return [text for i in range(len(source)) for text in source.texts(i)]


@pytest.mark.parametrize("name", WRITERS)
def test_texts_are_told_without_reading_a_picture(name, tmp_path, monkeypatch):
    source = opened(name, WRITERS[name](tmp_path))
    monkeypatch.setattr(Image, "open", None)
    found = texts(source)
    assert found and len({text.id for text in found}) == len(found)
    assert all(text.text == text.text.strip() != "" for text in found)


@pytest.mark.parametrize("name", WRITERS)
def test_records_make_a_batch(name, tmp_path):
    source = opened(name, WRITERS[name](tmp_path))
    data = DataConfig(name=name, texts="all", text_length=8, max_patches=6)
    config = Config(data=data, model=ModelConfig(patch_size=8, num_images=2 if name == "nlvr2" else 1))
    batch = next(train_iterator(source, Processor.build(config, source), batch_size=2, seed=0))
    check_batch(batch)
    assert batch.example_mask.all() and (batch.image.segments > 0).all()
    assert set(batch.picture.ravel().tolist()) <= {source[i].picture for i in range(len(source))}


# ---- each dataset ----------------------------------------------------------------------------------------------------


def test_coco_captions_has_karpathys_splits(tmp_path):
    toy.write_coco(tmp_path)
    sizes = {split: len(opened("coco_captions", tmp_path, split)) for split in ("train", "validation", "test")}
    assert sizes == {"train": 2, "validation": 1, "test": 1}  # train with restval
    assert len(opened("coco_captions", tmp_path, options={"restval": False})) == 1
    record = opened("coco_captions", tmp_path, "test")[0]
    assert [text.text for text in record.texts] == [f"Caption {k} of picture 2." for k in range(5)]
    assert record.texts[0].id == "10" and record.texts[0].answer == "" and record.picture == 73
    assert record.files == ("val2014/COCO_val2014_000000000073.jpg",)
    said = {record.files[0]: "a dog", "mine/cat.jpg": "a cat"}
    assert coco_captions.caption_results(said) == [{"image_id": 73, "caption": "a dog"}]
    np.testing.assert_array_equal(
        record.images[0], image.read_image(tmp_path / "val2014" / "COCO_val2014_000000000073.jpg")
    )


def test_flickr30k_has_captions_or_those_of_entities(tmp_path):
    toy.write_flickr30k(tmp_path)
    source = opened("flickr30k", tmp_path)
    assert [len(source.texts(i)) for i in range(len(source))] == [5, 5] and source.texts(0)[0].mentions == ()
    numbers = [source[i].picture for i in range(2)]
    assert len(set(numbers)) == 2 and all(2**20 <= number < 2**31 for number in numbers)
    first, second, third = opened("flickr30k", tmp_path, "test", options={"entities": True}).texts(0)
    assert first.id == "1007129816#0" and third.text == "A man 's day ." and third.mentions == ()
    assert first.text == "Two young guys with shaggy hair look at their hands ."
    assert [first.text[m.start : m.end] for m in first.mentions] == ["Two young guys", "their hands"]
    # Pixels from 1 on a picture of 200 x 100; what leaves it is cut.
    np.testing.assert_allclose(first.mentions[0].boxes, [[0, 0.1, 0.5, 0.5], [0.75, 0, 1, 1]], atol=1e-6)
    np.testing.assert_allclose(first.mentions[1].boxes, [[0.75, 0, 1, 1]], atol=1e-6)
    assert [second.text[m.start : m.end] for m in second.mentions] == ["Two people"]  # a scene has no box


def test_nlvr2_has_pairs(tmp_path):
    toy.write_nlvr2(tmp_path)
    source = opened("nlvr2", tmp_path)
    assert [(text.id, text.answer, text.group) for text in texts(source)] == [
        ("train-10171-0-0", "True", "train-10171-0"),
        ("train-10171-0-1", "False", "train-10171-1"),
        ("train-10171-1-0", "False", "train-10171-0"),
    ]
    assert [source[i].picture for i in range(3)] == [1, 1, 2]
    left = image.read_image(tmp_path / "images/train/89/train-10171-1-img0.png")
    np.testing.assert_array_equal(source[2].images[0], left)
    for split, number in (("validation", "dev-850-0-0"), ("test", "test1-0-1-0")):
        assert [text.id for text in texts(opened("nlvr2", tmp_path, split))] == [number]


def test_snli_ve_has_three_answers(tmp_path):
    source = opened("snli_ve", toy.write_snli_ve(tmp_path))
    assert [text.answer for text in texts(source)] == ["entailment", "neutral", "contradiction"]
    assert texts(source)[1].text == "It is neutral." and texts(source)[1].id == "1000092795.jpg#2r1n"
    assert len(opened("snli_ve", tmp_path, "validation", texts_per_row=3)) == 1


@pytest.mark.parametrize("key", ["Flickr30K_ID", "Flikr30kID"])
@pytest.mark.parametrize("ending", ["", ".jpg"])
def test_snli_ve_names_its_pictures_in_two_ways(tmp_path, key, ending):
    source = opened("snli_ve", toy.write_snli_ve(tmp_path, key=key, ending=ending))
    assert source.picture_ids() == [(("flickr30k", 1000092795),)] and source[0].images[0].shape == (16, 24, 3)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_refcoco_has_the_box_of_each_expression(tmp_path, protocol):
    source = opened("refcoco", toy.write_refcoco(tmp_path, protocol=protocol))
    assert [text.text for text in texts(source)] == ["left man", "man in red", "the ball"]
    (mention,) = source.texts(0)[0].mentions
    assert (mention.start, mention.end) == (0, len("left man"))
    np.testing.assert_allclose(mention.boxes, [[0, 0.25, 0.5, 0.75]])
    np.testing.assert_allclose(source.texts(2)[0].mentions[0].boxes, [[0.5, 0, 1, 1]])
    assert [source[i].picture for i in range(3)] == [9, 9, 9]
    for split in ("validation", "testA", "testB"):
        assert len(opened("refcoco", tmp_path, split)) == 1
    with pytest.raises(DataError, match=r"has no split 'test'; it has testA, testB, train, validation$"):
        opened("refcoco", tmp_path, "test")
    with pytest.raises(ConfigError, match="dataset='refcoco' with split_by='umd'; there are refcoco by unc or google"):
        opened("refcoco", tmp_path, options={"split_by": "umd"})


def test_visual_genome_has_regions_or_questions(tmp_path):
    source = opened("visual_genome", toy.write_visual_genome(tmp_path))
    assert [text.text for text in texts(source)] == ["the clock of 1", "Café sign", "the clock of 2", "Café sign"]
    assert [text.id for text in texts(source)] == ["10", "11", "20", "21"]
    np.testing.assert_allclose(source.texts(0)[0].mentions[0].boxes, [[0.25, 0.25, 0.75, 0.75]])
    np.testing.assert_allclose(source.texts(1)[0].mentions[0].boxes, [[0, 0, 1, 0.25]])
    flickr = PictureId(FLICKR30K, toy.FLICKR[0][1]).number
    assert [source[i].picture for i in range(4)] == [flickr, flickr, 9, 9]  # the second is COCO's
    (asked,) = texts(opened("visual_genome", tmp_path, "validation", options={"texts": "questions"}))
    assert (asked.id, asked.text, asked.answer) == ("2412345", "What colour is it?", "dark green")
    with pytest.raises(DataError, match="of its pictures 3 are held out, which leaves no text"):
        opened("visual_genome", tmp_path, options={"held_out": 3})


def test_conceptual_captions_leaves_out_what_is_missing(tmp_path, capsys):
    toy.write_conceptual_captions(tmp_path)
    data = DataConfig(name="conceptual_captions", dir=str(tmp_path))
    source = open_split(data, "train")
    assert capsys.readouterr().err == "Train_GCC-training.tsv: 1 of 3 pictures are missing\n"
    assert [(text.id, text.text) for text in texts(source)] == [
        ("train-0", toy.CAPTIONS[0]),
        ("train-2", toy.CAPTIONS[2]),
    ]
    assert source[1].picture == 3 and source[1].files == ("training/00000/000000002.jpg",)
    np.testing.assert_array_equal(source[1].images[0], image.read_image(tmp_path / "training/00000/000000002.jpg"))
    pattern = {"validation": "training/{crc}"}
    assert len(opened("conceptual_captions", tmp_path, "validation", options=pattern)) == 1
    with pytest.raises(DataError, match=r"of 1 lines of Validation_.* no picture is there, as .*00000/000000000\.jpg"):
        opened("conceptual_captions", tmp_path, "validation")
    with pytest.raises(ConfigError, match=r"options\.train='\{name\}': a pattern of \{line\}, \{shard\}, \{crc\}"):
        opened("conceptual_captions", tmp_path, options={"train": "{name}"})


def test_clevr_has_the_kind_of_each_question(tmp_path):
    source = opened("clevr", toy.write_clevr(tmp_path))
    assert [(text.id, text.answer, text.kind) for text in texts(source)] == [
        (f"train-{i}", str(i), "count") for i in range(3)
    ]
    assert [text.answer for text in texts(opened("clevr", tmp_path, "test"))] == [None] * 3
    assert len(opened("clevr", tmp_path, "validation", texts_per_row=2)) == 2
    (tmp_path / "images").rename(tmp_path / "elsewhere")
    assert len(opened("clevr", tmp_path, options={"images": "elsewhere"})) == 3
    write_table(tmp_path / "regions.tsv", [f"CLEVR_train_{number:06d}" for number in range(2)])
    regions = opened("clevr", tmp_path, options={"features": "regions.tsv"})[2].regions
    np.testing.assert_array_equal(regions[0].features, found(1)["features"])


def test_vcr_has_four_choices_of_each_question(tmp_path):
    source = opened("vcr", toy.write_vcr(tmp_path), texts_per_row=4)
    assert [len(source.texts(i)) for i in range(len(source))] == [4, 4, 4]
    assert [source[i].picture for i in range(3)] == [1, 1, 2] and source.picture_ids() == [(), ()]
    first = source.texts(0)
    assert [text.text for text in first] == [
        "Why is Riley pointing at Casey Jessie ? [SEP] No .",
        "Why is Riley pointing at Casey Jessie ? [SEP] They 're late .",
        "Why is Riley pointing at Casey Jessie ? [SEP] Yes , Casey is .",
        "Why is Riley pointing at Casey Jessie ? [SEP] Maybe .",
    ]
    assert [text.answer for text in first] == ["false", "true", "false", "false"] and first[0].mentions == ()
    assert [(text.id, text.group) for text in first] == [(f"train-0-{k}", "train-0") for k in range(4)]
    assert [text.answer for text in opened("vcr", tmp_path, "test").texts(0)] == [None]
    with pytest.raises(ConfigError, match="texts_per_row=2: a question of VCR has 4 choices, set it to that"):
        opened("vcr", tmp_path, texts_per_row=2)


def test_vcr_asks_for_reasons_and_says_where_things_are(tmp_path):
    toy.write_vcr(tmp_path)
    options = {"rationale": True, "boxes": True}
    text = texts(opened("vcr", tmp_path, options=options))[3]
    assert text.text == "Why is Riley pointing at Casey Jessie ? They 're late . [SEP] Jessie has wineglass ."
    assert text.answer == "true"
    said = ["Riley", "Casey", "Jessie", "Jessie", "wineglass"]
    assert [text.text[m.start : m.end] for m in text.mentions] == said
    boxes = [mention.boxes for mention in text.mentions]  # each a quarter of the picture wide
    np.testing.assert_allclose(boxes, [[[k / 4, 1 / 4, (k + 1) / 4, 3 / 4]] for k in (1, 0, 2, 2, 3)])
    with pytest.raises(DataError, match=r"test\.jsonl: reasons are for the right answer, .* has no split 'test'"):
        opened("vcr", tmp_path, "test", options=options)


def test_vcr_has_a_name_for_each_person():
    names = names_of(["person", "dog", *["person"] * 15])
    assert names[:3] == ["Casey", "dog", "Riley"] and names[15:] == ["Quinn", "Casey"]


def test_hateful_memes_has_two_labels(tmp_path):
    source = opened("hateful_memes", toy.write_hateful_memes(tmp_path))
    assert [(text.id, text.answer) for text in texts(source)] == [
        ("42953", "not hateful"),
        ("08291", "hateful"),
        ("46971", "not hateful"),
    ]
    assert texts(source)[1].text == "when meme 08291 is seen"
    found = {split: texts(opened("hateful_memes", tmp_path, split))[0].id for split in SPLITS}
    assert list(found.values()) == ["42953", "03745", "16395", "41578", "95142"]
    (tmp_path / "test_seen.jsonl").rename(tmp_path / "test.jsonl")  # the first release, whose test has no labels
    line = {"id": 16395, "img": "img/16395.png", "text": "when"}
    toy.write(tmp_path / "test.jsonl", [line], lines=True)
    assert [(text.id, text.answer) for text in texts(opened("hateful_memes", tmp_path, "test"))] == [("16395", None)]


def test_region_features_stand_in_for_both_pictures_of_a_pair(tmp_path):
    toy.write_nlvr2(tmp_path)
    write_table(tmp_path / "regions.tsv", [f"dev-850-0-img{side}" for side in range(2)])
    record = opened("nlvr2", tmp_path, "validation", options={"features": "regions.tsv"})[0]
    assert record.images == () and len(record.regions) == 2
    np.testing.assert_array_equal(record.regions[1].features, found(1)["features"])
    with pytest.raises(DataError, match=r"4 of the split's 4 pictures are missing, the first is train-10171-0-img0"):
        opened("nlvr2", tmp_path, options={"features": "regions.tsv"})


@pytest.mark.parametrize("mean", [False, True])
def test_probabilities_of_a_detector_become_targets(tmp_path, mean):
    """Rows hold them region by region, the background first; of a mean of regions and of padding nothing is known."""
    toy.write_coco(tmp_path)
    write_table(tmp_path / "regions.tsv", [f"{number}" for _, _, number in toy.COCO], vilbert_line)
    options = {"features": "regions.tsv", "distribution": True}
    data = DataConfig(
        name="coco_captions", dir=str(tmp_path), options=options, texts="captions", max_patches=6, mean_region=mean
    )
    model = ModelConfig(image_stem="regions", region_dim=6, image_positions="boxes")
    source = open_split(data, "test")
    assert source.region_classes == {"detected": ("1", "2", "3", "4")}
    processor = Processor.build(Config(data=data, model=model), source)
    row = processor.row([(source[0], source.texts(0)[:1])])
    wanted = np.zeros((6, 5), np.float32)
    wanted[int(mean) : 4 + int(mean)] = found(2)["cls_prob"]
    np.testing.assert_array_equal(row["targets/region_distribution"], wanted)
    likely = np.where(wanted.any(1), 1 + wanted[:, 1:].argmax(1), -1)
    np.testing.assert_array_equal(row["targets/region_class"][:, 0], likely)
    other = dataclasses.replace(source[0].regions[0], distribution=np.ones((4, 3), np.float32))
    with pytest.raises(DataError, match="probabilities of 3 classes, the source's first picture has 5"):
        processor.row([(dataclasses.replace(source[0], regions=(other,)), source.texts(0)[:1])])


def test_probabilities_that_are_not_there_are_told(tmp_path):
    toy.write_coco(tmp_path)
    write_table(tmp_path / "regions.tsv", [f"{number}" for _, _, number in toy.COCO])
    with pytest.raises(
        DataError, match=r"features of '73' have no class probabilities \(soft_labels or cls_prob\); set"
    ):
        opened("coco_captions", tmp_path, "test", options={"features": "regions.tsv", "distribution": True})
    with pytest.raises(
        ConfigError, match="distribution=True: region features hold .*, set config.data.options.features"
    ):
        opened("coco_captions", tmp_path, options={"distribution": True})


# ---- what is missing or damaged --------------------------------------------------------------------------------------

# Of each source: a file or picture that is missing, and what is said of it.
MISSING = {
    "coco_captions": ("dataset_coco.json", r"is not COCO captions, .*; it has no dataset_coco\.json$"),
    "flickr30k": ("flickr30k-images/1000092795.jpg", r"1 of the split's 2 pictures are missing, the first is 1000092"),
    "nlvr2": ("images/train/89/train-10171-1-img1.png", r"1 of the split's 4 pictures .* is train-10171-1-img1\.png$"),
    "snli_ve": ("snli_ve_train.jsonl", r"expected snli_ve_train\.jsonl, flickr30k-images/; found flickr30k-images/, "),
    "refcoco": (
        "refcoco/refs(unc).p",
        r"is not RefCOCO, .* found images/, refcoco/; it has no refcoco/refs\(unc\)\.p$",
    ),
    "visual_genome": ("VG_100K/2.jpg", r"1 of the split's 2 pictures are missing, the first is VG_100K/2\.jpg$"),
    "conceptual_captions": ("Train_GCC-training.tsv", r"is not Conceptual Captions, .* no Train_GCC-training\.tsv$"),
    "clevr": ("questions/CLEVR_train_questions.json", r"is not CLEVR, .* no questions/CLEVR_train_questions\.json$"),
    "vcr": (
        "train.jsonl",
        r"expected train\.jsonl, vcr1images/; found test\.jsonl, val\.jsonl, vcr1images/; it has no ",
    ),
    "hateful_memes": ("img/08291.png", r"1 of the split's 3 pictures are missing, the first is img/08291\.png$"),
}


@pytest.mark.parametrize("name", WRITERS)
def test_what_is_missing_is_told_in_one_line(name, tmp_path):
    missing, says = MISSING[name]
    (WRITERS[name](tmp_path) / missing).unlink()
    with pytest.raises(DataError, match=says) as raised:
        opened(name, tmp_path)
    assert "\n" not in str(raised.value)


# Of each source: a file, content that is no JSON (or whatever it should be) or lacks a key, what is said.
DAMAGED = [
    ("coco_captions", "dataset_coco.json", "{", r"dataset_coco\.json: cannot be read"),
    ("coco_captions", "dataset_coco.json", '{"images": []}', r"dataset_coco\.json: holds no caption of train, restval"),
    (
        "coco_captions",
        "dataset_coco.json",
        '{"images": [{"filename": "a.jpg", "split": "train", "sentences": []}]}',
        "holds no caption of train, restval",
    ),
    (
        "coco_captions",
        "dataset_coco.json",
        '{"images": [{"filename": "a.jpg", "sentences": []}]}',
        r"not Karpathy's captions \(KeyError\('split'\)\)",
    ),
    ("flickr30k", "Annotations/1000092795.xml", "<a>", r"1000092795\.xml: cannot be read"),
    ("flickr30k", "Annotations/1000092795.xml", "<a/>", r"1000092795\.xml: not an annotation of Flickr30k Entities"),
    ("flickr30k", "Sentences/1000092795.txt", "\n", r"1000092795\.txt: holds no caption"),
    ("nlvr2", "train.json", "\n{]\n", r"train\.json, line 2: not an example of NLVR2"),
    ("nlvr2", "train.json", '{"label": "Maybe"}', r"line 1: .*label='Maybe', expected True or False"),
    ("snli_ve", "snli_ve_train.jsonl", '{"gold_label": "-"}', r"line 1: .*gold_label='-', expected entailment, neu"),
    (
        "snli_ve",
        "snli_ve_train.jsonl",
        '{"gold_label": "neutral", "pairID": "a", "sentence2": "b"}',
        r"line 1: not an example of SNLI-VE \(KeyError\('Flickr30K_ID'\)\)",
    ),
    ("snli_ve", "snli_ve_train.jsonl", "", r"snli_ve_train\.jsonl: holds no example"),
    ("refcoco", "refcoco/refs(unc).p", "junk", r"refs\(unc\)\.p: cannot be read"),
    ("refcoco", "refcoco/instances.json", "{}", r"instances\.json: not refer's instances \(KeyError\('images'\)\)"),
    (
        "refcoco",
        "refcoco/instances.json",
        '{"images": [], "annotations": []}',
        r"instances\.json: has no thing 11, of which refcoco/refs\(unc\)\.p speaks",
    ),
    ("visual_genome", "image_data.json", "[{}]", r"image_data\.json: not Visual Genome's pictures"),
    (
        "visual_genome",
        "image_data.json",
        '[{"image_id": 1, "url": "a/b.jpg", "width": 0, "height": 9}]',
        r"not Visual Genome's pictures \(ValueError\('picture 1 of 0 x 9'\)\)",
    ),
    ("visual_genome", "image_data.json", "[]", r"region_descriptions\.json: not Visual Genome's regions \(KeyError\(1"),
    ("visual_genome", "region_descriptions.json", '[{"phrase": "a"}]', r"not Visual Genome's regions \(KeyError"),
    ("conceptual_captions", "Train_GCC-training.tsv", "a\thttp://b\nc\n", r"training\.tsv, line 2: cannot be read"),
    ("clevr", "questions/CLEVR_train_questions.json", '{"questions": [{}]}', r"not CLEVR's questions"),
    ("clevr", "questions/CLEVR_train_questions.json", '{"questions": []}', r"holds no question"),
    ("vcr", "train.jsonl", "\n{", r"train\.jsonl, line 2: not a question of VCR"),
    ("vcr", "train.jsonl", '{"objects": ["dog"], "question": []}', r"line 1: .*ValueError\('an empty text'\)"),
    ("vcr", "train.jsonl", '{"objects": [], "question": [[0]]}', r"line 1: .*it speaks of thing 0, there are 0"),
    ("vcr", "train.jsonl", '{"objects": [], "question": ["a"], "answer_label": 4}', r"line 1: .*4 is not in range"),
    ("vcr", "train.jsonl", "", r"train\.jsonl: holds no question"),
    (
        "vcr",
        "vcr1images/lsmdc_3000_A_FILM/3000_A_FILM_00.23.57.935-00.24.00.783@0.json",
        '{"boxes": [], "width": 9, "height": 9}',
        r"783@0\.json: not a picture's things of VCR \(ValueError\('0 boxes of 4 things'\)\)",
    ),
    (
        "hateful_memes",
        "train.jsonl",
        '{"id": 1, "img": "a.png", "text": "a", "label": 2}',
        r"train\.jsonl, line 1: not a",
    ),
    ("hateful_memes", "train.jsonl", "", r"train\.jsonl: holds no meme"),
]


MORE = {"flickr30k": {"entities": True}, "vcr": {"boxes": True}}  # options with which a source reads more files


@pytest.mark.parametrize(("name", "file", "content", "says"), DAMAGED)
def test_a_damaged_file_is_named(name, file, content, says, tmp_path):
    (WRITERS[name](tmp_path) / file).write_text(content)
    with pytest.raises(DataError, match=says):
        opened(name, tmp_path, options=MORE.get(name, {}))


class _Harm:
    def __reduce__(self):
        return (Path.touch, (Path("harmed"),))


def test_a_pickle_runs_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    toy.write_refcoco(tmp_path)
    (tmp_path / "refcoco" / "refs(unc).p").write_bytes(pickle.dumps([_Harm()]))
    with pytest.raises(DataError, match=r"refs\(unc\)\.p: cannot be read \(it names .*, which such a file does not ne"):
        opened("refcoco", tmp_path)
    assert not (tmp_path / "harmed").exists()
