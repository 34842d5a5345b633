"""Words, video and sound in the programs: trained and evaluated."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import singlestream as ss
from singlestream.evaluate import evaluate
from singlestream.objectives import build_objectives
from singlestream.train import loop

from .toy import toy_config

pytestmark = pytest.mark.slow

CLIPS = {"train_clips": 24, "validation_clips": 8, "test_clips": 4, "composition_clips": 4}


@pytest.fixture
def config(tmp_path):
    """The toy run on clips: eight frames of nine patches, sixteen tokens of sound, two questions a row."""
    base = toy_config(tmp_path)
    data = dataclasses.replace(base.data, name="events", options=CLIPS, max_audio=16)
    hears = dict(patch_size=8, num_images=8, image_positions="video", audio_dim=64, audio_per_frame=2, num_layers=1)
    model = dataclasses.replace(base.model, **hears)
    return dataclasses.replace(base, data=data, model=model)


def test_a_run_learns_from_clips_and_is_evaluated(config, tmp_path, one_device):
    loop.train(config, tmp_path / "run")
    metrics = evaluate(tmp_path / "run", split="test_composition")
    assert metrics["vqa/questions"] == 20 and np.isfinite(metrics["vqa/loss"])
    bias = ss.load(tmp_path / "run").module.embed.audio.stem.bias[...]
    assert np.abs(bias).max() > 0  # it starts at 0: the gradient reached the sound


def test_negatives_would_have_the_sound_of_another_clip(config):
    config = dataclasses.replace(config, objectives={"vqa": 1.0, "itm": 1.0})
    with pytest.raises(ss.ConfigError, match="config.objectives.itm takes other pictures as negatives"):
        build_objectives(config, ss.Spec(vocab_size=40, num_answers=3))
