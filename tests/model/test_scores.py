"""Each score against its definition, one query and key at a time, and what may multiply or normalise it."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from singlestream.model.attention.config import AttentionConfig
from singlestream.model.attention.module import Attention
from singlestream.model.attention.names import file_names
from singlestream.model.visibility import Visibility
from tests.model.test_two_stream import PAIRED, SHARED, WORDS, example, pack, toy_model

ROWS, HEADS, QUERIES, LENGTH, SIZE = 2, 3, 4, 5, 8


def cosine(q, k, head, params):
    scale = min(np.exp(params["log_scale"][head]), 100)
    return scale * (q @ k) / np.sqrt(q @ q) / np.sqrt(k @ k)


def additive(q, k, head, params):
    asks, offers = (params["kernel"][:, i, head] for i in range(2))
    return params["readout"][head] @ np.tanh(asks.T @ q + offers.T @ k)


DEFINITIONS = {
    "dot": lambda q, k, head, params: q @ k,
    "scaled_dot": lambda q, k, head, params: q @ k / np.sqrt(SIZE),
    "bilinear": lambda q, k, head, params: q @ params["kernel"][:, head] @ k / np.sqrt(SIZE),
    "additive": additive,
    "cosine": cosine,
}


def drawn(config: AttentionConfig, dtype: str = "float64"):
    """Attention of a kind, its parameters in numpy, moved off their start, and queries and keys [B, L, H, C]."""
    module = Attention(config, HEADS, SIZE, rate=0.0, dtype=jnp.dtype(dtype), rngs=nnx.Rngs(0))
    graph, state = nnx.split(module)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: np.asarray(x) + 0.5 * rng.normal(size=x.shape), nnx.to_pure_dict(state))
    q, k, v = (rng.normal(size=(ROWS, n, HEADS, SIZE)) for n in (QUERIES, LENGTH, LENGTH))
    return graph, params, (q, k, v)


def visible() -> Visibility:
    """Queries over keys, two words and patches of one picture each, some of which are padding."""

    def tokens(segments: list[list[int]]) -> Visibility:
        number = np.broadcast_to(np.arange(len(segments[0]), dtype=np.int32), (ROWS, len(segments[0])))
        patch = (number > 1).astype(np.int32)
        where = np.where(patch[..., None], np.stack([0 * number, number, 5 - number], axis=-1), -1)
        known = {"part": 0 * number, "modality": patch, "place": number, "where": where.astype(np.int32)}
        return Visibility(segments=np.array(segments, np.int32), **known)

    return tokens([[1] * QUERIES] * ROWS).towards(tokens([[1, 1, 1, 1, 0], [1, 1, 0, 1, 1]]))


def loops(score, params, q, k):
    expected = np.zeros((ROWS, HEADS, q.shape[1], k.shape[1]))
    for b, h, i, j in np.ndindex(expected.shape):
        expected[b, h, i, j] = score(q[b, i, h], k[b, j, h], h, params)
    return expected


@pytest.mark.parametrize("name", file_names("scores"))
def test_a_score_is_its_definition(name):
    with jax.enable_x64(True):
        graph, params, (q, k, _) = drawn(AttentionConfig(score=name))
        found = nnx.merge(graph, params).scores(q.swapaxes(1, 2), k.swapaxes(1, 2), visible())
        np.testing.assert_allclose(found, loops(DEFINITIONS[name], params.get("score"), q, k), atol=1e-6)


def layer_norm(x, params):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * params["scale"] + params["bias"]


def test_head_scale_and_qk_norm_are_their_definitions():
    """The weights by hand: normed queries and keys, scores times each head's factor, softmax over what is seen."""
    with jax.enable_x64(True):
        graph, params, (q, k, v) = drawn(AttentionConfig(head_scale=True, qk_norm=True))
        out, weights = nnx.merge(graph, params)(q, k, v, visible(), weights=True)
        scores = loops(
            DEFINITIONS["scaled_dot"], None, layer_norm(q, params["q_norm"]), layer_norm(k, params["k_norm"])
        )
        exps = np.exp(scores * params["head_scale"][:, None, None]) * np.asarray(visible().mask())[:, None]
        expected = exps / exps.sum(-1, keepdims=True)
        np.testing.assert_allclose(weights, expected, atol=1e-6)
        np.testing.assert_allclose(out, np.einsum("bhqk,bkhc->bqhc", expected, v), atol=1e-6)


