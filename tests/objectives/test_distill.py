"""Distillation from the moving average: the KL divergences of ALBEF's equations 6 and 7, and their ramp."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from singlestream.config import ConfigError
from singlestream.objectives.mlm import Options as MlmOptions
from singlestream.objectives.mlm import mask_tokens
from singlestream.objectives.total import loss_weights
from tests.model.toy import SPEC, random_batch

from .test_itc import TAU, _vectors
from .test_itc import _batch as contrast_batch
from .test_itc import _model as contrast_model
from .toy import KEY, FakeModel, build, log_softmax, run


def _divergence(wanted, found):
    wanted, found = log_softmax(wanted), log_softmax(found)
    return (np.exp(wanted) * (wanted - found)).sum(-1)


def test_words_and_answers():
    rng = np.random.default_rng(0)
    batch = random_batch(0, rows=3, text=8, targets={"answer": np.array([[2], [-1], [5]], np.int32)})
    student, teacher = (
        {
            "mlm": rng.normal(size=(3, 8, SPEC.vocab_size)).astype(np.float32),
            "vqa": rng.normal(size=(3, 1, 7)).astype("f"),
        }
        for _ in range(2)
    )
    objectives = build(
        {"mlm": 1.0, "vqa": 1.0, "distill": 0.4},
        distill={"heads": ("mlm", "vqa")},
        mlm={"rate": 0.4},
        ema_decay=0.9,
    )
    mine, theirs = FakeModel(**student), FakeModel(**teacher)
    metrics, _ = run(objectives, batch, mine, teacher=theirs, train=True)
    key = jax.random.fold_in(jax.random.split(KEY)[1], 1)  # of `mlm`, the second by name
    masked, chosen = mask_tokens(batch, SPEC, key, MlmOptions(rate=0.4))
    expected = _divergence(teacher["mlm"], student["mlm"])[np.asarray(chosen)]
    np.testing.assert_allclose(metrics["distill/mlm_loss"], (expected.sum(), chosen.sum()), rtol=1e-6)
    expected = _divergence(teacher["vqa"], student["vqa"])[[0, 2], 0]
    np.testing.assert_allclose(metrics["distill/vqa_loss"], (expected.sum(), 2), rtol=1e-6)
    assert len(mine.calls) == len(theirs.calls) == 2  # nothing is encoded for the distillation alone
    assert all(key is None for _, key in theirs.calls) and all(key is not None for _, key in mine.calls)
    np.testing.assert_array_equal(theirs.calls[0][0].text.ids, masked.text.ids)


def _logits(own, candidates, before, i, query, key):
    """Of the right one and of those with another picture; a picture is one candidate, whatever its texts."""
    wrong = [c for c in [*candidates, *before] if c[2] != own[2]]
    wrong = {c[3]: c for c in wrong}.values() if key == 1 else wrong
    return np.array([own[query] @ each for each in (candidates[i][key], *(c[key] for c in wrong))]) / TAU


@pytest.mark.parametrize("queue", [0, 6])
def test_contrast(queue):
    """Softmax over the right candidate and the true negatives, of student and teacher; with a queue both read it."""
    objectives = build(
        {"itc": 1.0, "distill": 0.4}, distill={"heads": ("itc",)}, itc={"queue": queue, "size": 5}, ema_decay=0.9
    )
    student, teacher, earlier = (contrast_model(seed) for seed in range(3))
    teacher.heads["itc_scale"] = lambda encoded: np.zeros((4, 2, 1), np.float32)  # the student's temperature counts
    state = None
    if queue:
        _, state = run(objectives, contrast_batch(), student, teacher=earlier)
    metrics, _ = run(objectives, contrast_batch(), student, teacher=teacher, state=state)
    mine, theirs = _vectors(student), _vectors(teacher)
    before = [(*vectors, (9, *place)) for *vectors, place in _vectors(earlier)] if queue else []
    total = 0.0
    for i, query, key in [(i, *sides) for i in range(len(mine)) for sides in ((0, 1), (1, 0))]:
        wanted = _logits(theirs[i], theirs, before, i, query, key)
        total += _divergence(wanted, _logits(mine[i], theirs if queue else mine, before, i, query, key)) / 2
    np.testing.assert_allclose(metrics["distill/itc_loss"], (total, 6), rtol=1e-6)


def test_the_weight_moves_from_the_task_with_the_examples_seen():
    """(1 - a) task + a KL, a from 0 to 0.4 (ALBEF's Pretrain.py, of its first epoch)."""
    weights = {"itc": 0.6, "distill": 0.4}
    objectives = build(weights, distill={"heads": ("itc",), "ramp": 14}, itc={"size": 5}, ema_decay=0.9)
    batch, state, found, totals = contrast_batch(), None, [], []
    for _ in range(4):
        metrics, state = run(objectives, batch, contrast_model(0), teacher=contrast_model(1), state=state)
        found.append(metrics)
        terms = loss_weights(objectives, weights).items()
        totals.append(sum(weight * metrics[name][0] / metrics[name][1] for name, weight in terms))
    task, divergence = (found[-1][name][0] / found[-1][name][1] for name in ("itc/loss", "distill/itc_loss"))
    a = 0.4 * np.minimum(1, batch.example_mask.sum() * np.arange(4) / 14)
    assert 0 < a[1] < a[2] == a[3] == 0.4
    np.testing.assert_allclose(totals, (1 - a) * task + a * divergence, rtol=1e-6)


def test_mistakes_in_the_settings_are_named():
    both = {"itc": 1.0, "mlm": 1.0, "distill": 0.4}
    for objectives, decay, options, message in (
        (both, 0.0, {}, "config.objectives.distill needs a moving average .* set config.train.ema_decay"),
        ({"itc": 1.0, "distill": 0.4}, 0.9, {}, "config.objectives.distill needs config.objectives.mlm above 0"),
        (both, 0.9, {"distill": {"heads": ("itm",)}}, "distill.heads: 'itm', choose of itc, mlm, vqa"),
        (
            {"vqa": 1.0, "distill": 0.4},
            0.9,
            {"distill": {"heads": ("vqa",)}, "vqa": {"loss": "binary"}},
            "config.objective_options.vqa.loss='binary': distill compares distributions",
        ),
    ):
        with pytest.raises(ConfigError, match=message):
            build(objectives, ema_decay=decay, **options)
