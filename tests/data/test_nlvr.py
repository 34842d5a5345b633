"""NLVR in its official layout, as a folder and as an archive: splits by directory, three boxes, clear errors."""

from __future__ import annotations

import dataclasses
import json
import shutil
import tarfile

import numpy as np
import pytest
from PIL import Image

from singlestream.config import Config, DataConfig, ModelConfig
from singlestream.data.pipeline import eval_batches, train_iterator
from singlestream.data.processor import Processor
from singlestream.data.record import DataError
from singlestream.data.sources import open_split
from singlestream.data.sources.nlvr import box_order, pictures
from tests.data.toy_nlvr import drawing, line, write_nlvr, write_png


@pytest.fixture
def folder(tmp_path):
    return write_nlvr(tmp_path / "nlvr")


@pytest.fixture
def archive(folder, tmp_path):
    path = tmp_path / "nlvr.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.add(folder, "nlvr")
    return path


def _open(place, split="train"):
    return open_split(DataConfig(name="nlvr", dir=str(place)), split)


def test_splits_go_by_directory(folder):
    train, validation, test = (_open(folder, split) for split in ("train", "validation", "test"))
    assert [train.texts(i)[0].id for i in range(len(train))] == [
        "train-7-0-3",
        "train-8-0-3",
        "dev-0-0",
        "dev-1-1",
        "dev-2-2",
        "dev-3-3",
    ]
    assert [validation.texts(i)[0].id for i in range(len(validation))] == ["dev-4-0", "dev-5-1"]
    assert [test.texts(i)[0].id for i in range(len(test))] == ["test-1-1", "test-9-1"]
    assert [test.texts(i)[0].kind for i in range(2)] == ["seen", "new"]  # dev-1-1 says the same as test-1-1
    assert train.texts(0)[0].text == "There isn't a 7" and train.texts(0)[0].answer == "true"


def test_an_example_is_three_boxes_and_their_objects(folder):
    record = _open(folder, "test")[0]
    drawn = drawing(1)[..., :3]
    for i in range(3):
        np.testing.assert_array_equal(record.images[i], drawn[:, 150 * i : 150 * i + 100])
    assert record.index.tolist() == [0, 1, 2]
    assert record.classes.tolist() == [[1, 1, 1], [0, 1, 1], [2, 1, 1]]
    np.testing.assert_allclose(record.boxes, [[0.11, 0.2, 0.31, 0.4]] * 3, atol=1e-6)
    for i, box in enumerate((record.boxes * 100).round().astype(int)):
        x0, y0, x1, y1 = box
        assert (record.images[i][y0:y1, x0:x1, i] == 0).all()
    assert _open(folder)[0].classes.shape == (0, 0)  # not published for the page's pairs


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_the_archive_reads_as_the_folder(folder, archive, split):
    first = _open(folder, split)
    for place in (archive, folder.parent):
        second = _open(place, split)
        assert len(first) == len(second)
        for i in range(len(first)):
            assert first.texts(i) == second.texts(i)
            for a, b in zip(first[i].images, second[i].images, strict=True):
                np.testing.assert_array_equal(a, b)


def test_a_folder_that_holds_only_the_archive(archive, folder, tmp_path):
    expected = _open(folder).texts(1)
    shutil.rmtree(folder)
    assert _open(tmp_path).texts(1) == expected


def test_the_whole_training_file_goes_before_the_page(folder):
    (folder / "train" / "train.json").write_text(json.dumps(line("train", 7, 3)))
    source = _open(folder)
    assert [source.texts(i)[0].id for i in range(len(source))][:2] == ["train-7-3", "dev-0-0"]


def test_box_order_moves_objects_with_their_box(folder):
    record = _open(folder, "test")[0]
    seen = set()
    for seed in range(40):
        moved = box_order(record, np.random.default_rng(seed))
        order = tuple(next(i for i in range(3) if (record.images[i] == image).all()) for image in moved.images)
        seen.add(order)
        assert [order[i] for i in moved.index] == record.index.tolist()
    assert len(seen) == 6


