"""Pairs of pictures: the loss of each pair, and what it needs of the rows."""

from __future__ import annotations

import numpy as np
import pytest

from singlestream.batch import Spec, Text, make_batch
from singlestream.config import ConfigError

from .toy import FakeModel, build, log_softmax, run

APART = {"apart": 2}


def test_a_pair_counts_once_where_both_examples_do():
    """Three pairs in two rows: one has no answer, one lacks its second picture."""
    segments = np.array([[1, 2, 3, 4], [1, 2, 3, 0]], np.int32)
    answer = np.array([[1, 1, 0, 0], [1, 1, 1, -1]], np.int32)
    logits = np.random.default_rng(0).normal(size=(2, 2, 2)).astype(np.float32)
    batch = make_batch(text=Text(ids=np.full((2, 4), 7, np.int32), segments=segments), targets={"answer": answer})
    metrics, _ = run(build({"nlvr": 1.0}, data=APART), batch, FakeModel(nlvr2=logits))
    pairs = {(0, 0): 1, (0, 1): 0, (1, 0): 1}
    wanted = -sum(log_softmax(logits)[row, pair, label] for (row, pair), label in pairs.items())
    np.testing.assert_allclose(metrics["nlvr/loss"], (wanted, 3), rtol=1e-6)
    assert metrics["nlvr/accuracy"] == (sum(logits[place].argmax() == label for place, label in pairs.items()), 3)


def test_mistakes_in_the_settings_are_named():
    with pytest.raises(ConfigError, match="config.data.apart=1, set it to 2, or take config.objectives.vqa"):
        build({"nlvr": 1.0})
    with pytest.raises(ConfigError, match="have 1 different answers; nlvr needs 2 or more"):
        build({"nlvr": 1.0}, data=APART, spec=Spec(vocab_size=40, num_answers=1))
    with pytest.raises(ConfigError, match="config.data.apart=2 and config.data.texts_per_row=2"):
        build({"nlvr": 1.0}, data={"apart": 2, "texts_per_row": 2})
