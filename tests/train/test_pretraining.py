"""All objectives of pre-training at once, in the loop, on several corpora, on patches, regions and two streams.

Their state is kept, whatever happens to the process; or one objective a step.
"""

from __future__ import annotations

import dataclasses
import math

import jax
import numpy as np
import pytest

from singlestream.config import Config, ConfigError, CorpusConfig, MeshConfig, ModelConfig, TwoStreamConfig
from singlestream.data.pipeline import train_iterator
from singlestream.evaluate import evaluate
from singlestream.train import checkpoint, loop
from singlestream.train.build import build_run
from singlestream.train.folder import RunFolder
from singlestream.train.metrics import read_rows
from singlestream.train.step import draw_objective

from .test_step import compiled, curve
from .test_two_stream_run import KINDS, SIZES
from .toy import OPTIONS as OPTIONS_OF_DATA
from .toy import power_cut, toy_config

pytestmark = pytest.mark.slow

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
        data = dataclasses.replace(data, corpora=others(scenes))
        return dataclasses.replace(base, data=data, objectives=WEIGHTS, objective_options=OPTIONS)
    given = {**data.options, "regions": True}
    data = dataclasses.replace(data, options=given, texts_per_row=1, examples_per_row=2, max_patches=5)
    regions = dict(image_stem="regions", image_positions="boxes", region_dim=432)
    model = ModelConfig(width=16, num_layers=1, num_heads=2, mlp_dim=32, dtype="bfloat16", **regions)
    if kind == "two streams":
        model = TwoStreamConfig.named("lxmert_tiny", **{**SIZES, **KINDS["lxmert_tiny"]})
    objectives = {name: weight for name, weight in WEIGHTS.items() if name != "distill"}
    options = {"itm": {"hard": True}, "itc": {"size": 8}, "mrm": {"rate": 0.3, "targets": ("features",)}}
    return dataclasses.replace(base, data=data, model=model, objectives=objectives, objective_options=options)


def others(scenes) -> dict[str, CorpusConfig]:
    """Other pictures with their captions, and of the same ones the captions alone and the pictures alone."""
    same = dict(dir=str(scenes), options=OPTIONS_OF_DATA)
    return {
        "other": CorpusConfig(dir=str(scenes), options={**OPTIONS_OF_DATA, "seed": 1}, texts="captions", rate=0.5),
        "sentences": CorpusConfig(**same, texts="captions", pictures=False, rate=0.5),
        "pictures": CorpusConfig(**same, texts="none", rate=0.25),
    }


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


def test_a_run_whose_process_ended_goes_on_bit_for_bit(scenes, tmp_path, one_device, compiled_once):
    """Six objectives on four corpora. The queue and what the ramp has counted are saved, and where each corpus is; an
    evaluation reads the average and the queue. That processes can be killed is asked by `test_kill.py`.
    """
    config = pretraining(scenes, "patches", schedule="constant", accumulate=2)
    folders = [tmp_path / name for name in ("whole", "ended")]
    loop.train(config, folders[0])
    with power_cut(5):
        loop.train(config, folders[1])
    assert checkpoint.steps(folders[1] / "checkpoints")[-1] == 4
    loop.train(config, folders[1])
    whole, ended = (checkpoint.read_state(folder / "checkpoints", 8) for folder in folders)
    jax.tree.map(np.testing.assert_array_equal, whole, ended)
    kept = whole["objectives"]
    assert kept["itc"]["is_text"].all() and len(set(kept["itc"]["picture"].tolist())) > 5
    assert kept["distill"]["seen"] == 40
    found = evaluate(tmp_path / "whole", split="test")
    assert np.isfinite([value for name, value in found.items() if name.endswith("loss")]).all()
    assert found["distill/mlm_loss"] == 0 and 0 <= found["itc/text_accuracy"] <= 1


def test_one_objective_a_step(scenes, tmp_path, one_device):
    """As UNITER trains: every step counts for one of them, drawn with the key of its number."""
    steps = dict(log_every=1, num_steps=10, eval_every=10, schedule="constant")
    toy = toy_config(scenes, model={"num_layers": 1}, one_objective=True, **steps)
    data = dataclasses.replace(toy.data, texts="captions", corpora=others(scenes))
    weights, options = {"mlm": 2.0, "itm": 1.0, "locate": 0.5}, {"locate": {"layer": 1}}
    config = dataclasses.replace(toy, data=data, objectives=weights, objective_options=options)
    loop.train(config, tmp_path / "run")
    *steps, asked = read_rows(RunFolder.at(tmp_path / "run"))
    losses = {"mlm/loss", "itm/loss", "locate/region_loss"}
    whose = [losses & set(row) for row in steps if row["split"] == "train"]
    assert all(len(names) == 1 for names in whose) and len(set(map(frozenset, whose))) > 1
    assert losses <= set(asked)  # an evaluation asks all of them


def test_objectives_are_drawn_by_their_rates():
    keys = jax.random.split(jax.random.key(0), 4000)
    drawn = jax.vmap(lambda key: draw_objective(key, {"itm": 1.0, "mlm": 2.0, "mrm": 1.0}))(keys)
    np.testing.assert_allclose(np.bincount(drawn) / 4000, [0.25, 0.5, 0.25], atol=4 * math.sqrt(0.25 / 4000))


def test_what_needs_another_objective_is_not_trained_by_turns(scenes, tmp_path):
    config = pretraining(scenes, "patches", one_objective=True)
    with pytest.raises(ConfigError, match="config.objectives.distill needs config.objectives.mlm in the same step"):
        _run(config, tmp_path / "run")


def test_a_target_that_the_data_does_not_give_is_named(scenes, tmp_path):
    config = pretraining(scenes, "regions")
    options = {**config.objective_options, "mrm": {"targets": ("distribution",)}}
    with pytest.raises(ConfigError, match="config.objectives.mrm needs the target 'region_distribution'"):
        _run(dataclasses.replace(config, objective_options=options), tmp_path / "run")
