"""The encoder-decoder's loss against numpy, its gradient against differences, and texts in rows of other layouts."""

from __future__ import annotations

import dataclasses
import functools

import jax
import numpy as np
import pytest
from flax import nnx

from singlestream.model.two_stream_config import TwoStreamConfig
from singlestream.objectives.total import total_loss
from tests.model.test_decoder import DECODER, decode, packed, texts_of
from tests.model.toy import CONFIG, SPEC, pack, random_batch

from .toy import KEY, build, check_slope, drawn, log_softmax


@functools.cache
def sums_fn(dtype="float32"):
    """The model, its parameters, and (parameters, batch) -> metrics."""
    config = dataclasses.replace(DECODER, dtype=dtype)
    objectives = build({"caption": 1.0}, model=config)
    graph, params = drawn(config, objectives["caption"].heads(config, SPEC))

    def sums(params, batch):
        model = nnx.merge(graph, params)
        return total_loss(model, objectives, batch, SPEC, KEY, {"caption": {}}, train=False)[0]

    return config, graph, params, jax.jit(sums)


def test_it_is_the_cross_entropy_of_every_next_token():
    """Texts side by side, one of them without a picture, one that does not count."""
    with jax.enable_x64(True):
        config, graph, params, sums = sums_fn("float64")
        batch = packed()
        batch = batch.replace(example_mask=batch.example_mask & [[True, False], [True, True]])
        image = jax.jit(lambda params, batch: nnx.merge(graph, params)(batch, direction="decoder").image)(params, batch)
        loss = hits = count = 0
        for row, words, patches in texts_of(batch):
            if row == 0 and 4 in words:
                continue  # the one that does not count
            ids = batch.text.ids[row, words]
            logits = decode(params, config, ids, np.asarray(image)[row, patches])[:-1]
            loss -= log_softmax(logits)[np.arange(len(ids) - 1), ids[1:]].sum()
            hits, count = hits + (logits.argmax(-1) == ids[1:]).sum(), count + len(ids) - 1
        found = sums(params, batch)
        np.testing.assert_allclose(found["caption/loss"], (loss, count), rtol=1e-6)
        np.testing.assert_array_equal(found["caption/accuracy"], (hits, count))


def test_the_gradient_is_that_of_differences():
    with jax.enable_x64(True):
        _, _, params, sums = sums_fn("float64")

        def loss(params):
            total, count = sums(params, packed())["caption/loss"]
            return total / count

        check_slope(loss, params)


@pytest.mark.parametrize("places", [(0, 0, 1, 1), (0, 1, 2, 2)])
def test_padding_and_packing_change_nothing(places):
    """The pictures' states, too, which the encoder makes in these rows."""
    _, _, params, sums = sums_fn()
    batches = [random_batch(seed, rows=1, text=3 + seed, grid=(1 + seed % 2, 3)) for seed in range(4)]
    alone = pack(list(zip(batches, range(4), strict=True)), text_slot=6, num_patches=6, rows=4, slots=1)
    together = pack(list(zip(batches, places, strict=True)), text_slot=8, num_patches=12, rows=3, slots=2)
    expected, found = sums(params, alone), sums(params, together)
    for name, pair in expected.items():
        np.testing.assert_allclose(found[name], pair, rtol=2e-5, err_msg=name)
    assert float(expected["caption/loss"][1]) == 2 + 3 + 4 + 5


def test_models_that_cannot_are_refused():
    for model in (CONFIG, TwoStreamConfig()):
        with pytest.raises(
            ValueError, match=r"config.objectives.caption: caption needs .* config.model.decoder_layers"
        ):
            build({"caption": 1.0}, model=model)
