"""The decoder against numpy, one example at a time, in every layout of a row; what an encoder-decoder is made of."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from singlestream.batch import Batch, Regions, Text, make_batch, without_text
from singlestream.model.config import ModelConfig
from singlestream.model.single_stream import SingleStream

from .toy import CONFIG, SPEC, WRITER, random_batch, replace

DECODER = replace(CONFIG, decoder_layers=2)


def drawn(config: ModelConfig):
    """The definition of a model with a decoder, and random parameters in numpy."""
    graph, state = nnx.split(nnx.eval_shape(lambda: SingleStream(config, SPEC, heads=WRITER, rngs=nnx.Rngs(0))))
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        return ((path[-1].key == "scale") + 0.3 * rng.normal(size=leaf.shape)).astype(leaf.dtype)

    return graph, jax.tree_util.tree_map_with_path(draw, nnx.to_pure_dict(state))


@functools.cache
def _jitted(config: ModelConfig):
    graph, params = drawn(config)

    def run(params, batch, key):
        model = nnx.merge(graph, params)
        encoded = model(batch, direction="decoder", key=key, attention=key is None)
        return encoded, model.heads["caption"](encoded)

    return params, jax.jit(run)


def run(config: ModelConfig, batch: Batch, key=None):
    params, jitted = _jitted(config)
    return jitted(params, batch, key)


# ---- the definition, in numpy ----------------------------------------------------------------------------------------


def dense(x, p):
    return x @ p["kernel"] + p["bias"]


def layer_norm(x, p, eps):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * p["scale"] + p["bias"]


def gelu(x):
    return np.asarray(0.5 * x * (1 + jax.scipy.special.erf(x / np.sqrt(2))))


def attention(queries, keys, values, num_heads, seen):
    """Vaswani et al. 2017, equation 1, head by head and query by query; zeros where there is nothing to read."""
    heads = [np.split(x, num_heads, axis=-1) for x in (queries, keys, values)]
    out = np.zeros_like(queries)
    for head, (q, k, v) in enumerate(zip(*heads, strict=True)):
        size = q.shape[-1]
        for i in range(len(q)):
            if not seen[i].any():
                continue
            scores = np.array([q[i] @ k[j] for j in np.flatnonzero(seen[i])]) / np.sqrt(size)
            weights = np.exp(scores - scores.max())
            out[i, head * size : (head + 1) * size] = weights / weights.sum() @ v[seen[i]]
    return out


def decode(params, config: ModelConfig, ids, image):
    """Logits of one text [T] about one picture [N, D] (no pictures: N = 0); all of `params` in float64."""
    embed = params["embed"]
    words = embed["text"]["token"]["embedding"]
    x = words[ids] + embed["text"]["type"]["embedding"][0] + embed["text"]["position"]["embedding"][: len(ids)]
    x = x + embed["modality"]["table"]["embedding"][0]
    for layer in range(config.decoder_layers):
        p = jax.tree.map(lambda leaf, layer=layer: leaf[layer], params["decoder"]["blocks"])

        def own(x, p=p["attention"]):
            q, k, v = (x @ p["kernel"][:, i] + p["bias"][i] for i in range(3))
            return dense(attention(q, k, v, config.num_heads, np.tri(len(x), dtype=bool)), p["out"])

        def cross(x, p=p["cross"]):
            q, k, v = dense(x, p["query"]), dense(image, p["key"]), dense(image, p["value"])
            return dense(attention(q, k, v, config.num_heads, np.ones((len(x), len(image)), bool)), p["out"])

        def mlp(x, p=p["mlp"]):
            return dense(gelu(dense(x, p["up"])), p["down"])

        for name, branch in (("attention_norm", own), ("cross_norm", cross), ("mlp_norm", mlp)):
            norm = functools.partial(layer_norm, p=p[name], eps=config.norm_eps)
            if config.norm == "sandwich":
                after = functools.partial(layer_norm, p=p[name.replace("norm", "out_norm")], eps=config.norm_eps)
                x = x + after(branch(norm(x)))
            else:
                x = x + branch(norm(x)) if config.norm == "pre" else norm(x + branch(x))
    if config.norm != "post":
        x = layer_norm(x, params["decoder"]["norm"], config.norm_eps)
    head = params["heads"]["caption"]
    x = layer_norm(gelu(dense(x, head["hidden"])), head["norm"], config.norm_eps)
    return x @ words.T + head["bias"]


def packed() -> Batch:
    """Two examples side by side, a text without a picture, and padding in between and behind."""
    plain = random_batch(0, rows=2, text=8)
    text = np.array([[1, 1, 1, 0, 2, 2, 2, 2], [1, 1, 1, 1, 1, 0, 3, 3]], np.int32)
    image = np.array([[1, 1, 0, 2, 2, 2], [1, 0, 1, 1, 0, 0]], np.int32)
    return make_batch(
        text=Text(ids=plain.text.ids, segments=text), image=dataclasses.replace(plain.image, segments=image)
    )


def shared() -> Batch:
    """Two texts about one picture, each in a slot of its own."""
    plain, part = random_batch(1, rows=2, text=8), np.array([[1, 1, 1, 1, 2, 2, 2, 2]] * 2, np.int32)
    segments = np.array([[1, 1, 1, 1, 1, 1, 1, 0], [1, 1, 0, 0, 1, 1, 1, 1]], np.int32)
    text = Text(ids=plain.text.ids, segments=segments, part=part, slots=2)
    return make_batch(text=text, image=plain.image)


def texts_of(batch: Batch):
    """(row, columns of a text, columns of its picture) of every example."""
    text, image = batch.text, batch.image
    for row, examples in enumerate(batch.examples):
        for segment, part in examples[examples[:, 0] > 0]:
            own = (text.segments[row] == segment) & (text.part[row] == part)
            yield row, np.flatnonzero(own), np.flatnonzero(image.segments[row] == segment)


@pytest.mark.parametrize(
    ("norm", "batch", "layers"),
    [("pre", packed, "unrolled"), ("post", shared, "scan"), ("sandwich", packed, "scan")],
    ids=["pre", "post", "sandwich"],
)
def test_it_is_the_definition_whatever_the_row(norm, batch, layers):
    with jax.enable_x64(True):
        config = replace(DECODER, norm=norm, direction="prefix", dtype="float64", layers=layers)
        batch = batch()
        encoded, logits = run(config, batch)
        params = _jitted(config)[0]
        for row, words, patches in texts_of(batch):
            expected = decode(params, config, batch.text.ids[row, words], np.asarray(encoded.image)[row, patches])
            np.testing.assert_allclose(np.asarray(logits)[row, words], expected, rtol=1e-9, atol=1e-9)


def test_the_encoder_reads_pictures_alone():
    """Its states are those of the picture with no text beside it, though the model's own direction is `full`."""
    batch = packed()
    encoded, _ = run(DECODER, batch)
    others = batch.replace(text=dataclasses.replace(batch.text, ids=batch.text.ids[:, ::-1].copy()))
    np.testing.assert_array_equal(encoded.image, run(DECODER, others)[0].image)
    assert encoded.text.shape == (2, 0, CONFIG.width) and encoded.attention["self"].shape == (2, 2, 2, 6, 6)
    words = Regions(features=np.zeros((1, 2, 4), np.float32), words=np.zeros((1, 2, 1), np.int32))
    assert without_text(make_batch(text=Text(ids=batch.text.ids[:1]), image=words)).image.words is None


