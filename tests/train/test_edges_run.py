"""Attention along edges in the programs: the relations of Scenes, from the data to a step and to an evaluation."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx

import singlestream as ss
from singlestream.batch import IMAGE, TEXT, Stream
from singlestream.config import AttentionConfig
from singlestream.data.pipeline import train_iterator
from singlestream.data.processor import Processor
from singlestream.data.sources import open_split
from singlestream.evaluate import evaluate
from singlestream.model.attention.selections.graph import joined
from singlestream.train import loop

from .toy import toy_config

CLEAR, DOMINANT = 6, 1.5  # pixels, and times the other axis, as docs/data.md has them
ROWS = {
    "shared": {},
    "packed": {"texts_per_row": 1, "examples_per_row": 3, "row_patches": 108},
}


def config_of(folder, rows):
    base = toy_config(folder, num_steps=2)
    attention = AttentionConfig(selection="graph", graph="edges")
    model = dataclasses.replace(base.model, patch_size=8, image_grid=(6, 6), num_layers=1, attention=attention)
    data = dataclasses.replace(base.data, max_patches=36, max_edges=400, **ROWS[rows])
    return dataclasses.replace(base, data=data, model=model)


def middle(thing):
    return thing.x + thing.diameter / 2, thing.y + thing.diameter / 2


def related(one, other):
    """Whether one lies clearly left of, right of, above or below the other."""
    across, along = sorted(abs(a - b) for a, b in zip(middle(one), middle(other), strict=True))
    return along >= CLEAR and along >= DOMINANT * across


@pytest.mark.parametrize("rows", ROWS)
def test_things_in_a_relation_see_each_other_and_others_do_not(tmp_path, rows):
    config = config_of(tmp_path, rows)
    source = open_split(config.data, "train", progress=False)
    scenes = {source[i].picture: source.scene(i) for i in range(len(source))}
    processor = Processor.build(config, source)
    batch = next(train_iterator(source, processor, batch_size=8, seed=0))
    model = nnx.eval_shape(lambda: ss.SingleStream(config.model, processor.spec, rngs=nnx.Rngs(0)))
    segments, part = (
        np.concatenate([getattr(batch.text, name), getattr(batch.image, name)], 1) for name in ("segments", "part")
    )
    modality = np.where(np.arange(segments.shape[1]) < batch.text.ids.shape[1], TEXT, IMAGE)
    stream = Stream(
        x=np.zeros((*segments.shape, 1), np.float32),
        segments=segments,
        part=part,
        modality=np.broadcast_to(modality.astype(np.int32), segments.shape),
    )
    sees = model.sees(batch, stream)
    seen = np.asarray(joined(sees) & sees.mask())
    length, counts = batch.text.ids.shape[1], {True: 0, False: 0}
    for row, (segment, _), picture in (
        (row, batch.examples[row, k], batch.picture[row, k]) for row, k in np.argwhere(batch.example_mask)
    ):
        first = length + int(np.argmax(batch.image.segments[row] == segment))
        scene = scenes[picture]
        patches = [first + 6 * int(y // 8) + int(x // 8) for x, y in map(middle, scene)]
        for i, j in np.ndindex(len(scene), len(scene)):
            if i != j:
                expected = related(scene[i], scene[j])
                assert seen[row, patches[i], patches[j]] == expected, (scene[i], scene[j])
                counts[expected] += 1
        words = np.flatnonzero(batch.text.segments[row] == segment)
        assert seen[row][np.ix_(words, patches)].all()
    assert min(counts.values()) > 10


@pytest.mark.slow
def test_a_run_trains_along_edges_and_is_evaluated(tmp_path):
    loop.train(config_of(tmp_path, "packed"), tmp_path / "run")
    assert np.isfinite(evaluate(tmp_path / "run", split="test")["vqa/loss"])
    model = ss.load(tmp_path / "run")
    assert jax.tree.all(jax.tree.map(lambda x: bool(np.isfinite(x).all()), nnx.to_pure_dict(nnx.state(model.module))))
    with pytest.raises(ss.DataError, match="a picture and a text alone do not tell"):
        model.predict(np.zeros((48, 48, 3), np.uint8), "what colour is the circle?")


def test_a_source_without_edges_is_refused_before_anything_is_traced(tmp_path):
    config = config_of(tmp_path, "shared")
    clips = {f"{split}_clips": 4 for split in ("train", "validation", "test", "composition")}
    data = dataclasses.replace(config.data, name="events", options=clips)
    config = dataclasses.replace(config, data=data, model=dataclasses.replace(config.model, num_images=8))
    with pytest.raises(ss.ConfigError, match="the source 'events' knows neither relations between the objects"):
        loop.train(config, tmp_path / "run")
