"""Word-patch alignment against the algorithm of the paper, one example at a time."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from singlestream.batch import Regions, Text, make_batch
from singlestream.config import ConfigError, TwoStreamConfig
from singlestream.objectives.total import total_loss
from tests.model.toy import SPEC

from .toy import KEY, FakeModel, build, run, unit

WIDTH = 6
# Row, words without [CLS] and [SEP], and image tokens of the examples of `_batch` that count.
EXAMPLES = ((0, [1, 2], range(5)), (0, [5], range(5)), (1, [1], [0, 1]), (1, [4, 5, 6], [2, 3]))


def _ipot(cost, beta=0.5, iterations=50):
    """Xie et al. 2018, algorithm 1: the proximal point method with one Sinkhorn step an iteration."""
    words, seen = cost.shape
    sigma, plan, kernel = np.ones(words) / words, np.ones((seen, words)), np.exp(-cost.T / beta)
    for _ in range(iterations):
        q = kernel * plan
        delta = 1 / (seen * (q @ sigma))
        sigma = 1 / (words * (q.T @ delta))
        plan = delta[:, None] * q * sigma
    return plan.T


def _batch():
    """Two texts on one picture, two packed examples with padding, and an example without a picture."""
    ids = np.array([[2, 8, 9, 3, 2, 7, 3, 0], [2, 6, 3, 2, 9, 8, 5, 3], [2, 9, 3, 0, 0, 0, 0, 0]], np.int32)
    segments = np.array([[1] * 7 + [0], [1, 1, 1, 2, 2, 2, 2, 2], [1, 1, 1, 0, 0, 0, 0, 0]], np.int32)
    part = np.array([[1] * 4 + [2] * 3 + [0], [0] * 8, [0] * 8], np.int32)
    image = np.array([[1] * 5, [1, 1, 2, 2, 0], [0] * 5], np.int32)
    return make_batch(
        text=Text(ids=ids, segments=segments, part=part),
        image=Regions(features=np.zeros((3, 5, 2), np.float32), segments=image),
    )


@pytest.mark.parametrize("options", [{}, {"beta": 0.3, "iterations": 7}])
def test_it_is_the_cost_of_the_plan_of_each_example(options):
    rng = np.random.default_rng(0)
    text, image = (rng.normal(size=(3, size, WIDTH)).astype(np.float32) for size in (8, 5))
    metrics, _ = run(build({"wpa": 0.1}, wpa=options), _batch(), FakeModel(text=text, image=image))
    expected = 0.0
    for row, words, seen in EXAMPLES:
        cost = 1 - unit(text[row, words].astype(float)) @ unit(image[row, list(seen)].astype(float)).T
        plan = _ipot(cost, **options)
        np.testing.assert_allclose(plan.sum(1), 1 / len(words), rtol=1e-6)  # the last scaling is exact
        expected += (plan * cost).sum()
    np.testing.assert_allclose(metrics["wpa/loss"], (expected, 4), rtol=1e-6)


def test_streams_of_other_widths_are_refused():
    narrow = TwoStreamConfig.named("vilbert_tiny", image_width=48)
    with pytest.raises(ConfigError, match=r"config.objectives.wpa: .* config.model.image_width=48 must be equal"):
        build({"wpa": 0.1}, model=narrow, spec=SPEC)
    build({"wpa": 0.1}, model=TwoStreamConfig.named("lxmert_tiny"))


def test_the_gradient_is_that_of_the_cost_with_the_plan_fixed():
    rng = np.random.default_rng(1)
    batch, objectives = _batch(), build({"wpa": 0.1})
    text, image = (rng.normal(size=(3, size, WIDTH)) for size in (8, 5))

    def loss(text, image):
        metrics, _ = total_loss(
            FakeModel(text=text, image=image), objectives, batch, SPEC, KEY, {"wpa": {}}, train=False
        )
        return metrics["wpa/loss"][0]

    with jax.enable_x64(True):
        gradients = jax.device_get(jax.jit(jax.grad(loss, argnums=(0, 1)))(text, image))
    along, step = [rng.normal(size=x.shape) for x in (text, image)], 1e-6

    def cost(row, words, seen, by):
        moved = [x + by * way for x, way in zip((text, image), along, strict=True)]
        return 1 - unit(moved[0][row, words]) @ unit(moved[1][row, list(seen)]).T

    expected = sum(
        (_ipot(cost(*example, 0)) * (cost(*example, step) - cost(*example, -step))).sum() / (2 * step)
        for example in EXAMPLES
    )
    np.testing.assert_allclose(
        sum((g * way).sum() for g, way in zip(gradients, along, strict=True)), expected, rtol=1e-6
    )
