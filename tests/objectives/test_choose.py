"""Multiple choice: softmax over the texts of a row about one picture."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from singlestream.batch import Spec, Text, make_batch
from singlestream.config import ConfigError

from .toy import FakeModel, build, log_softmax, run

TWO = Spec(vocab_size=40, num_answers=2)
ROWS = {"texts_per_row": 4}


def test_the_right_text_among_those_of_its_picture():
    """A row of four texts, one of three with padding, one of two pictures, and a text alone: it has no rival."""
    segments = np.array([[1, 1, 1, 1], [1, 1, 1, 0], [1, 2, 3, 4], [1, 0, 0, 0]], np.int32)
    part = np.array([[1, 2, 3, 4], [1, 2, 3, 0], [0] * 4, [1, 0, 0, 0]], np.int32)
    picture = np.array([[5] * 4, [5, 5, 5, 0], [6, 6, 7, 7], [8, 0, 0, 0]], np.int32)
    answer = np.array([[0, 0, 1, 0], [1, 0, 0, -1], [0, 1, 0, 0], [1, -1, -1, -1]], np.int32)
    scores = np.random.default_rng(0).normal(size=(4, 4, 1)).astype(np.float32)
    text = Text(ids=np.full((4, 4), 7, np.int32), segments=segments, part=part)
    batch = make_batch(text=text, picture=picture, targets={"answer": answer})
    objectives = build({"choose": 1.0}, data=ROWS, spec=TWO)
    metrics, _ = run(objectives, batch, FakeModel(choice=scores))
    groups = ((0, [0, 1, 2, 3], 2), (1, [0, 1, 2], 0), (2, [0, 1], 1))  # none of the third row's other two is right
    wanted = -sum(log_softmax(scores[row, texts, 0])[right] for row, texts, right in groups)
    np.testing.assert_allclose(metrics["choose/loss"], (wanted, 3), rtol=1e-6)
    hits = sum(scores[row, texts, 0].argmax() == right for row, texts, right in groups)
    assert metrics["choose/accuracy"] == (hits, 3)
    mask = batch.example_mask & (np.arange(4) != 3)  # one less to choose from
    metrics, _ = run(objectives, dataclasses.replace(batch, example_mask=mask), FakeModel(choice=scores))
    fewer = wanted + log_softmax(scores[0, :, 0])[2] - log_softmax(scores[0, :3, 0])[2]
    np.testing.assert_allclose(metrics["choose/loss"], (fewer, 3), rtol=1e-6)


def test_mistakes_in_the_settings_are_named():
    with pytest.raises(ConfigError, match="config.data.texts_per_row=1, set it to the number of texts of a record"):
        build({"choose": 1.0}, spec=TWO)
    with pytest.raises(ConfigError, match="have 7 different answers; choose needs 2"):
        build({"choose": 1.0}, data=ROWS)