def test_attention_weights_are_those_over_the_own_picture():
    batch = packed()
    weights = np.asarray(run(DECODER, batch)[0].attention["text_to_image"])
    assert weights.shape == (DECODER.decoder_layers, 2, DECODER.num_heads, 8, 6)
    for row, words, patches in texts_of(batch):
        total = weights[:, row][:, :, words]
        np.testing.assert_allclose(total[..., patches].sum(-1), float(len(patches) > 0), atol=1e-6)
        np.testing.assert_allclose(total.sum(-1), float(len(patches) > 0), atol=1e-6)


def test_noise_comes_with_a_key():
    config = replace(DECODER, dropout=0.2, attention_dropout=0.2, stochastic_depth=0.2)
    one, again, other, none = (run(config, packed(), key)[1] for key in (*map(jax.random.key, (1, 1, 2)), None))
    np.testing.assert_array_equal(one, again)
    assert jnp.abs(one - other).max() > 1e-3 < jnp.abs(one - none).max()


def test_models_without_a_decoder_say_so():
    plain = nnx.eval_shape(lambda: SingleStream(CONFIG, SPEC, rngs=nnx.Rngs(0)))
    for make, message in (
        (lambda: plain(packed(), direction="decoder"), "direction='decoder', but the model has no decoder"),
        (lambda: SingleStream(CONFIG, SPEC, heads=WRITER, rngs=nnx.Rngs(0)), "head: source='decoder', but the model"),
        (lambda: replace(DECODER, late_layers=1), "config.model.decoder_layers=2 does not go with .*late_layers=1"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
