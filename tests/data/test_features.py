"""Region features from tables and arrays, as others wrote them: read where they lie, every mistake named."""

from __future__ import annotations

import builtins
import json
import os
import pickle
import zipfile

import numpy as np
import pytest

from singlestream.data import features_table
from singlestream.data.features import open_features, read_regions
from singlestream.data.record import DataError
from tests.data.toy_regions import SIZE, attention_line, cell, found, lxmert_line, shares, vilbert_line, write_table


@pytest.mark.parametrize("line", [attention_line, lxmert_line, vilbert_line])
def test_a_table_is_read_by_name(tmp_path, line):
    features = open_features(write_table(tmp_path / "a.tsv", ["9", "cat", "7"], line))
    assert list(features) == ["9", "cat", "7"] and len(features) == 3 and "cat" in features and "dog" not in features
    for i, name in ((2, "7"), (0, "9"), (1, "cat")):
        regions, values = features[name], found(i)
        np.testing.assert_array_equal(regions.features, values["features"])
        np.testing.assert_array_equal(regions.boxes, shares(values["boxes"]))
        if line is lxmert_line:
            np.testing.assert_array_equal(regions.classes, np.stack([values["objects_id"], values["attrs_id"]], 1))
            np.testing.assert_array_equal(regions.scores, np.stack([values["objects_conf"], values["attrs_conf"]], 1))
        else:
            assert regions.classes is None and regions.scores is None


def test_a_first_line_can_name_the_columns(tmp_path):
    values = found(0)
    names = ["features", "num_boxes", "img_id", "img_w", "boxes", "img_h", "more"]
    cells = [cell(values["features"]), "4", "cat", str(SIZE[1]), cell(values["boxes"]), str(SIZE[0]), "x"]
    (tmp_path / "a.tsv").write_text("\t".join(names) + "\r\n" + "\t".join(cells) + "\r\n")
    regions = open_features(tmp_path / "a.tsv")["cat"]
    np.testing.assert_array_equal(regions.features, values["features"])
    np.testing.assert_array_equal(regions.boxes, shares(values["boxes"]))


def test_the_index_is_kept_and_follows_the_file(tmp_path, monkeypatch):
    table = write_table(tmp_path / "a.tsv", ["0", "1", "2"])
    first = open_features(table)
    assert (tmp_path / "a.tsv.index.json").is_file() and not list(tmp_path.glob("*.part"))
    with monkeypatch.context() as patch:
        patch.setattr(features_table, "_make_index", lambda path: pytest.fail("the kept index is not used"))
        second = open_features(table)
        for name in first:
            np.testing.assert_array_equal(second[name].features, first[name].features)
    write_table(table, ["a", "0"])
    os.utime(table, ns=(1, 1))
    assert list(open_features(table)) == ["a", "0"]
    (tmp_path / "a.tsv.index.json").write_text("{")
    assert list(open_features(table)) == ["a", "0"]


def test_a_folder_that_cannot_be_written_is_read(tmp_path, monkeypatch):
    table = write_table(tmp_path / "a.tsv", ["0"])

    def refuse(self, *args, **kwargs):
        raise PermissionError("read-only")

    monkeypatch.setattr(type(table), "write_text", refuse)
    assert len(open_features(table)["0"].features) == 4


def test_a_table_that_changes_under_its_reader_is_told(tmp_path):
    table = write_table(tmp_path / "a.tsv", ["0", "1"])
    features = open_features(table)
    write_table(table, ["1", "0"])
    with pytest.raises(DataError, match=r"a\.tsv, line 1: another line than when it was indexed; remove .*index\.json"):
        features["0"]


def _damage(line: str, place: int, cell: str) -> str:
    cells = line.split("\t")
    cells[place] = cell
    return "\t".join(cells)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            _damage(attention_line("0", found(0)), 3, "5"),
            r"line 2: features is not the base64 of float32\[5, -1\]|boxes is not",
        ),
        (_damage(attention_line("0", found(0)), 4, "b'AAAA'"), r"line 2: boxes is not the base64 of float32\[4, 4\]"),
        (
            _damage(attention_line("0", found(0)), 5, cell(found(0)["features"])[:-9]),
            "line 2: features is not the base64",
        ),
        (_damage(attention_line("0", found(0)), 1, "wide"), "line 2: image_w is b'wide', expected a number"),
        (_damage(attention_line("0", found(0)), 3, "0"), "line 2: 0 boxes in a picture of 100 x 50"),
        (_damage(attention_line("0", found(0)), 1, "10"), r"line 2 \(picture 0\): a box leaves a picture of 10 x 50"),
        (
            _damage(attention_line("0", found(0)), 5, cell(np.full((4, 6), np.nan, np.float32))),
            r"line 2 \(picture 0\): features hold numbers that are not finite",
        ),
    ],
)
def test_a_damaged_line_is_named_when_it_is_read(tmp_path, line, message):
    (tmp_path / "a.tsv").write_text(attention_line("good", found(1)) + "\n" + line)
    features = open_features(tmp_path / "a.tsv")
    assert len(features["good"].features) == 4
    with pytest.raises(DataError, match=r"a\.tsv, " + message):
        features["0"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "a.tsv: no line with region features"),
        (
            "a\tb\tc\n",
            r"a\.tsv, line 1: 3 columns; expected 6 \(image_id, .*\) or 10 .* or a first line that names them",
        ),
        ("image_id\tfeatures\n", r"a\.tsv, line 1: no column image_w, image_h, num_boxes, boxes"),
        (attention_line("0", found(0)) + "\n\n1\t2\n", r"a\.tsv, line 3: 2 columns, expected 6"),
    ],
)
def test_another_table_is_refused_at_once(tmp_path, content, message):
    (tmp_path / "a.tsv").write_text(content)
    with pytest.raises(DataError, match=message):
        open_features(tmp_path / "a.tsv")