@pytest.mark.parametrize(
    "config",
    [
        *(AttentionConfig(score=name) for name in file_names("scores")),
        AttentionConfig(relative="bias", head_scale=True, qk_norm=True),
        AttentionConfig(relative="rope", score="cosine"),
    ],
    ids=lambda config: f"{config.score}-{config.relative}",
)
def test_gradients_are_those_by_differences(config):
    """Of a function of the output, for queries, keys, values and every parameter, along two directions each."""
    with jax.enable_x64(True):
        graph, params, inputs = drawn(config)
        given, sees = (params, inputs), visible()

        @jax.jit
        def loss(given):
            params, inputs = given
            return jnp.sin(nnx.merge(graph, params)(*inputs, sees)[0]).sum()

        gradient = jax.jit(jax.grad(loss))(given)
        leaves, tree = jax.tree.flatten(given)
        rng = np.random.default_rng(1)
        for number, (leaf, slope) in enumerate(zip(leaves, jax.tree.leaves(gradient), strict=True)):
            for _ in range(2):
                step = 1e-5 * rng.normal(size=leaf.shape)
                up, down = (
                    loss(jax.tree.unflatten(tree, [*leaves[:number], leaf + sign * step, *leaves[number + 1 :]]))
                    for sign in (1, -1)
                )
                np.testing.assert_allclose((slope * step).sum(), (up - down) / 2, rtol=1e-5, atol=1e-12)


def test_a_temperature_has_a_bound_and_a_vector_of_zeros_no_direction():
    graph, params, (q, k, v) = drawn(AttentionConfig(score="cosine"), "float32")
    params["score"]["log_scale"] = np.full(HEADS, 9.0, np.float32)
    q = q.astype(np.float32).swapaxes(1, 2)
    module = nnx.merge(graph, params)
    np.testing.assert_allclose(module.score(q, q)[:, :, 0, 0], 100, rtol=1e-5)
    np.testing.assert_array_equal(module.score(q, 0 * q), np.zeros((ROWS, HEADS, QUERIES, QUERIES)))
    assert not np.asarray(jax.grad(lambda k: module.score(q, k).sum())(0 * q)).any()


def test_fresh_parameters_leave_the_scaled_dot_product_as_it_is():
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(ROWS, n, HEADS, SIZE)).astype(np.float32) for n in (QUERIES, LENGTH, LENGTH))

    def weights(**settings):
        sizes = {"rate": 0.0, "dtype": jnp.dtype("float32"), "rngs": nnx.Rngs(0)}
        module = Attention(AttentionConfig(**settings), HEADS, SIZE, **sizes)
        return module(q, k, v, visible(), weights=True)[1]

    for settings in ({"head_scale": True}, {"score": "bilinear"}):
        np.testing.assert_allclose(weights(**settings), weights(), atol=1e-6)


ONE_LAYER = {"num_layers": 1, "image_layers": 1, "cross_after_image": (1,)}


@pytest.mark.parametrize(
    "design, score",
    [*((SHARED, score) for score in ("additive", "bilinear", "cosine", "dot")), (PAIRED, "additive")],
    ids=["additive", "bilinear", "cosine", "dot", "paired"],
)
def test_two_streams_take_every_score(design, score):
    """Beside another example or alone in its row: the same. And the picture is read."""
    attention = AttentionConfig(score=score, head_scale=True, qk_norm=True, relative="bias")
    config = dataclasses.replace(design, **ONE_LAYER, cross_after_text=(1,), attention=attention)
    one, other = example(0, 4, 3), example(1, 6, 2)
    graph, params = nnx.split(toy_model(config))
    text = jax.jit(lambda params, batch: nnx.merge(graph, params)(batch).text)
    found = text(params, pack([other, one, one], 2, 2, [(0, 0), (0, 1), (1, 0)]))
    np.testing.assert_allclose(found[0, WORDS : WORDS + 4], found[1, :4], atol=1e-5)
    changed = text(params, pack([other, one, (one[0], other[1])], 2, 2, [(0, 0), (0, 1), (1, 0)]))
    assert np.abs(changed[1, :4] - found[1, :4]).max() > 1e-3
