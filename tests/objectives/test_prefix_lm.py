"""Captioning's loss against numpy, its gradient against differences, and texts in rows of other layouts."""

from __future__ import annotations

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from singlestream.batch import Encoded, Text, make_batch
from singlestream.model.attention.config import AttentionConfig
from singlestream.model.pruning.config import PruningConfig
from singlestream.model.two_stream_config import TwoStreamConfig
from singlestream.objectives.total import total_loss
from tests.model.toy import CONFIG, SPEC, pack, random_batch

from .toy import KEY, build, check_slope, drawn, log_softmax

MODEL = dataclasses.replace(CONFIG, direction="full")


@functools.cache
def sums_fn(dtype="float32"):
    """The parameters, and (parameters, batch) -> metrics of the real model."""
    config = dataclasses.replace(MODEL, dtype=dtype)
    objectives = build({"prefix_lm": 1.0}, model=config)
    heads = objectives["prefix_lm"].heads(config, SPEC)
    graph, params = drawn(config, heads)
    state = {"prefix_lm": {}}

    def sums(params, batch):
        return total_loss(nnx.merge(graph, params), objectives, batch, SPEC, KEY, state, train=False)[0]

    return params, jax.jit(sums)


def test_it_is_the_cross_entropy_of_every_next_token():
    """Two texts in one row and one in another, whose example does not count; padding between and behind."""
    rng = np.random.default_rng(0)
    ids = rng.integers(5, SPEC.vocab_size, (2, 8)).astype(np.int32)
    segments = np.array([[1, 1, 1, 0, 2, 2, 2, 2], [1, 1, 1, 1, 1, 0, 0, 0]], np.int32)
    image = random_batch(0).image
    batch = make_batch(text=Text(ids=ids, segments=segments), image=image)
    batch = batch.replace(example_mask=np.array([[True, True], [False, False]]))
    logits = rng.normal(size=(2, 8, SPEC.vocab_size)).astype(np.float32)

    class Fake:
        heads = {"prefix_lm": lambda encoded: jnp.asarray(logits)}

        def __call__(self, batch, *, key=None, direction=None):
            assert direction == "causal"
            none = np.zeros((1, 1, 1), np.float32)
            return Encoded(text=none, image=none, pooled=none)

    objectives = build({"prefix_lm": 1.0})
    metrics, _ = total_loss(Fake(), objectives, batch, SPEC, KEY, {"prefix_lm": {}}, train=False)
    steps = [(0, 0), (0, 1), (0, 4), (0, 5), (0, 6)]  # the columns from which a next token is predicted
    wanted = -sum(log_softmax(logits)[row, column, ids[row, column + 1]] for row, column in steps)
    total, count = metrics["prefix_lm/loss"]
    assert float(total) == pytest.approx(wanted, rel=1e-6) and float(count) == len(steps)
    hits = sum(logits[row, column].argmax() == ids[row, column + 1] for row, column in steps)
    assert float(metrics["prefix_lm/accuracy"][0]) == hits


def test_no_word_knows_what_comes_after_it():
    """Another last word changes the loss of that word alone, though the model's own direction is `full`."""
    params, sums = sums_fn()
    batch = random_batch(3, rows=1, text=5)
    short = dataclasses.replace(batch.text, segments=np.array([[1, 1, 1, 1, 0]], np.int32))
    before = sums(params, make_batch(text=short, image=batch.image))["prefix_lm/loss"]
    totals = []
    for last in (7, 8):
        ids = batch.text.ids.copy()
        ids[0, 4] = last
        totals.append(sums(params, make_batch(text=Text(ids=ids), image=batch.image))["prefix_lm/loss"])
    logits_of = [float(total) - float(before[0]) for total, _ in totals]
    assert logits_of[0] != logits_of[1] and min(logits_of) > 0
    assert float(before[1]) == 3 and all(float(count) == 4 for _, count in totals)


@pytest.mark.parametrize("places", [(0, 0, 1, 1), (0, 1, 2, 2)])
def test_padding_and_packing_change_nothing(places):
    params, sums = sums_fn()
    batches = [random_batch(seed, rows=1, text=2 + seed, grid=(1 + seed % 2, 3)) for seed in range(4)]
    alone = pack(list(zip(batches, range(4), strict=True)), text_slot=5, num_patches=6, rows=4, slots=1)
    packed = pack(list(zip(batches, places, strict=True)), text_slot=8, num_patches=12, rows=3, slots=2)
    expected, found = sums(params, alone), sums(params, packed)
    for name, pair in expected.items():
        np.testing.assert_allclose(found[name], pair, rtol=2e-5, err_msg=name)
    assert float(expected["prefix_lm/loss"][1]) == 1 + 2 + 3 + 4


def test_the_gradient_is_that_of_differences():
    with jax.enable_x64(True):
        params, sums = sums_fn("float64")
        batch = random_batch(1, rows=2)

        def loss(params):
            total, count = sums(params, batch)["prefix_lm/loss"]
            return total / count

        check_slope(loss, params)


def test_models_that_cannot_are_refused():
    with pytest.raises(ValueError, match="config.objectives.prefix_lm: prefix_lm needs a single stream"):
        build({"prefix_lm": 1.0}, model=TwoStreamConfig())


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"pruning": PruningConfig(keep=0.5)}, "pruning does not go with direction='causal'"),
        ({"text_encoder": "lstm", "text_layers": 1}, "text_encoder='lstm' does not go with direction='causal'"),
        ({"channel_gate": 1}, "channel_gate=1, which looks at a text as a whole"),
    ],
)
def test_settings_that_read_a_text_as_a_whole_are_refused(settings, why):
    config = dataclasses.replace(MODEL, **settings)
    with pytest.raises(ValueError, match=f"config.objectives.prefix_lm: .*{re.escape(why)}"):
        build({"prefix_lm": 1.0}, model=config)


def test_a_text_that_is_written_has_no_edges():
    config = dataclasses.replace(MODEL, attention=AttentionConfig(selection="graph", graph="edges"))
    with pytest.raises(ValueError, match="written word by word has no edges yet"):
        build({"prefix_lm": 1.0}, model=config, data={"max_edges": 9})
