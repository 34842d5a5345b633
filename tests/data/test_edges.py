"""Edges from data: which tokens show objects in a relation, which words an arc joins, and where a row holds it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from singlestream.batch import ALL
from singlestream.config import AttentionConfig, ConfigError, ModelConfig
from singlestream.data.edges import Places, arc_edges, iou, relation_edges
from singlestream.data.pipeline import check_edges
from singlestream.data.record import DataError, Record, RegionFeatures, Sentence
from singlestream.model import boxes

from .conftest import ToySource, toy_config

EDGES = AttentionConfig(selection="graph", graph="edges")
MODEL = ModelConfig(patch_size=8, direction="prefix", attention=EDGES)
# A picture of 2 x 3 patches: the first box lies on the left column, the second on the upper right patch, the third on
# the lower right one, the fourth is of a picture that comes after it.
BOXES = np.array([[0, 0, 0.3, 1], [0.7, 0, 1, 0.4], [0.7, 0.6, 1, 1], [0, 0, 1, 1]], np.float32)
KNOWN = {
    "boxes": BOXES,
    "classes": np.zeros((4, 1), np.int32),
    "index": np.array([0, 0, 0, 1]),
    "relations": np.array([[1, 0], [2, 3]]),
}
SHOWN = [0, -1, 1, 0, -1, 2]


def record(**changes):
    pixels = np.zeros((16, 24, 3), np.uint8)
    return Record(**{"id": "r", "images": (pixels,), "texts": (), "picture": 1, **KNOWN, **changes})


def pairs(edges):
    return {tuple(sorted(edge)) for edge in np.asarray(edges).tolist()}


def test_a_patch_shows_the_object_that_covers_it_and_a_region_the_one_it_agrees_with():
    grid = np.full((6, 2), [2, 3], np.int32)
    assert Places(index=np.zeros(6, np.int32), grid=grid).objects(record()).tolist() == SHOWN
    np.testing.assert_allclose(iou(BOXES, BOXES[::-1]), boxes.iou(BOXES[:, None], BOXES[::-1]), atol=1e-6)
    found = np.array([[0.68, 0.62, 1, 1], [0, 0, 0.3, 0.45], [0, 0, 0.28, 1], [0, 0, 1, 0.9]], np.float32)
    index = np.array([0, 0, 0, 1], np.int32)
    assert Places(index=index, boxes=found).objects(record()).tolist() == [2, -1, 0, 3]


def test_objects_in_a_relation_are_joined_and_an_objects_own_tokens():
    shown = np.array([*SHOWN, 3, 3], np.int32)
    expected = {(0, 3), (0, 2), (2, 3), (5, 6), (5, 7), (6, 7)}
    assert pairs(relation_edges(shown, KNOWN["relations"])) == expected
    assert pairs(relation_edges(shown, np.zeros((0, 2), np.int32))) == {(0, 3), (6, 7)}
    assert relation_edges(shown, None).tolist() == [[i, ALL] for i in range(8)]


def test_words_of_an_arc_are_joined_with_all_their_pieces():
    # [CLS] a play ##ing dog barks [SEP]
    spans = [(0, 0), (0, 1), (2, 6), (6, 9), (10, 13), (14, 19), (0, 0)]
    sentence = Sentence(id="", text="a playing dog barks", arcs=(((2, 9), (10, 13)), ((10, 13), (14, 19))))
    edges = arc_edges(spans, sentence).tolist()
    assert edges[:2] == [[0, ALL], [6, ALL]] and pairs(edges[2:]) == {(2, 3), (2, 4), (3, 4), (4, 5)}
    unknown = dataclasses.replace(sentence, arcs=None)
    assert arc_edges(spans, unknown).tolist() == [[i, ALL] for i in range(7)]


TEXT = Sentence(id="t", text="What colour is a box?", arcs=(((5, 11), (12, 14)),))


@pytest.mark.parametrize(
    ("changes", "places"),
    [({"examples_per_row": 2}, (0, 12, 24, 48)), ({"texts_per_row": 2}, (0, 12, 24, 24))],
    ids=["packed", "shared"],
)
def test_a_row_numbers_its_own_tokens(make_processor, changes, places):
    """Two texts, each of 12 tokens at most, beside two pictures of 24 patches at most, or beside one."""
    processor = make_processor(model=MODEL, max_edges=30, **changes)
    one = record()
    entries = [(one, [TEXT]), (one, [TEXT])] if "examples_per_row" in changes else [(one, [TEXT, TEXT])]
    row = processor.row(entries)
    found = [tuple(edge) for edge in row["targets/edges"].tolist() if edge[0] >= 0]
    assert row["targets/edges"].shape == (60, 2) and (row["targets/edges"][len(found) :] == -1).all()
    length = int((row["text/segments"][:12] > 0).sum())
    expected = {(start + i, ALL) for start in places[:2] for i in (0, length - 1)}
    expected |= {(start + 2, start + 3) for start in places[:2]}
    second = 24 + 6 if len(entries) == 2 else 24  # where the second picture begins
    expected |= {(start + i, start + j) for start in (24, second) for i, j in ((0, 3), (0, 2), (2, 3))}
    assert set(found) == expected and len(found) == len(expected)


def test_regions_stand_for_objects_and_their_mean_for_all(make_processor):
    features = np.zeros((3, 4), np.float32)
    regions = RegionFeatures(features=features, boxes=BOXES[:3])
    model = ModelConfig(image_stem="regions", image_positions="boxes", region_dim=4, attention=EDGES)
    processor = make_processor(model=model, max_edges=30, mean_region=True)
    row = processor.row([(record(images=(), regions=(regions,)), [])])
    assert row["targets/edges"][:2].tolist() == [[12, ALL], [13, 14]] and (row["targets/edges"][2:] == -1).all()


def test_regions_whose_places_nobody_knows_are_joined_with_all(make_processor):
    regions = RegionFeatures(features=np.zeros((3, 4), np.float32))
    model = ModelConfig(image_stem="regions", image_positions="none", region_dim=4, attention=EDGES)
    row = make_processor(model=model, max_edges=30).row([(record(images=(), regions=(regions,)), [])])
    assert row["targets/edges"][:4].tolist() == [[12, ALL], [13, ALL], [14, ALL], [-1, -1]]
    with pytest.raises(ValueError, match="image_cls=True does not go with .* no edge names the class token"):
        dataclasses.replace(model, image_cls=True)


def test_a_picture_alone_keeps_the_relations_of_its_own_objects():
    pair = record(relations=np.array([[0, 2], [2, 3], [3, 3]]))
    assert pair.alone(0).relations.tolist() == [[0, 2]] and pair.alone(1).relations.tolist() == [[0, 0]]
    assert record(relations=None).alone(0).relations is None


def test_what_does_not_fit_is_named(make_processor, source):
    with pytest.raises(DataError, match="record r: relations number 0 to 4 of its 4 boxes, which count from 0"):
        record(relations=np.array([[0, 4]]))
    processor = make_processor(model=MODEL, max_edges=5)
    with pytest.raises(DataError, match="record r: 6 edges, .* there may be 5: raise config.data.max_edges"):
        processor.row([(record(), [TEXT])])
    with pytest.raises(DataError, match="a picture and a text alone do not tell"):
        processor.batch_of([np.zeros((16, 24, 3), np.uint8)], ["What?"])
    with pytest.raises(ConfigError, match=r"graph='edges' with config.data.max_edges=0: a model that reads edges"):
        toy_config(model=MODEL)
    with pytest.raises(ConfigError, match="config.data.max_edges=3: a model that reads edges"):
        toy_config(max_edges=3)
    with pytest.raises(ConfigError, match="does not go with config.model.audio_dim=8: no source knows edges"):
        toy_config(model=dataclasses.replace(MODEL, audio_dim=8), max_edges=3, max_audio=4)
    with pytest.raises(DataError, match=r"text t: the arc \(\(5, 11\), \(12, 99\)\) is not of two words"):
        processor.row([(record(), [dataclasses.replace(TEXT, arcs=(((5, 11), (12, 99)),))])])
    with pytest.raises(ConfigError, match="the source 'scenes' knows neither relations between the objects"):
        check_edges(source, processor.data)


def test_a_source_may_know_either():
    class Related(ToySource):
        def __getitem__(self, i):
            return dataclasses.replace(super().__getitem__(i), relations=np.zeros((0, 2), np.int32))

    class Parsed(ToySource):
        def texts(self, i):
            return (dataclasses.replace(super().texts(i)[0], arcs=()),)

    for known in (Related(), Parsed()):
        check_edges(known, toy_config().data)
