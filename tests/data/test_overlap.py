"""The same picture has the same number wherever it is shown, and pictures that were trained on are counted."""

from __future__ import annotations

import pytest

from singlestream.config import DataConfig
from singlestream.data.overlap import (
    COCO,
    FLICKR30K,
    UNKNOWN,
    VISUAL_GENOME,
    PictureId,
    by_collection,
    ids_of_file,
    joined,
    overlap,
    overlap_lines,
    picture_ids,
    read_ids,
    write_ids,
)
from singlestream.data.record import DataError
from singlestream.data.sources import open_split
from tests.data import toy_published as toy
from tests.data.toy_questions import write_gqa, write_vqav2


def opened(name, folder, split, **options):
    return open_split(DataConfig(name=name, dir=str(folder), options=options), split)


@pytest.fixture
def folder(tmp_path):
    """COCO's pictures with captions, questions, expressions and regions; Flickr's with captions and sentences."""
    for write in (toy.write_coco, toy.write_refcoco, toy.write_visual_genome, toy.write_flickr30k, toy.write_snli_ve):
        write(tmp_path)
    return write_gqa(write_vqav2(tmp_path))


def test_a_picture_has_one_number_in_all_sources(folder):
    captions = opened("coco_captions", folder, "train", restval=False)
    region = opened("visual_genome", folder, "train", held_out=1)[2]
    question, expression = opened("vqav2", folder, "train")[0], opened("refcoco", folder, "train")[0]
    assert captions[0].picture == region.picture == question.picture == expression.picture == 9
    assert opened("flickr30k", folder, "train")[0].picture == opened("snli_ve", folder, "train")[0].picture


def test_numbers_of_collections_lie_apart():
    assert PictureId(COCO, 581929).number == 581929
    assert PictureId(VISUAL_GENOME, 581929).number == -581929
    flickr = [PictureId(FLICKR30K, number).number for number in (36979, 8251604257, 2**31 - 1)]
    assert len(set(flickr)) == 3 and all(581929 < number < 2**31 for number in flickr)
    assert ids_of_file(COCO, "val2014/COCO_val2014_000000000042.jpg") == (PictureId(COCO, 42),)
    assert ids_of_file(VISUAL_GENOME, "n161313.jpg") == ()


def test_what_was_trained_on_is_counted_in_an_evaluation(folder, tmp_path):
    trained = by_collection(picture_ids(opened("coco_captions", folder, "train")))  # with restval: 9 and 74
    assert trained == {COCO: frozenset({9, 74})}
    asked = opened("vqav2", folder, "validation")  # about 42, 73, 74
    assert overlap(trained, picture_ids(asked)) == 1
    said = "1 of the 3 pictures of split 'validation' were trained on, here or in what config.init names"
    assert overlap_lines(trained, asked, "validation") == [said]
    assert overlap_lines(trained, opened("coco_captions", folder, "test"), "test") == []
    assert overlap_lines(trained, opened("snli_ve", folder, "test"), "test") == []  # of another collection
    write_ids(tmp_path / "pictures.npz", trained)
    assert read_ids(tmp_path / "pictures.npz") == trained and read_ids(tmp_path / "none.npz") == {}


def test_pictures_of_visual_genome_are_known_by_every_name(folder):
    source = opened("visual_genome", folder, "train", held_out=1)
    seen = by_collection(picture_ids(source))
    (_, flickr), *_ = toy.FLICKR
    assert seen == {COCO: frozenset({9}), FLICKR30K: frozenset({flickr}), VISUAL_GENOME: frozenset({1, 2})}
    flickr30k = picture_ids(opened("flickr30k", folder, toy.FLICKR[0][0]))
    assert overlap(seen, flickr30k) == 1 and overlap({COCO: frozenset({flickr})}, flickr30k) == 0
    assert overlap(seen, picture_ids(opened("vqav2", folder, "train"))) == 1  # 9, and not 25
    assert overlap(seen, picture_ids(source)) == 2
    assert overlap({COCO: frozenset({9}), VISUAL_GENOME: frozenset({1})}, picture_ids(source)) == 2  # one by each name
    assert joined(seen, {COCO: frozenset({42})})[COCO] == {9, 42}


def test_pictures_of_gqa_are_known_to_be_cocos_where_visual_genomes_file_lies(folder):
    named = [{"image_id": 2375429, "coco_id": 9, "url": "https://a/VG_100K/2375429.jpg", "width": 24, "height": 16}]
    (folder / "image_data.json").unlink()
    source, trained = opened("gqa", folder, "train"), {COCO: frozenset({9})}
    assert overlap_lines(trained, source, "train") == [] and source[1].picture == -2375429
    toy.write(folder / "image_data.json", named)
    source = opened("gqa", folder, "train")
    (line,) = overlap_lines(trained, source, "train")
    assert line.startswith("1 of the 2 pictures of split 'train'")
    assert [source[i].picture for i in range(2)] == [-2354786, 9]  # the first is not in that file
    (folder / "image_data.json").write_text("[{}]")
    with pytest.raises(DataError, match=r"image_data\.json: not Visual Genome's pictures"):
        opened("gqa", folder, "train")


def test_of_published_weights_it_is_said_that_nobody_knows(folder, tmp_path):
    before = joined(UNKNOWN, {COCO: frozenset({42})})
    write_ids(tmp_path / "pictures.npz", before)
    assert read_ids(tmp_path / "pictures.npz") == before
    unknown = "the run began with published weights; it is not known which pictures they were trained on"
    lines = overlap_lines(before, opened("vqav2", folder, "validation"), "validation")
    assert lines[0].startswith("1 of the 3 pictures") and lines[1:] == [unknown]
    assert overlap_lines(UNKNOWN, opened("vqav2", folder, "train"), "train") == [unknown]


def test_a_source_without_ids_says_nothing(folder, tmp_path):
    toy.write_conceptual_captions(tmp_path)
    source = open_split(DataConfig(name="conceptual_captions", dir=str(tmp_path)), "train", progress=False)
    assert by_collection(picture_ids(source)) == {}
    assert overlap_lines({COCO: frozenset({1})}, source, "train") == []


@pytest.mark.parametrize("content", [b"", b"junk", b"PK\x03\x04junk"])
def test_a_damaged_file_of_ids_is_named(tmp_path, content):
    path = tmp_path / "pictures.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"pictures\.npz: cannot be read"):
        read_ids(path)
