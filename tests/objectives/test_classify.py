"""One label and several against numpy, the odds that rank examples, and how several labels come from one answer."""

from __future__ import annotations

import numpy as np
import pytest

from singlestream.batch import Spec
from singlestream.config import ConfigError
from singlestream.data.record import DataError, Sentence
from singlestream.data.targets import label_points, labels_of
from singlestream.objectives.classify import label_odds
from tests.model.toy import random_batch

from .toy import FakeModel, build, log_softmax, run

LOGITS = np.random.default_rng(0).normal(size=(4, 1, 7)).astype(np.float32)
ANSWER = np.array([[2], [-1], [5], [7]], np.int32)  # none, and one that training did not know


def test_one_label():
    batch = random_batch(0, rows=4, targets={"answer": ANSWER})
    metrics, _ = run(build({"classify": 1.0}), batch, FakeModel(classify=LOGITS))
    wanted = -(log_softmax(LOGITS)[0, 0, 2] + log_softmax(LOGITS)[2, 0, 5])
    np.testing.assert_allclose(metrics["classify/loss"], (wanted, 2), rtol=1e-6)
    hits = sum(LOGITS[row, 0].argmax() == ANSWER[row, 0] for row in (0, 2))
    assert metrics["classify/accuracy"] == (hits, 3)


def test_several_labels():
    """The second row is right in all labels, the others are not; a label that is not known stands for itself."""
    ids = np.full((4, 1, 10), -1, np.int32)
    ids[0, 0, :2], ids[2, 0, 0] = (2, 4), 5
    logits = LOGITS.copy()
    logits[2] = np.where(np.arange(7) == 5, 1.5, -0.5)
    targets = {"answer": ANSWER, "answer_ids": ids, "answer_points": (ids >= 0).astype(np.float32)}
    objectives = build({"classify": 1.0}, classify={"several": True}, data={"label_separator": ","})
    metrics, _ = run(objectives, random_batch(0, rows=4, targets=targets), FakeModel(classify=logits))
    there = {0: {2, 4}, 2: {5}, 3: set()}
    share = 1 / (1 + np.exp(-logits[:, 0].astype(float)))
    wanted = -sum(
        np.log(share[row, c] if c in labels else 1 - share[row, c]) for row, labels in there.items() for c in range(7)
    )
    np.testing.assert_allclose(metrics["classify/loss"], (wanted, 3), rtol=1e-6)
    assert (logits[0] > 0).sum() != 2 and (logits[3] > 0).any()
    assert metrics["classify/accuracy"] == (1, 3)


def test_log_odds_rank_as_probabilities_do():
    share = np.exp(log_softmax(LOGITS[:, 0].astype(float)))
    np.testing.assert_allclose(label_odds(LOGITS[:, 0], several=False), np.log(share / (1 - share)), rtol=1e-5)
    np.testing.assert_array_equal(label_odds(LOGITS, several=True), LOGITS)


def test_labels_are_separated():
    text = Sentence(id="t", text="a film", answer=" drama| war |drama|")
    labels = labels_of(text.answer, "|")
    assert labels == ("drama", "war")
    assert labels_of(text.answer, "") == (text.answer,)
    assert labels_of("", "|") == labels_of(None, "|") == ()
    ids, given = label_points({"war": 3, "comedy": 1}, labels, text)
    assert ids.tolist() == [3, *[-1] * 9] and given.tolist() == [1, *[0] * 9]
    with pytest.raises(DataError, match="text t has 11 labels, more than 10"):
        label_points({f"{i}": i for i in range(11)}, [f"{i}" for i in range(11)], text)


def test_mistakes_in_the_settings_are_named():
    with pytest.raises(ConfigError, match="set config.objective_options.classify.several=True"):
        build({"classify": 1.0}, data={"label_separator": "|"})
    with pytest.raises(ConfigError, match="have 1 different labels; classify needs 2 or more"):
        build({"classify": 1.0}, spec=Spec(vocab_size=40, num_answers=1))