def _npz(path, **arrays):
    np.savez_compressed(path, **arrays)
    return path


STYLES = {
    "bottom-up-attention in PyTorch": lambda v: {
        "x": v["features"],
        "bbox": v["boxes"],
        "num_bbox": 4,
        "image_h": SIZE[0],
        "image_w": SIZE[1],
        "info": {"pickled": True},
    },
    "turned": lambda v: {
        "x": v["features"].T,
        "bbox": v["boxes"],
        "num_bbox": np.array([4]),
        "image_h": np.array(SIZE[0]),
        "image_w": SIZE[1],
    },
    "turned, without boxes": lambda v: {"x": v["features"].T, "num_bbox": 4},
    "padded": lambda v: {
        "features": np.pad(v["features"], ((0, 3), (0, 0))),
        "boxes": np.pad(v["boxes"], ((0, 3), (0, 0))),
        "num_boxes": 4,
        "image_height": SIZE[0],
        "image_width": SIZE[1],
    },
    "UNITER": lambda v: {
        "features": v["features"].astype(np.float16),
        "norm_bb": np.pad(shares(v["boxes"]), ((0, 0), (0, 2))).astype(np.float16),
        "conf": v["objects_conf"],
    },
    "VisualBERT": lambda v: {"box_features": v["features"], "cls_boxes": v["boxes"], "max_conf": v["objects_conf"]},
}


@pytest.mark.parametrize("style", STYLES)
def test_arrays_of_every_style(tmp_path, style):
    values = found(0)
    regions = read_regions(_npz(tmp_path / "a.npz", **STYLES[style](values)))
    exact = 2e-3 if style == "UNITER" else 0
    np.testing.assert_allclose(regions.features, values["features"], atol=exact)
    assert regions.features.dtype == np.float32 and regions.features.flags.c_contiguous
    if style in ("VisualBERT", "turned, without boxes"):
        assert regions.boxes is None  # pixels of a picture of unknown size, or none
    else:
        np.testing.assert_allclose(regions.boxes, shares(values["boxes"]), atol=exact)


def test_classes_of_a_file(tmp_path):
    values = found(0)
    regions = read_regions(_npz(tmp_path / "a.npz", features=values["features"], objects_id=values["objects_id"]))
    assert regions.classes[:, 0].tolist() == values["objects_id"].tolist() and regions.scores is None


@pytest.mark.parametrize("name", ["soft_labels", "cls_prob", "a table"])
def test_probabilities_of_all_classes_are_read_where_they_are_wanted(tmp_path, name):
    """UNITER's files and ViLBERT's tables; the class is the most probable one, never the background."""
    values = found(0)
    shares = values["cls_prob"].astype(np.float16 if name == "soft_labels" else np.float32)
    if name == "a table":
        write_table(tmp_path / "a.tsv", ["a"], vilbert_line)
    else:
        _npz(tmp_path / "a.npz", features=values["features"], objects_id=values["objects_id"], **{name: shares})
    assert open_features(tmp_path)["a"].distribution is None
    regions = open_features(tmp_path, distribution=True)["a"]
    np.testing.assert_array_equal(regions.distribution, shares)
    assert regions.distribution.dtype == np.float32
    np.testing.assert_array_equal(regions.classes[:, 0], shares[:, 1:].argmax(1))
    np.testing.assert_array_equal(regions.scores[:, 0], shares[:, 1:].max(1))


@pytest.mark.parametrize("wrong", [np.full((2, 3), -0.1), np.zeros((2, 3)), np.full((2, 3), np.nan), np.ones((2, 1))])
def test_what_is_no_probability_is_told(tmp_path, wrong):
    path = _npz(tmp_path / "a.npz", x=np.ones((2, 3)), cls_prob=wrong)
    with pytest.raises(DataError, match=r"a\.npz: class probabilities \[N, C\], the background first, are not all 0"):
        read_regions(path, distribution=True)