def test_a_drawing_of_another_scale_divides_alike():
    large = np.asarray(Image.fromarray(drawing(0)[..., :3]).resize((800, 200), Image.Resampling.NEAREST))
    for small, big in zip(pictures(drawing(0)[..., :3]), pictures(large), strict=True):
        np.testing.assert_array_equal(big[::2, ::2], small)
    with pytest.raises(DataError, match="a picture of 300 x 100"):
        pictures(large[:100, :300])


def test_rows_of_three_pictures(folder):
    data = DataConfig(name="nlvr", dir=str(folder), augment=("box_order",), max_patches=25, text_length=16)
    config = Config(data=data, model=ModelConfig(num_images=3, patch_size=20))
    source = _open(folder)
    processor = Processor.build(config, source)
    assert processor.answers == ("false", "true") and not processor.mentions
    batch = next(train_iterator(source, processor, batch_size=6, seed=0))
    assert batch.image.index[0].tolist() == [0] * 25 + [1] * 25 + [2] * 25
    known = {tuple(np.unique(row)) for row in batch.targets["region_class"][..., 0]}
    assert known == {(-1,), (0, 1, 2, 3)}  # the page's pairs, and the others
    (_, items), *rest = eval_batches(source, processor, batch_size=6)
    assert len(items) == 6 and not rest


def test_other_places_are_refused(folder, tmp_path):
    with pytest.raises(DataError, match=r"config\.data\.dir is empty: NLVR is not downloaded"):
        _open("")
    with pytest.raises(DataError, match=r"none: no such folder or archive"):
        _open(tmp_path / "none")
    (tmp_path / "other" / "pictures").mkdir(parents=True)
    (tmp_path / "other" / "pictures" / "a.png").write_text("")
    with pytest.raises(DataError, match=r"is not NLVR: expected dev/dev\.json, .*; found pictures/a\.png"):
        _open(tmp_path / "other")
    (tmp_path / "text.tar.gz").write_text("not an archive")
    with pytest.raises(DataError, match=r"text\.tar\.gz: not a readable archive"):
        _open(tmp_path / "text.tar.gz")
    (folder / "test" / "test.json").unlink()
    with pytest.raises(DataError, match=r"is not NLVR: .*test/test\.json"):
        _open(folder)


def test_a_cut_archive_is_named(archive):
    content = archive.read_bytes()
    archive.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"nlvr\.tar\.gz: not a readable archive"):
        _open(archive)


def test_damaged_lines_and_pages_are_named(folder):
    path = folder / "dev" / "dev.json"
    lines = path.read_text().splitlines()
    for damaged in ("{", json.dumps({"sentence": "x"}), json.dumps({**line("dev", 1, 1), "label": "maybe"})):
        path.write_text("\n".join([lines[0], damaged]))
        with pytest.raises(DataError, match=r"dev/dev\.json, line 2 is no example of NLVR"):
            _open(folder)
    path.write_text("\n")
    with pytest.raises(DataError, match=r"dev/dev\.json holds no example"):
        _open(folder)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"dev/dev\.json is no text file"):
        _open(folder)
    path.write_text("\n".join(lines))
    page = folder / "train" / "examples.html"
    page.write_text(page.read_text().replace("<br />true<br />", "<br />"))
    with pytest.raises(DataError, match=r"examples\.html shows 2 images, 1 of them"):
        _open(folder)


def test_damaged_records_are_named(folder):
    source = _open(folder, "test")
    path = folder / "test" / "images" / "1" / "test-1-1-0.png"
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"no picture"):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"test-1-1-0\.png \(record test-1-1\): not a readable image"):
            source[0]
    write_png(path, drawing(0)[:, :300])
    with pytest.raises(DataError, match=r"test-1-1-0\.png \(record test-1-1\): a picture of 300 x 100"):
        source[0]
    path.unlink()
    with pytest.raises(DataError, match=r"test-1-1-0\.png.*cannot be read"):
        source[0]
    with pytest.raises(DataError, match=r"\(record test-1-1\): no such image file"):
        _open(folder, "test")[0]


def test_another_structure_is_named(folder):
    source = _open(folder, "test")
    source._examples[0] = dataclasses.replace(source._examples[0], structure=[[{"x_loc": 1}]])
    with pytest.raises(DataError, match="record test-1-1: its structured_rep is not as in NLVR"):
        source[0]
