"""Texts continued from a cache against the whole stream, or decoder, computed anew for every token."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from singlestream.batch import Batch, Regions, Text, make_batch
from singlestream.model.attention.config import AttentionConfig
from singlestream.model.cached_decoder import CachedDecoder
from singlestream.model.caching import CachedText
from singlestream.model.config import ModelConfig
from singlestream.model.decoding import beam_search, greedy
from singlestream.model.single_stream import SingleStream

from .toy import CONFIG, random_batch, replace, toy_model

LENGTH, START, END = 7, 2, 3
REGIONS = dict(image_stem="regions", region_dim=6, num_images=1, norm="post", text_norm=True, pooler=True)
BIAS, ROPE = (AttentionConfig(relative=name) for name in ("bias", "rope"))  # which have to know who is kept
CONFIGS = {
    "pre_ln": replace(CONFIG, num_images=1, direction="causal"),
    "cnn": replace(CONFIG, num_images=1, direction="bottleneck", bottlenecks=2, image_encoder="cnn", image_layers=1),
    "post_ln": replace(CONFIG, **REGIONS, image_norm="each", image_positions="boxes7", modality="token_types"),
    "class_token": replace(CONFIG, num_images=1, image_cls=True, modality="pictures", attention=BIAS),
    "decoder": replace(CONFIG, num_images=1, decoder_layers=2, attention=ROPE, norm="sandwich"),
}


def pictures(config: ModelConfig, rows: int = 3, length: int = LENGTH) -> Batch:
    """Rows with a picture each, some of it padding, and room for a text."""
    image = random_batch(0, rows=rows).image
    if config.image_stem == "regions":
        features = np.random.default_rng(0).normal(size=(rows, 6, 6)).astype(np.float32)
        image = Regions(features=features)
    segments = np.ones((rows, 6), np.int32)
    segments[0, 4:] = 0
    image = dataclasses.replace(image, segments=segments, part=None, index=None)
    ids = np.zeros((rows, length + 1), np.int32)
    first = np.zeros_like(ids)
    first[:, 0] = 1
    return make_batch(text=Text(ids=ids, segments=first), image=image)


def cached(model: SingleStream) -> CachedText | CachedDecoder:
    return CachedDecoder(model, "caption") if model.config.decoder_layers else CachedText(model, "mlm")


@functools.cache
def written(name: str, num_beams: int = 0):
    """Tokens by the cached model."""
    graph, params = nnx.split(toy_model(CONFIGS[name]))

    def run(params, batch):
        text = cached(nnx.merge(graph, params))
        start = jnp.full(batch.text.ids.shape[0], START, jnp.int32)
        search = functools.partial(beam_search, num_beams=num_beams) if num_beams else greedy
        return search(text.next_token, text.start(batch), start, length=LENGTH, end_id=END)

    return jax.jit(run)(params, pictures(CONFIGS[name]))


def whole(model: SingleStream, batch: Batch):
    """Logits after each token of a batch that is read at once."""
    graph, params = nnx.split(model)

    @jax.jit
    def run(params, batch):
        model = nnx.merge(graph, params)
        head, direction = ("caption", "decoder") if model.config.decoder_layers else ("mlm", "causal")
        return model.heads[head](model(batch, direction=direction))

    return run(params, batch)


@pytest.mark.parametrize("name", CONFIGS)
def test_greedy_tokens_are_those_of_the_whole_stream(name):
    """What was written, read at once: each token is the likeliest after those before it; logits agree to 1e-5."""
    found = written(name)
    batch = pictures(CONFIGS[name])
    ids = np.concatenate([np.full((3, 1), START), found.tokens], axis=1).astype(np.int32)
    before_end = np.cumsum(ids == END, axis=1) - (ids == END) == 0
    text = dataclasses.replace(batch.text, ids=ids, segments=before_end.astype(np.int32))
    logits = np.asarray(
        whole(toy_model(CONFIGS[name]), make_batch(text=dataclasses.replace(text, positions=None), image=batch.image))
    )
    counts = before_end[:, 1:]
    np.testing.assert_array_equal(np.where(counts, logits[:, :-1].argmax(-1), END), found.tokens)
    chosen = np.take_along_axis(np.asarray(jax.nn.log_softmax(logits))[:, :-1], found.tokens[..., None], axis=-1)
    np.testing.assert_allclose(np.where(counts, chosen[..., 0], 0).sum(1), found.scores, atol=1e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_of_every_step_agree(name):
    agree(toy_model(CONFIGS[name]), pictures(CONFIGS[name]), LENGTH)


@pytest.mark.parametrize("name", ["pre_ln", "decoder"])
def test_logits_of_a_long_text_agree(name):
    """Forty tokens, as many as captions of several sentences have."""
    config = replace(CONFIGS[name], max_text_length=41)
    agree(toy_model(config), pictures(config, length=40), 40)


def agree(model: SingleStream, batch: Batch, length: int) -> None:
    """Logits after each of so many random tokens, by the cache and by reading all at once, to 1e-5."""
    ids = np.random.default_rng(1).integers(5, 40, (3, length + 1)).astype(np.int32)
    graph, params = nnx.split(model)

    @jax.jit
    def run(params, batch, ids):
        text = cached(nnx.merge(graph, params))

        def step(cache, inputs):
            logits, cache = text.next_token(cache, *inputs)
            return cache, logits

        return jax.lax.scan(step, text.start(batch), (ids.T, jnp.arange(ids.shape[1])))[1].swapaxes(0, 1)

    full = make_batch(text=Text(ids=ids), image=batch.image)
    np.testing.assert_allclose(run(params, batch, ids), whole(model, full), atol=1e-5)


@pytest.mark.parametrize("name", ["pre_ln", "decoder"])
def test_a_beam_keeps_each_rows_cache(name):
    """One beam is the greedy search, and more beams find sequences that are worth no less."""
    one, greedily, five = written(name, 1), written(name), written(name, 5)
    np.testing.assert_array_equal(one.tokens, greedily.tokens)
    assert (np.asarray(five.scores) >= np.asarray(greedily.scores) - 1e-5).all()
