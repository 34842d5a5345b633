"""What every kind of attention, direction, norm and position has to keep: one list, and tests that go through it.

A new kind is one more entry. What it costs is XLA's compile time: layers are scanned, there are no heads, parameters
are drawn in numpy, and few shapes serve all tests.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st

from singlestream.batch import Batch, Encoded, Text, make_batch
from singlestream.model.attention.config import AttentionConfig
from singlestream.model.config import ModelConfig
from singlestream.model.single_stream import SingleStream
from tests.model.combination_checks import check_slope
from tests.model.toy import CONFIG, SPEC, check_alone, padded_batch, random_batch, replace
from tests.objectives.toy import check_slope as check_differences

OLDER = {"text_encoder": "lstm", "text_layers": 1, "image_encoder": "cnn", "image_layers": 1}
TRANSFORMERS = {"text_encoder": "transformer", "text_layers": 1, "image_encoder": "transformer", "image_layers": 1}
# Changes of the toy model's settings, by a name for the test's report.
KINDS: dict[str, dict[str, Any]] = {
    "dot": {"attention": AttentionConfig(score="dot", qk_norm=True)},
    "cosine": {"attention": AttentionConfig(score="cosine", head_scale=True), "direction": "prefix"},
    "bilinear": {"attention": AttentionConfig(score="bilinear"), "norm": "sandwich"},
    "additive": {"attention": AttentionConfig(score="additive"), "text_positions": "periodic"},
    "bias": {"attention": AttentionConfig(relative="bias"), "direction": "causal"},
    "rope": {"attention": AttentionConfig(relative="rope", qk_norm=True), "norm": "sandwich", "direction": "prefix"},
    "hard": {"attention": AttentionConfig(selection="hard", relative="bias"), "direction": "causal"},
    "gumbel": {"attention": AttentionConfig(selection="gumbel", score="cosine"), "direction": "prefix"},
    "sampled": {"attention": AttentionConfig(selection="sampled"), "direction": "both"},
    "topk": {"attention": AttentionConfig(selection="topk", keep=0.4, relative="rope"), "direction": "causal"},
    "routed": {"attention": AttentionConfig(selection="routed", keep=1.0, block=2), "direction": "prefix"},
    "routed, all ways": {
        "attention": AttentionConfig(selection="routed", score="additive", relative="bias", keep=0.5, block=2),
        "image_cls": True,
    },
    "local": {"attention": AttentionConfig(selection="local", window=1), "direction": "prefix"},
    "scales": {"attention": AttentionConfig(selection="multi_scale", windows=(1, 0)), "image_cls": True},
    "grid": {"attention": AttentionConfig(selection="graph"), "direction": "causal"},
    "distance graph": {"attention": AttentionConfig(selection="graph", graph="distance", window=1)},
    "learned graph": {"attention": AttentionConfig(selection="graph", graph="learned")},
    "text_to_image": {"direction": "text_to_image", "pooling": "mean", "join": "product", "norm": "post"},
    "image_to_text": {"direction": "image_to_text", "pooling": "mean", "join": "sum"},
    "both": {"direction": "both", "channel_gate": 4, "join": "concat"},
    "hops": {"direction": "multi_hop", "hops": 2, "join": "film", **OLDER},
    "bottleneck": {"direction": "bottleneck", "bottlenecks": 2, "image_cls": True, "join": "dynamic", **TRANSFORMERS},
    "late": {"num_layers": 0, "direction": "prefix", "channel_gate": 4, "join": "gated", **OLDER},
}


def config_of(name: str, **changes: Any) -> ModelConfig:
    return replace(CONFIG, **{"layers": "scan", **KINDS[name], **changes})


@functools.cache
def _drawn(config: ModelConfig):
    """The definition of a model, and its parameters, drawn at random."""
    graph, state = nnx.split(nnx.eval_shape(lambda: SingleStream(config, SPEC, rngs=nnx.Rngs(0))))
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        return ((path[-1].key == "scale") + 0.3 * rng.normal(size=leaf.shape)).astype(leaf.dtype)

    return graph, jax.tree_util.tree_map_with_path(draw, nnx.to_pure_dict(state))


@functools.cache
def _jitted(config: ModelConfig):
    graph, params = _drawn(config)

    def run(params, batch: Batch) -> Encoded:
        return dataclasses.replace(nnx.merge(graph, params)(batch), hidden=None)

    return functools.partial(jax.jit(run), params)


def _run(batch: Batch, config: ModelConfig) -> tuple[Encoded, dict[str, np.ndarray]]:
    return jax.tree.map(np.asarray, _jitted(config)(batch)), {}


@pytest.mark.parametrize("name", KINDS)
@given(
    data=st.data(),
    sizes=st.lists(
        st.tuples(st.integers(2, 6), st.sampled_from([(1, 1), (2, 3), (3, 2), (1, 5)])), min_size=2, max_size=5
    ),
)
def test_an_examples_outputs_do_not_depend_on_its_batch(data, name, sizes):
    rows = data.draw(st.lists(st.integers(0, 1), min_size=len(sizes), max_size=len(sizes)))
    check_alone(config_of(name), sizes, rows, _run)


@pytest.mark.parametrize("name", [name for name in KINDS if not config_of(name).picture_reads_text])
def test_texts_that_share_a_picture_equal_texts_alone(name):
    one, two = random_batch(0, rows=1), random_batch(1, rows=1)
    ids = np.concatenate([one.text.ids, two.text.ids], axis=1)
    part = np.repeat(np.array([[1, 2]], np.int32), 5, axis=1)
    encoded, _ = _run(make_batch(text=Text(ids=ids, part=part, slots=2), image=one.image), config_of(name))
    for k, text in enumerate((one.text, two.text)):
        own, _ = _run(padded_batch(one.replace(text=text)), config_of(name))
        np.testing.assert_allclose(encoded.text[:, 5 * k : 5 * k + 5], own.text[:, :5], atol=1e-5)
        np.testing.assert_allclose(encoded.image, own.image, atol=1e-5)
        np.testing.assert_allclose(encoded.pooled[0, k], own.pooled[0, 0], atol=1e-5)


@pytest.mark.parametrize("name", KINDS)
def test_everything_learns_beside_a_row_of_padding(name):
    """Gradients are finite, and not 0 but where the page says so."""
    batch = random_batch(0)
    empty = {
        side: dataclasses.replace(tokens, segments=tokens.segments * np.array([[1], [0]], np.int32))
        for side, tokens in batch.inputs.items()
    }
    graph, params = _drawn(config_of(name))

    @jax.jit
    def gradients(params, batch):
        def loss(params):
            encoded = nnx.merge(graph, params)(batch)
            return sum(jnp.sin(x).sum() for x in (encoded.text, encoded.image, encoded.pooled))

        return jax.grad(loss)(params)

    check_slope(gradients(params, make_batch(**empty)), config_of(name))


ESTIMATES = ("hard", "gumbel", "sampled")  # these have the gradient of something else than their value


@pytest.mark.parametrize("name", [name for name in KINDS if name not in ESTIMATES])
def test_gradients_are_those_of_differences(name):
    """Of every parameter together, through all of the model: layers, masks, gates and join."""
    with jax.enable_x64(True):
        graph, params = _drawn(config_of(name, dtype="float64"))
        params = jax.tree.map(np.float64, params)
        batch = random_batch(0)

        def loss(params):
            encoded = nnx.merge(graph, params)(batch)
            return sum(jnp.sin(x).sum() for x in (encoded.text, encoded.image, encoded.pooled))

        check_differences(loss, params)


@pytest.mark.parametrize("dtype, layers", [("bfloat16", "scan"), ("float64", "unrolled")])
@pytest.mark.parametrize("name", KINDS)
def test_a_model_computes_in_its_dtype_with_noise_and_without(name, dtype, layers):
    """Traced, not run: a stack of scanned layers whose states change their type is refused there."""
    noise = {"dropout": 0.1, "attention_dropout": 0.1, "stochastic_depth": 0.1}
    config = config_of(name, dtype=dtype, layers=KINDS[name].get("layers", layers), **noise)
    with jax.enable_x64(dtype == "float64"):
        for key in (None, jax.random.key(0)):
            found = jax.eval_shape(
                lambda key=key: SingleStream(config, SPEC, rngs=nnx.Rngs(0))(random_batch(0), key=key)
            )
            assert found.text.shape == (2, 5, config.width) and found.image.shape == (2, 6, config.width)
            assert found.text.dtype == found.image.dtype == dtype
