"""All objectives of pre-training at once, in the loop: on patches, regions and two streams; their state is kept."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from singlestream.config import Config, ConfigError, MeshConfig, ModelConfig, TwoStreamConfig
from singlestream.data.pipeline import train_iterator
from singlestream.evaluate import evaluate
from singlestream.train import checkpoint, loop
from singlestream.train.build import build_run
from singlestream.train.folder import RunFolder
from singlestream.train.sharding import make_mesh

from .test_step import compiled, curve
from .test_two_stream_run import KINDS, SIZES
from .toy import toy_config, with_train

WEIGHTS = {"mlm": 0.6, "itm": 1.0, "itc": 0.6, "wpa": 0.1, "mrm": 1.0, "distill": 0.4}
ONE = MeshConfig(data=1)
FAST = dict(schedule="constant", warmup_steps=0, learning_rate=3e-3)
OPTIONS = {
    "itm": {"hard": True},
    "itc": {"size": 8, "queue": 24},
    "mrm": {"rate": 0.3},
    "distill": {"heads": ("mlm", "itc"), "ramp": 40},
}


def pretraining(scenes, kind: str, **train) -> Config:
    """The toy run with all of it: several texts a picture on patches; packed rows, without a teacher, on regions."""
    base = toy_config(scenes, model={"num_layers": 1}, ema_decay=0.9, **train)
    data = dataclasses.replace(base.data, texts="captions")
    if kind == "patches":
        return dataclasses.replace(base, data=data, objectives=WEIGHTS, objective_options=OPTIONS)
    given = {**data.options, "regions": True}
    data = dataclasses.replace(data, options=given, texts_per_row=1, examples_per_row=2, max_patches=5)
    regions = dict(image_stem="regions", image_positions="boxes", region_dim=432)
    model = ModelConfig(width=16, num_layers=1, num_heads=2, mlp_dim=32, dtype="bfloat16", **regions)
    if kind == "two streams":
        sizes = {**SIZES, **KINDS["lxmert_tiny"], "num_layers": 1, "cross_after_text": (1,), "cross_after_image": (1,)}
        model = TwoStreamConfig.named("lxmert_tiny", **sizes)
    objectives = {name: weight for name, weight in WEIGHTS.items() if name != "distill"}
    options = {"itm": {"hard": True}, "itc": {"size": 8}, "mrm": {"rate": 0.3, "target": "features"}}
    return dataclasses.replace(base, data=data, model=model, objectives=objectives, objective_options=options)


def _run(config, path):
    path.mkdir()
    return build_run(config, RunFolder.at(path))


def _losses(run, steps: int, mesh_config: MeshConfig = ONE) -> list[float]:
    """Of so many steps, two batches in turn."""
    iterator = train_iterator(run.source, run.processor, batch_size=8, seed=0)
    batches = [next(iterator) for _ in range(2)]
    step, start, _, mesh = compiled(run, mesh_config)
    return curve(step, start(), (batches * steps)[:steps], mesh)[1]


@pytest.mark.parametrize("kind", ["regions", "two streams"])
def test_the_loss_falls(kind, scenes, tmp_path):
    found = _losses(_run(pretraining(scenes, kind, **FAST), tmp_path / "run"), 12)
    assert np.isfinite(found).all() and np.mean(found[-2:]) < np.mean(found[:2])


def test_on_several_devices_the_losses_are_the_same(scenes, tmp_path):
    """Contrast is over the whole batch, wherever its rows lie; the queue is the same everywhere, too."""
    run = _run(pretraining(scenes, "patches", **FAST), tmp_path / "run")
    alone = _losses(run, 12)
    assert np.isfinite(alone).all() and np.mean(alone[-2:]) < np.mean(alone[:2])
    np.testing.assert_allclose(_losses(run, 4, MeshConfig(data=2, fsdp=2)), alone[:4], rtol=1e-5)


def test_a_run_that_was_stopped_goes_on_bit_for_bit(scenes, tmp_path, monkeypatch):
    """The queue and what the ramp has counted are saved; an evaluation reads the average and the queue."""
    monkeypatch.setattr(loop, "make_mesh", lambda config: make_mesh(config, jax.devices()[:1]))
    config = pretraining(scenes, "patches", schedule="constant", accumulate=2)
    loop.train(config, tmp_path / "whole")
    loop.train(with_train(config, num_steps=4), tmp_path / "stopped")
    loop.train(config, tmp_path / "stopped")
    whole, stopped = (checkpoint.read_state(tmp_path / name / "checkpoints", 8) for name in ("whole", "stopped"))
    jax.tree.map(np.testing.assert_array_equal, whole, stopped)
    kept = whole["objectives"]
    assert kept["itc"]["is_text"].all() and len(set(kept["itc"]["picture"].tolist())) > 5
    assert kept["distill"]["seen"] == 40
    found = evaluate(tmp_path / "whole", split="test")
    assert np.isfinite([value for name, value in found.items() if name.endswith("loss")]).all()
    assert found["distill/mlm_loss"] == 0 and 0 <= found["itc/text_accuracy"] <= 1


def test_a_target_that_the_data_does_not_give_is_named(scenes, tmp_path):
    config = pretraining(scenes, "regions")
    options = {**config.objective_options, "mrm": {"target": "distribution"}}
    with pytest.raises(ConfigError, match="config.objectives.mrm needs the target 'region_distribution'"):
        _run(dataclasses.replace(config, objective_options=options), tmp_path / "run")