def test_a_box_that_sticks_out_a_little_is_cut(tmp_path):
    boxes = np.array([[0, 0, 100.5, 50], [-0.3, 0, 20, 20]], np.float32)
    arrays = dict(x=np.ones((2, 3), np.float32), bbox=boxes, image_h=SIZE[0], image_w=SIZE[1])
    regions = read_regions(_npz(tmp_path / "a.npz", **arrays))
    assert regions.boxes.tolist() == [[0, 0, 1, 1], [0, 0, pytest.approx(0.2), pytest.approx(0.4)]]


def test_a_folder_holds_files_and_tables(tmp_path):
    for i, name in enumerate(("a.jpg.npz", "b.npz")):
        _npz(tmp_path / name, x=found(i)["features"])
    np.save(tmp_path / "c.npy", found(2)["features"])
    np.save(tmp_path / "c_info.npy", np.array({"pickled": True}))
    write_table(tmp_path / "more.tsv", ["d"])
    features = open_features(tmp_path)
    assert sorted(features) == ["a.jpg", "b", "c", "d"] and len(features) == 4
    for i, name in enumerate(("a.jpg", "b", "c")):
        np.testing.assert_array_equal(features[name].features, found(i)["features"])
    np.testing.assert_array_equal(features["d"].features, found(0)["features"])
    assert "e" not in features
    with pytest.raises(KeyError):
        features["e"]


def _truncated(path):
    content = _npz(path, x=found(0)["features"]).read_bytes()
    path.write_bytes(content[: len(content) // 2])


def _bomb(path):
    _npz(path, x=np.zeros((1 << 14, 16), np.float32))


def _lying(path):
    with zipfile.ZipFile(path, "w") as archive, archive.open("x.npy", "w") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (1 << 60, 1)})


def _pickled(path):
    path.write_bytes(pickle.dumps(_Code()))


def _objects(path):
    np.savez(path, x=np.array([_Code()], dtype=object))


class _Code:
    def __reduce__(self):
        return exec, ("import builtins; builtins._pickle_ran = True",)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_truncated, "not readable as arrays"),
        (_bomb, "x unpacks to 1,048,704 bytes, too much for one picture"),
        (_lying, "not readable as arrays"),
        (_pickled, "not readable as arrays"),
        (_objects, "not readable as arrays"),
        (lambda path: path.write_bytes(b""), "not readable as arrays"),
        (lambda path: path.write_text("an essay"), "not readable as arrays"),
        (lambda path: _npz(path, y=np.ones(3)), r"no features; expected an array features, x or box_features"),
        (lambda path: _npz(path, x=np.ones(3)), r"features are float64\[3\], expected numbers \[N, F\]"),
        (lambda path: _npz(path, x=np.array([["a"]])), r"features are <U1\[1, 1\]"),
        (
            lambda path: _npz(path, x=np.ones((3, 2)), num_bbox=np.ones(3)),
            r"num_bbox is float64\[3\], expected one number",
        ),
        (lambda path: _npz(path, x=np.ones((3, 2)), num_bbox=4), "4 regions are announced, there are features of 3"),
        (
            lambda path: _npz(path, x=np.ones((3, 5)), bbox=np.ones((4, 4))),
            r"boxes are float64\[4, 4\], there are 3 regions",
        ),
        (
            lambda path: _npz(path, x=np.ones((3, 5)), bbox=np.ones((3, 2))),
            r"boxes are float64\[3, 2\], expected \[3, 4\]",
        ),
        (
            lambda path: _npz(path, x=np.ones((1, 5)), bbox=np.array([[0.5, 0, 0.1, 1]])),
            "a box leaves the picture, or its",
        ),
        (
            lambda path: _npz(path, x=np.ones((1, 5)), bbox=np.full((1, 4), np.inf)),
            "boxes hold numbers that are not finite",
        ),
        (
            lambda path: _npz(path, x=np.ones((3, 5)), objects_id=np.ones(2)),
            r"classes or scores are float64\[2\], there are 3",
        ),
    ],
)
def test_what_is_damaged_is_named_and_no_code_runs(tmp_path, monkeypatch, damage, message):
    monkeypatch.setattr("singlestream.data.features.LARGEST", 1 << 20)
    path = tmp_path / "a.npz"
    damage(path)
    with pytest.raises(DataError, match=r"a\.npz: .*" + message):
        read_regions(path)
    assert not hasattr(builtins, "_pickle_ran")


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match=r"none\.npz: no such file of region features"):
        read_regions(tmp_path / "none.npz")
    with pytest.raises(DataError, match=r"none\.tsv: no region features; expected a file \.tsv, or a folder"):
        open_features(tmp_path / "none.tsv")
    with pytest.raises(DataError, match=r"no region features in this folder; expected files \.npz, \.npy or \.tsv"):
        open_features(tmp_path)
    (tmp_path / "a.json").write_text(json.dumps({}))
    with pytest.raises(DataError, match=r"a\.json: no region features"):
        open_features(tmp_path / "a.json")
