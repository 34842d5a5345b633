"""Curves of deletion and insertion, and heads taken out, against models that are changed by hand."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx

from singlestream.explain.ablation import without_heads
from singlestream.explain.faithfulness import area, curves
from tests.explain.toy_questions import model_of, question


@pytest.mark.parametrize("by_itself", [False, True])
def test_curves_hide_and_show_tokens_by_their_relevance(by_itself):
    """Every point of both curves: a batch in which the tokens are hidden one after another."""
    asked, model = question("one"), model_of("one")
    relevance = np.array([[0.1, 0.9, 0.3, 0.3, -1, 0], [0.2, 0.1, 0.5, 7, 8, 9]], np.float32)
    order = [[1, 2, 3, 0, 5, 4], [2, 0, 1]]  # ties by their number; padding is left out
    graph, params = nnx.split(model)
    found = jax.jit(lambda p, q: curves(nnx.merge(graph, p), q, relevance, points=3, by_itself=by_itself))(
        params, asked
    )

    @jax.jit
    def probability(params, segments):
        model, image = nnx.merge(graph, params), dataclasses.replace(asked.batch.image, segments=segments)
        logits = model.heads["vqa"](model(asked.batch.replace(image=image)))[:, 0]
        said = jax.nn.sigmoid(logits) if by_itself else jax.nn.softmax(logits)
        return said[np.arange(2), asked.target]

    for point in range(4):
        left, shown = np.array(asked.batch.image.segments), np.zeros((2, 6), np.int32)
        for row, tokens in enumerate(order):
            gone = tokens[: round(len(tokens) * point / 3)]
            left[row, gone], shown[row, gone] = 0, 1
        np.testing.assert_allclose(found.deletion[:, point], probability(params, left), rtol=1e-5)
        np.testing.assert_allclose(found.insertion[:, point], probability(params, shown), rtol=1e-5)
    trapezia = np.trapezoid(np.asarray(found.deletion), dx=1 / 3, axis=-1)
    np.testing.assert_allclose(area(found.deletion), trapezia, rtol=1e-5)


# (attention weights, layer of them) -> the projection of heads' outputs in the model that reads them.
PLACES = {
    "one": {("self", 1): ("encoder.blocks.attention.out", 1)},
    "shared": {
        ("text", 1): ("text.blocks.attention.out", 1),
        ("text", 3): ("cross.text.attention.out", 1),
        ("image", 1): ("cross.image.attention.out", 0),
    },
    "paired": {
        ("text", 2): ("text.blocks.attention.out", 2),
        ("image", 1): ("image.blocks.attention.out", 1),
        ("text_to_image", 1): ("cross.text.attention.out", 1),
        ("image_to_text", 0): ("cross.image.attention.out", 0),
    },
}


@pytest.mark.parametrize("name", ["shared", pytest.param("paired", marks=pytest.mark.slow)])
def test_a_head_that_is_taken_out_gives_zeros(name):
    """The same logits as a model whose projection reads zeros from that head."""
    asked, model = question(name), model_of(name)
    graph, state = nnx.split(model)
    params = nnx.to_pure_dict(state)
    found = jax.jit(lambda p, q: without_heads(nnx.merge(graph, p), q))(params, asked)

    @jax.jit
    def logits(params):
        model = nnx.merge(graph, params)
        return model.heads["vqa"](model(asked.batch))[:, 0]

    for (weights, layer), (path, number) in PLACES[name].items():
        changed = jax.tree.map(lambda x: x, params)
        place = changed
        for key in path.split("."):
            place = place[key]
        kernel = np.array(place["kernel"])  # [layers, heads * size, D]
        heads = found[weights].shape[1]
        size = kernel.shape[1] // heads
        kernel[number, size : 2 * size] = 0  # head 1
        place["kernel"] = kernel
        np.testing.assert_allclose(found[weights][layer, 1], logits(changed), atol=1e-5)
        assert np.abs(found[weights][layer, 1] - found[weights][layer, 0]).max() > 1e-4
