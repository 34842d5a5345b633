"""What has to hold of a combination that is not refused: it builds, is traced, and takes a step."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from singlestream.batch import Batch, Regions, make_batch
from singlestream.model.attention.config import AttentionConfig
from singlestream.model.block import Block
from singlestream.model.config import ModelConfig
from singlestream.model.encoder import Encoder
from singlestream.model.single_stream import SingleStream
from singlestream.model.two_stream_config import TwoStreamConfig
from singlestream.model.visibility import Visibility
from tests.model.combinations import LENGTH, SIZES, WORDS, config_of
from tests.model.toy import SPEC, random_batch
from tests.objectives.toy import drawn


@functools.cache
def batch_of(stem: str, num_image: int) -> Batch:
    """Two rows of words and patches or regions, with an edge between words and one between places."""
    batch = random_batch(0, text=WORDS, grid=(2, num_image // 2), window=ModelConfig().window)
    edges = {"edges": np.array([[[0, 2], [5, 7]]] * 2, np.int32)}
    if stem != "regions":
        return batch.replace(targets=edges)
    rng = np.random.default_rng(0)
    corners = np.sort(rng.uniform(size=(2, num_image, 2, 2)), axis=2).reshape(2, num_image, 4).astype(np.float32)
    features = rng.normal(size=(2, num_image, SIZES["region_dim"])).astype(np.float32)
    return make_batch(text=batch.text, image=Regions(features=features, boxes=corners), targets=edges)


def batch_for(config: ModelConfig) -> Batch:
    return batch_of(config.image_stem, LENGTH - WORDS - config.bottlenecks)


def check_embedding(config: ModelConfig) -> None:
    """The stream is, but for its numbers, the same whatever the positions."""
    batch = batch_for(config)
    model = nnx.eval_shape(lambda: SingleStream(config, SPEC, rngs=nnx.Rngs(0)).embed)
    stream = nnx.eval_shape(lambda model: model(batch), model)
    assert (stream.x.shape, stream.x.dtype) == ((2, LENGTH, config.width), jnp.float32)
    assert all(x.shape == (2, LENGTH) for x in (stream.segments, stream.part, stream.modality))


@functools.cache
def _layers(attention: AttentionConfig) -> tuple[Any, Any]:
    """Definition and parameters, as shapes, of two layers: they are the same in every direction."""
    config = ModelConfig(**SIZES, num_layers=2, attention=attention, layers="scan")
    return nnx.split(nnx.eval_shape(lambda: Encoder(config, rngs=nnx.Rngs(0))))


@functools.cache
def _sees(direction: str, stem: str, edges: bool) -> Visibility:
    positions = "boxes" if stem == "regions" else "learned"
    config = config_of({"direction": direction, "image": (stem, positions)})
    model, batch = SingleStream(config, SPEC, rngs=nnx.Rngs(0)), batch_for(config)
    sees = model.sees(batch, model.embed(batch))
    return dataclasses.replace(sees, edges=batch.targets["edges"] if edges else None)


def check_stack(config: ModelConfig) -> None:
    """The layers over a stream: their states and weights have the shapes that they should."""
    attention = config.attention
    graph, params = _layers(attention)
    sees = _sees(config.direction, config.image_stem, attention.reads_edges)
    x = jax.ShapeDtypeStruct((2, LENGTH, config.width), jnp.float32)

    def run(params: Any, x: Any, sees: Visibility) -> Any:
        return nnx.merge(graph, params)(x, sees, attention=True)

    states, hidden, weights = jax.eval_shape(run, params, x, sees)
    assert (states.shape, states.dtype) == (x.shape, x.dtype)
    assert hidden.shape == (2, *x.shape)
    assert weights.shape == (2, 2, config.num_heads, LENGTH, LENGTH)


def check_norm(config: ModelConfig) -> None:
    """What a layer does before and after attention gives the states back in the shape and dtype that they had."""
    x = jax.ShapeDtypeStruct((2, LENGTH, config.width), jnp.float32)

    def run(x: Any) -> list[Any]:
        layer = Block(config, rngs=nnx.Rngs(0))
        before = layer.before(x, layer.attention_norm)
        rate = jnp.zeros(())
        after = layer.after(x, before, layer.attention_norm, layer.attention_out_norm, rate, [None, None])
        return [before, after, layer.mlp(layer.before(after, layer.mlp_norm))]

    assert all((each.shape, each.dtype) == (x.shape, x.dtype) for each in jax.eval_shape(run, x))


def check_model(config: ModelConfig) -> None:
    """The whole model, trained and asked for attention weights."""
    batch = batch_for(config)
    encoded = nnx.eval_shape(
        lambda: SingleStream(config, SPEC, rngs=nnx.Rngs(0))(batch, key=jax.random.key(0), attention=True)
    )
    assert encoded.text.shape == (2, WORDS, config.width)
    assert encoded.image.shape == (2, LENGTH - WORDS - config.bottlenecks, config.width)
    assert encoded.pooled.shape == (2, 1, config.width)
    assert encoded.attention["self"].shape == (config.num_layers, 2, config.num_heads, LENGTH, LENGTH)


def check_step(config: ModelConfig) -> None:
    """One step of plain gradient descent: what is finite stays so, and everything learns that can.

    Eagerly: combinations share shapes, so that an operation is compiled for the first that has it, and a step takes
    0.3 s where a program of its own takes 2.
    """
    step(config, batch_for(config))


def step(config: ModelConfig | TwoStreamConfig, batch: Batch) -> None:
    graph, params = drawn(config, {})

    def loss(params: Any) -> Any:
        encoded = nnx.merge(graph, params)(batch, key=jax.random.key(0), attention=True)
        return sum(jnp.sin(x).sum() for x in (encoded.text, encoded.image, encoded.pooled))

    before, slope = jax.value_and_grad(loss)(params)
    after = loss(jax.tree.map(lambda p, g: p - np.float32(1e-3) * np.asarray(g), params, slope))
    assert np.isfinite(before) and np.isfinite(after) and before != after
    check_slope(slope, config)


def check_slope(slope: Any, config: ModelConfig | TwoStreamConfig) -> None:
    """Gradients are finite, and of what can learn they are not 0, but for the 1e-5 that rounding leaves."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(slope):
        at = jax.tree_util.keystr(path, simple=True, separator=".")
        assert np.isfinite(leaf).all(), at
        assert (np.abs(leaf).max() > 1e-5) == learns(at, config), at


def learns(path: str, config: ModelConfig | TwoStreamConfig) -> bool:
    """Whether a parameter gets a gradient (docs/attention.md, "What goes together")."""
    place, of_scores, name = path.partition(".attend.")
    if not of_scores:
        return True
    attention = config.attention
    if isinstance(config, TwoStreamConfig):  # in which words alone have a distance
        of_words = ("text.blocks.attention", "cross.text.attention" if config.cross == "shared" else "")
        attention = attention if place in of_words else dataclasses.replace(attention, relative="none")
    if attention.selection == "sampled":  # whose scores learn by `reinforce` alone
        return False
    # All keys moved by one vector move all scores of a query by one number, which its softmax does not see.
    moves_all = attention.score in ("dot", "scaled_dot", "bilinear") and attention.relative != "rope"
    moves_all &= attention.graph != "learned"  # whose edges that moves, too
    return not (name == "k_norm.bias" and moves_all)
