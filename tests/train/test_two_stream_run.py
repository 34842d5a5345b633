"""A two-stream model in the programs: trained, stopped and continued, split over devices, evaluated, shown."""

from __future__ import annotations

import dataclasses
import json

import jax
import numpy as np
import pytest

import singlestream as ss
from singlestream.config import Config, MeshConfig, TwoStreamConfig
from singlestream.data.pipeline import train_iterator
from singlestream.data.record import RegionFeatures
from singlestream.evaluate import _has_pointing as points
from singlestream.evaluate import evaluate
from singlestream.page import make_notes
from singlestream.train import loop
from singlestream.train.build import build_run
from singlestream.train.errors import Interrupted
from singlestream.train.folder import RunFolder

from .test_step import compiled, curve
from .toy import stopped_at, toy_config

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_device", "compiled_once")]
SIZES = dict(width=16, num_heads=2, mlp_dim=32, image_width=16, image_heads=2, image_mlp_dim=32, region_dim=432)
BOXES = np.array([[0, 0, 1, 1], [0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]], np.float32)
# One layer of each sort: every layer more costs the tests seconds of compilation.
LAYERS = dict(num_layers=1, image_layers=1, cross_after_text=(1,), cross_after_image=(1,), cross_heads=2)
KINDS = {
    "lxmert_tiny": {**LAYERS, "cross_width": 16},
    "vilbert_tiny": {**LAYERS, "cross_width": 8, "image_width": 8, "num_tasks": 2},
}


def two_stream_config(scenes, size: str, **train) -> Config:
    """The toy run on regions of Scenes."""
    base = toy_config(scenes, **train)
    vilbert = size == "vilbert_tiny"
    rows = {"max_patches": 6, "mean_region": True, "task": 1} if vilbert else {"max_patches": 5}
    data = dataclasses.replace(
        base.data, options={**base.data.options, "regions": True}, texts_per_row=1, examples_per_row=2, **rows
    )
    return dataclasses.replace(
        base,
        data=data,
        model=TwoStreamConfig.named(size, **{**SIZES, **KINDS[size]}),
        objectives={"vqa": 1.0, "mlm": 0.5, "itm": 0.5},
    )


@pytest.fixture(scope="module")
def config(scenes) -> Config:
    return two_stream_config(scenes, "vilbert_tiny", schedule="constant")


@pytest.fixture(scope="module")
def trained(config, tmp_path_factory):
    """Eight steps in one go."""
    folder = tmp_path_factory.mktemp("two_streams") / "run"
    loop.train(config, folder)
    return folder


def test_a_run_that_was_stopped_goes_on_bit_for_bit(config, trained, tmp_path):
    with stopped_at(4), pytest.raises(Interrupted):
        loop.train(config, tmp_path / "run")
    loop.train(config, tmp_path / "run")
    ours, theirs = (jax.tree.leaves(ss.load(folder, "latest").params) for folder in (tmp_path / "run", trained))
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(mine, other)


def test_it_is_evaluated_shown_and_asked(config, trained):
    metrics = evaluate(trained, split="test", report=True)
    assert metrics["vqa/questions"] > 0 and 0 <= metrics["attention/pointing"] <= 1
    by_head = json.loads((trained / "eval/pointing.json").read_text())["by_head"]
    assert np.shape(by_head) == (config.model.num_cross, config.model.cross_heads)
    page = (trained / "eval/test/report.html").read_text()
    assert "two streams: text" in page and "regions" in page
    model = ss.load(trained)
    assert model.config == config
    found = RegionFeatures(features=np.ones((3, 432), np.float32), boxes=BOXES)
    prediction = model.predict(found, "what colour?")
    assert prediction.answer in model.answers


def test_streams_that_do_not_meet_point_at_nothing(trained):
    model = ss.load(trained)
    assert points(model)
    model._config = dataclasses.replace(model.config, model=dataclasses.replace(model.config.model, coattention=False))
    assert not points(model)
    assert "text and picture meet in no layer" in make_notes(model.config.model, answers=True, examples=False)[-1]


@pytest.mark.parametrize("size", list(KINDS))
def test_on_several_devices_the_losses_are_the_same(size, scenes, tmp_path):
    (tmp_path / "run").mkdir()
    config = dataclasses.replace(two_stream_config(scenes, size), objectives={"vqa": 1.0})
    run = build_run(config, RunFolder.at(tmp_path / "run"))
    iterator = train_iterator(run.source, run.processor, batch_size=8, seed=0)
    batches = [next(iterator) for _ in range(2)]

    def losses(mesh_config: MeshConfig) -> list[float]:
        step, start, _, mesh = compiled(run, mesh_config)
        return curve(step, start(), batches, mesh)[1]

    np.testing.assert_allclose(losses(MeshConfig(data=2, fsdp=2, tensor=2)), losses(MeshConfig(data=1)), rtol=1e-5)


def test_texts_cannot_share_a_picture(scenes):
    config = two_stream_config(scenes, "lxmert_tiny")
    with pytest.raises(ss.ConfigError, match="needs a single stream"):
        dataclasses.replace(config, data=dataclasses.replace(config.data, texts_per_row=2, examples_per_row=1))


def test_a_task_has_to_be_one_of_the_models(scenes):
    config = two_stream_config(scenes, "vilbert_tiny")
    with pytest.raises(ss.ConfigError, match="config.data.task=2: the model knows 2 tasks"):
        dataclasses.replace(config, data=dataclasses.replace(config.data, task=2))
