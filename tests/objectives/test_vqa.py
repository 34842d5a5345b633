"""`vqa` with the answers of several annotators: losses and points against numpy written from their definition."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from singlestream.config import Config, ConfigError
from singlestream.model.answering import probabilities
from singlestream.objectives import base, build_objectives
from singlestream.objectives.vqa import Objective, Options
from tests.model.toy import SPEC, pack, random_batch, run

ROWS, ANSWERS = 6, SPEC.num_answers
# Points of some answers to each question: three with annotators, one with unknown answers alone, a caption, padding.
POINTS = [{2: 1.0, 0: 0.3}, {5: 0.6, 1: 0.6, 6: 0.3}, {3: 0.9}, {}, {}, {4: 1.0}]
COMMONEST = np.array([2, 5, 3, ANSWERS, -1, 4], np.int32)
MASK = np.array([True, True, True, True, True, False])
SOFTMAX, BINARY = (Objective(Options(loss=loss)) for loss in ("softmax", "binary"))


def targets(points=POINTS, commonest=COMMONEST):
    ids, found = np.full((len(points), 1, 10), -1, np.int32), np.zeros((len(points), 1, 10), np.float32)
    for row, given in enumerate(points):
        ids[row, 0, : len(given)], found[row, 0, : len(given)] = list(given), list(given.values())
    return {"answer": commonest[:, None], "answer_ids": ids, "answer_points": found}


def batch_of(**given):
    batch = random_batch(0, rows=ROWS, targets=targets(**given))
    return batch.replace(example_mask=MASK[:, None])


@functools.partial(jax.jit, static_argnums=0)
def measure(objective, batch, logits):
    found, _ = objective.loss(lambda batch: None, {"vqa": lambda _: logits}, batch, SPEC, jax.random.key(0), {})
    return found


def logits_of(seed, scale=1.0):
    return scale * np.random.default_rng(seed).normal(size=(ROWS, 1, ANSWERS)).astype(np.float32)


def plain_binary(logits):
    """-sum t log s + (1 - t) log(1 - s) over answers and over questions with a known answer, in float64."""
    total = 0.0
    for row in range(3):
        share = 1 / (1 + np.exp(-logits[row, 0].astype(np.float64)))
        soft = np.array([POINTS[row].get(answer, 0.0) for answer in range(ANSWERS)])
        total -= (soft * np.log(share) + (1 - soft) * np.log1p(-share)).sum()
    return total


@pytest.mark.parametrize("seed", range(3))
def test_binary_is_the_sum_of_binary_cross_entropies(seed):
    logits = logits_of(seed)
    found = measure(BINARY, batch_of(), logits)
    assert found["loss"][1] == 3
    np.testing.assert_allclose(found["loss"][0], plain_binary(logits), rtol=1e-6)


def test_binary_does_not_overflow():
    logits = logits_of(0, scale=1e4)
    loss = measure(BINARY, batch_of(), logits)["loss"][0]
    assert np.isfinite(loss) and loss > 0


def test_the_gradient_of_binary_is_what_differences_say():
    with jax.enable_x64(True):
        batch, logits = batch_of(), logits_of(3).astype(np.float64)
        gradient = jax.jit(jax.grad(lambda x: measure(BINARY, batch, x)["loss"][0]))(logits)
        assert gradient.dtype == jnp.float64
        for place in np.ndindex(logits.shape):
            step = np.zeros_like(logits)
            step[place] = 1e-5
            difference = (plain_binary(logits + step) - plain_binary(logits - step)) / 2e-5
            np.testing.assert_allclose(gradient[place], difference, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("objective", [SOFTMAX, BINARY])
def test_accuracy_is_the_points_of_what_is_said(objective):
    """Of all four questions, whichever loss: the one with unknown answers counts as wrong."""
    logits = np.full((ROWS, 1, ANSWERS), -1.0, np.float32)
    for row, said in enumerate([0, 6, 4, 1, 2, 4]):
        logits[row, 0, said] = 1.0
    found = measure(objective, batch_of(), logits)
    np.testing.assert_allclose(found["accuracy"], (0.3 + 0.3, 4), rtol=1e-6)


def test_softmax_learns_the_commonest_answer_whatever_others_said():
    logits, batch = logits_of(1), batch_of()
    found = measure(SOFTMAX, batch, logits)
    expected, _ = jax.jit(base.cross_entropy)(logits, batch.targets["answer"], batch.example_mask)
    assert found["loss"] == expected


def test_one_answer_alone_has_one_point():
    """Binary on a source without annotators is binary on one whose annotators all agree."""
    logits, whole = logits_of(2), [{answer: 1.0} for answer in COMMONEST[:3].tolist()] + POINTS[3:]
    agreed = batch_of(points=whole)
    alone = agreed.replace(targets={"answer": agreed.targets["answer"]})
    for name, sums in measure(BINARY, agreed, logits).items():
        assert sums == measure(BINARY, alone, logits)[name]


def test_padding_and_packing_change_nothing():
    """Three questions in rows of their own, and two in one row and one beside padding: the same sums, by a model."""
    given = targets()
    alone = [random_batch(seed, rows=1) for seed in range(3)]
    expected = {"loss": np.zeros(2), "accuracy": np.zeros(2)}
    for i, batch in enumerate(alone):
        own = batch.replace(targets={name: value[i : i + 1] for name, value in given.items()})
        for name, sums in measure(BINARY, own, run(own)[1]["vqa"]).items():
            expected[name] += np.asarray(sums)
    packed = pack([(batch, i // 2) for i, batch in enumerate(alone)], text_slot=7, num_patches=8, rows=2, slots=2)
    # The last example is padding, whatever its targets say.
    laid = {name: value[[0, 1, 2, 5]].reshape(2, 2, *value.shape[2:]) for name, value in given.items()}
    packed = packed.replace(targets=laid)
    assert np.asarray(packed.example_mask).tolist() == [[True, True], [True, False]]
    found = measure(BINARY, packed, run(packed)[1]["vqa"])
    for name, sums in expected.items():
        np.testing.assert_allclose(found[name], sums, rtol=1e-5, err_msg=name)


def test_probabilities_are_what_the_loss_makes_of_logits():
    logits = jnp.asarray(logits_of(0))
    binary = dataclasses.replace(Config(), objective_options={"vqa": {"loss": "binary"}})
    np.testing.assert_allclose(probabilities(logits, "vqa", binary), 1 / (1 + np.exp(-logits)), rtol=1e-6)
    np.testing.assert_allclose(probabilities(logits, "vqa", Config()).sum(-1), 1, rtol=1e-6)


def test_an_unknown_loss_is_refused():
    with pytest.raises(
        ConfigError, match=r"config\.objective_options\.vqa\.loss='soft': choose one of softmax, binary"
    ):
        build_objectives(Config(objective_options={"vqa": {"loss": "soft"}}), SPEC)
