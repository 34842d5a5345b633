"""Where the modalities meet: encoders in front, layers on both, channel gates, joins of the pooled vectors."""

import itertools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from singlestream.batch import EXTRA, IMAGE, TEXT, Patches, Text, make_batch
from singlestream.config import Config, ConfigError, DataConfig
from singlestream.model.attention.config import AttentionConfig
from singlestream.model.block import Block
from singlestream.model.channel_gate import ChannelGate
from singlestream.model.config import CHOICES, ModelConfig
from singlestream.model.encoder import Encoder, Stack
from singlestream.model.encoders import image_cnn, text_lstm
from singlestream.model.joins import build_join, join_names
from singlestream.model.pooling import mean_image
from singlestream.model.single_stream import SingleStream
from singlestream.model.visibility import Visibility
from tests.model.toy import CONFIG, HEADS, SPEC, random_batch, replace

SMALL = ModelConfig(width=8, num_layers=4, num_heads=1, mlp_dim=8, layers="scan")
DOUBLE = replace(SMALL, dtype="float64")


def random_numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def moved(module, seed=0):
    """The module with its parameters moved off their start, so that biases and scales matter."""
    graph, state = nnx.split(module)
    leaves, tree = jax.tree.flatten(state)
    leaves = [leaf + 0.3 * random_numbers(*leaf.shape, seed=seed + i) for i, leaf in enumerate(leaves)]
    return nnx.merge(graph, jax.tree.unflatten(tree, leaves))


def weights_of(projection):
    return np.asarray(projection.kernel[...]), np.asarray(projection.bias[...])


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


# ---- directions ------------------------------------------------------------------------------------------------------


def reachable(encoder, visibility):
    """[layers, L, L]: whether the state of a token after a layer depends on what another token was before all."""
    states = jnp.asarray(random_numbers(*visibility.segments.shape, SMALL.width))
    slope = jax.jit(jax.jacfwd(lambda x: encoder(x, visibility)[1]))(states)
    return np.abs(slope).sum((1, 3, 4, 6)) > 0


@pytest.mark.parametrize(
    ("direction", "hops"),
    [("text_to_image", 0), ("image_to_text", 0), ("both", 0), ("bottleneck", 0), ("multi_hop", 1), ("multi_hop", 3)],
)
def test_information_and_gradients_pass_where_the_masks_let_them(direction, hops):
    """A layer's states have a nonzero derivative by an input exactly where the masks of the layers so far lead."""
    row = {"segments": [1, 1, 2, 1, 1, 2, 1], "part": [0] * 7, "modality": [TEXT] * 3 + [IMAGE] * 3 + [EXTRA]}
    arrays = {name: np.array([value], np.int32) for name, value in row.items()}
    token = np.arange(7, dtype=np.int32)[None]
    sees = Visibility(**arrays, token=token, direction=direction, hops=hops, depth=SMALL.num_layers)
    leads, expected = np.eye(7, dtype=int), []
    for layer in range(SMALL.num_layers):
        mask = np.asarray(sees.in_layer(jnp.array(layer, jnp.int32)).mask())[0]
        leads = ((np.eye(7) + mask) @ leads > 0).astype(int)
        expected.append(leads.astype(bool))
    np.testing.assert_array_equal(reachable(moved(Encoder(SMALL, rngs=nnx.Rngs(0))), sees), expected)


# ---- encoders in front -----------------------------------------------------------------------------------------------


def run_layer(layer, x, visibility):
    return np.asarray(jax.jit(lambda x: layer(x, visibility, depth_rate=jnp.zeros(()))[0])(x))


def normed(x, norm):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + norm.epsilon) * np.asarray(norm.scale[...]) + (
        np.asarray(norm.bias[...])
    )


def lstm_by_hand(x, layer):
    """What the layer adds to the tokens of one text, [M, D]."""
    (kernel, bias), recurrent = weights_of(layer.inputs), np.asarray(layer.recurrent["kernel"][...])
    outputs = []
    for way, order in enumerate((range(len(x)), reversed(range(len(x))))):
        half = slice(way * kernel.shape[1] // 2, (way + 1) * kernel.shape[1] // 2)
        h, c, found = np.zeros(len(recurrent)), np.zeros(len(recurrent)), {}
        for token in order:
            i, f, g, o = np.split(x[token] @ kernel[:, half] + bias[half] + h @ recurrent[:, way], 4)
            c = sigmoid(f + 1) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
            found[token] = h
        outputs.append(np.stack([found[token] for token in range(len(x))]))
    return np.concatenate(outputs, axis=1)


@jax.enable_x64(True)
def test_the_lstm_is_a_loop_over_each_text():
    """Packed, two texts on one picture, padding within a text, a text in two pieces, another backwards."""
    segments = np.array([[1, 0, 1, 2, 2, 2, 1, 3, 3, 3]], np.int32)
    part = np.array([[0, 0, 0, 1, 1, 2, 0, 0, 0, 0]], np.int32)
    place = np.array([[0, 0, 1, 0, 1, 0, 2, 2, 1, 0]], np.int32)
    sees = Visibility(segments=segments, part=part, place=place, modality=segments * 0, num_text=10)
    layer, x = moved(text_lstm.Layer(DOUBLE, rngs=nnx.Rngs(0))), random_numbers(1, 10, SMALL.width).astype(float)
    found = run_layer(layer, x, sees)[0] - x[0]
    for tokens in ([0, 2, 6], [3, 4], [5], [9, 8, 7]):
        expected = lstm_by_hand(normed(x[0, tokens], layer.branch_norm), layer)
        np.testing.assert_allclose(found[tokens], expected, atol=1e-12)


@jax.enable_x64(True)
def test_the_cnn_is_a_loop_over_each_pictures_grid():
    """Packed pictures of several grids, two pictures of one example, patches in any order, padding."""
    grids = {(1, 0): (2, 3), (1, 1): (1, 2), (2, 0): (3, 1)}  # (segment, picture) -> rows, columns
    tokens = [(s, p, y, x) for (s, p), (rows, columns) in grids.items() for y in range(rows) for x in range(columns)]
    tokens = [tokens[i] for i in np.random.default_rng(0).permutation(len(tokens))] + [(0, 0, 0, 0)]
    columns = np.array([tokens], np.int32)
    segments = columns[..., 0]
    sees = Visibility(segments=segments, part=segments * 0, modality=segments * 0 + IMAGE, where=columns[..., 1:])
    layer = moved(image_cnn.Layer(replace(DOUBLE, activation="relu"), rngs=nnx.Rngs(0)))
    x = random_numbers(1, len(tokens), SMALL.width).astype(float)
    found = run_layer(layer, x, sees)[0] - x[0]
    values = dict(zip(tokens, np.maximum(normed(x[0], layer.branch_norm), 0), strict=True))
    kernel, bias = weights_of(layer.conv)
    for token, (s, p, row, column) in enumerate(tokens[:-1]):
        around = [values.get((s, p, row + dy, column + dx), np.zeros(8)) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
        np.testing.assert_allclose(found[token], np.concatenate(around) @ kernel + bias, atol=1e-12)


def test_a_transformer_in_front_is_an_encoder_of_its_modality_alone():
    config = replace(CONFIG, text_encoder="transformer", text_layers=2)
    model, batch = SingleStream(config, SPEC, rngs=nnx.Rngs(0)), random_batch(0)
    graph, state = nnx.split(model)

    @jax.jit
    def both(state, batch):
        model = nnx.merge(graph, state)
        stream = model.embed(batch)
        visibility = model.sees(batch, stream)
        layers = Stack(config.alone(2), lambda rngs: Block(config, rngs=rngs), rngs=nnx.Rngs(0))
        nnx.update(layers, nnx.state(model.front.text))
        alone, _, _ = layers.run(layers.layers(), stream.x[:, :5], visibility.of_text())
        return model.enter(stream, visibility)[0], layers.finish(alone), stream.x[:, 5:]

    found, text, image = both(state, batch)
    np.testing.assert_allclose(found[:, :5], text, atol=1e-6)
    np.testing.assert_array_equal(found[:, 5:], image)


# ---- gates and joins -------------------------------------------------------------------------------------------------


def test_channel_gates_are_made_of_what_a_token_sees():
    """With prefix: a text's gates know text and picture, a picture's gates nothing of the text."""
    segments = np.array([[1, 1, 2, 0, 1, 1, 2]], np.int32)
    modality = np.array([[TEXT] * 4 + [IMAGE] * 3], np.int32)
    sees = Visibility(segments=segments, part=segments * 0, modality=modality, direction="prefix")
    gate, x = moved(ChannelGate(replace(SMALL, channel_gate=2), rngs=nnx.Rngs(0))), random_numbers(1, 7, 8)
    out, gates = jax.jit(lambda x: gate(x, sees))(x)
    mask = np.asarray(sees.mask())[0]
    (w, b), of = weights_of(gate.squeeze), {TEXT: weights_of(gate.text), IMAGE: weights_of(gate.image)}
    for token in (0, 1, 2, 4, 5, 6):
        seen = [x[0, mask[token] & (modality[0] == kind)] for kind in (TEXT, IMAGE)]
        means = np.concatenate([each.mean(0) if len(each) else np.zeros(8) for each in seen])
        kernel, bias = of[modality[0, token]]
        expected = 2 * sigmoid(np.maximum(means @ w + b, 0) @ kernel + bias)
        np.testing.assert_allclose(gates[0, token], expected, atol=1e-6)
        np.testing.assert_allclose(out[0, token], expected * x[0, token], atol=1e-6)


SHARES = "modality_weights"


def by_hand(name, join, t, v):
    """(pooled, what else or None) of one example, for SMALL with ReLU."""

    def linear(part, x):
        kernel, bias = weights_of(getattr(join, part))
        return x @ kernel + bias

    both = np.concatenate([t, v])
    if name == "concat":
        return np.maximum(linear("both", both), 0), None
    if name == "film":
        change, shift = np.split(linear("modulate", t), 2)
        return (1 + change) * v + shift, None
    text, image = linear("text", t), linear("image", v)
    if name == "sum":
        return text + image, None
    if name == "decision":
        return (text + image) / 2, [text, image]
    if name == "product":
        return np.tanh(text) * np.tanh(image), None
    if name == "gated":
        z = sigmoid(linear("gate", both))
        return z * np.tanh(text) + (1 - z) * np.tanh(image), [z.mean(), 1 - z.mean()]
    shares = np.exp(linear("gate", both))
    shares /= shares.sum()
    return shares[0] * text + shares[1] * image, shares


@pytest.mark.parametrize("name", [name for name in join_names() if name != "none"])
def test_joins(name):
    join = moved(build_join(replace(SMALL, join=name, activation="relu"), rngs=nnx.Rngs(0)))
    text, image = random_numbers(2, 3, 8, seed=1), random_numbers(2, 3, 8, seed=2)
    pooled, extra = jax.jit(lambda text, image: join(text, image))(text, image)
    for row, k in itertools.product(range(2), range(3)):
        expected, more = by_hand(name, join, text[row, k], image[row, k])
        np.testing.assert_allclose(pooled[row, k], expected, atol=1e-6)
        assert list(extra) == {"decision": ["decisions"], "gated": [SHARES], "dynamic": [SHARES]}.get(name, [])
        for value in extra.values():
            np.testing.assert_allclose(value[row, k], more, atol=1e-6)


def test_decisions_add_up_whatever_the_head_is():
    """Of a text and a picture each in two versions, an answer's score is a sum of what both say; joined before the
    head it is not."""
    batches = [random_batch(seed) for seed in (0, 1)]

    def interaction(join):
        config = replace(CONFIG, **FUSIONS["late"], join=join)
        model = moved(SingleStream(config, SPEC, heads={"vqa": HEADS["vqa"]}, rngs=nnx.Rngs(0)))
        run = jax.jit(lambda batch: model.heads["vqa"](model(batch)))
        (a, b), (c, d) = ([run(make_batch(text=text.text, image=image.image)) for image in batches] for text in batches)
        return float(abs(a - b - c + d).max() / abs(a - d).max())

    assert interaction("decision") < 1e-5 and interaction("sum") > 1e-2


def test_the_mean_of_a_picture_is_that_of_an_examples_own():
    """A shared picture, one of a part's own, and an example without one."""
    segments, part = np.array([[1, 1, 1, 2, 0]], np.int32), np.array([[0, 0, 2, 0, 0]], np.int32)
    image = Patches(
        pixels=np.zeros((1, 5, 48), np.uint8),
        yx=np.zeros((1, 5, 2), np.int32),
        grid=np.ones((1, 5, 2), np.int32),
        segments=segments,
        part=part,
    )
    text = Text(
        ids=np.full((1, 4), 7, np.int32),
        segments=np.array([[1, 1, 2, 3]], np.int32),
        part=np.array([[1, 2, 0, 0]], np.int32),
    )
    batch, states = make_batch(text=text, image=image), random_numbers(1, 5, 8)
    x = states[0]
    expected = [x[:2].mean(0), x[:3].mean(0), x[3], np.zeros(8)]
    np.testing.assert_allclose(mean_image(states, batch.image, batch.examples)[0], expected, atol=1e-6)


# ---- what goes together ----------------------------------------------------------------------------------------------

FUSIONS: dict[str, dict[str, Any]] = {
    "early": {},
    "hybrid": {"text_encoder": "lstm", "text_layers": 1, "image_encoder": "cnn", "image_layers": 1},
    "text first": {"text_encoder": "transformer", "text_layers": 1},
    "late": {
        "num_layers": 0,
        "text_encoder": "lstm",
        "text_layers": 1,
        "image_encoder": "transformer",
        "image_layers": 1,
    },
}
EXTRAS = {"multi_hop": {"hops": 2}, "bottleneck": {"bottlenecks": 3}}
COMBINATIONS = list(
    itertools.product(CHOICES["direction"], FUSIONS, CHOICES["pooling"], ("none", "sum", "gated"), (0, 4))
)


def settings(direction, fusion, pooling, join, gate):
    more = {**FUSIONS[fusion], **EXTRAS.get(direction, {})}
    return replace(CONFIG, direction=direction, pooling=pooling, join=join, channel_gate=gate, layers="scan", **more)


@pytest.mark.slow
def test_what_is_refused_names_two_keys_and_what_is_not_builds():
    """All combinations; of those that are not refused a set that covers all pairs of values is built and traced."""
    done = set()
    for combination in COMBINATIONS:
        try:
            config = settings(*combination)
        except ValueError as error:
            assert len(set(re.findall(r"config\.model\.\w+", str(error)))) > 1, error
            continue
        pairs = set(itertools.combinations(enumerate(combination), 2))
        if pairs <= done:
            continue
        done |= pairs
        batch = random_batch(0)
        encoded = nnx.eval_shape(lambda c=config, b=batch: SingleStream(c, SPEC, rngs=nnx.Rngs(0))(b, attention=True))
        extra = {name: value.shape for name, value in encoded.extra.items()}
        assert encoded.pooled.shape == (2, 1, 24) and encoded.image.shape == (2, 6, 24)
        assert encoded.attention["self"].shape[0] == config.num_layers
        assert extra.get("bottlenecks") == ((2, 1, 3, 24) if config.bottlenecks else None)
        assert extra.get("channel_gates") == ((2, 11, 24) if config.channel_gate else None)
        assert extra.get(SHARES) == ((2, 1, 2) if config.join == "gated" else None)
    assert len(done) > 90


OLDER = {
    "text_encoder": "lstm",
    "text_layers": 1,
    "image_encoder": "cnn",
    "image_layers": 1,
    "num_layers": 0,
    "join": "sum",
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"direction": "image_to_text", "pooling": "mean"},
            "learns nothing of the picture; choose how both are joined",
        ),
        ({"direction": "text_to_image"}, "the first token reads no other word; choose 'mean'"),
        ({"direction": "multi_hop"}, "hops=0: 'multi_hop' needs at least 1"),
        ({"hops": 1}, "direction='full' with config.model.hops=1"),
        ({"direction": "multi_hop", "hops": 3}, "hops=3 is more than config.model.num_layers=2"),
        ({"direction": "bottleneck"}, "bottlenecks=0: 'bottleneck' needs at least 1"),
        ({"direction": "both", "late_layers": 1}, "set config.model.text_encoder='transformer'"),
        ({"direction": "both", "decoder_layers": 1}, "its tokens would not read each other"),
        ({"direction": "prefix", "image_cls": True}, "have no class token of their own"),
        ({"direction": "causal", "text_encoder": "lstm", "text_layers": 1}, "it reads a text from both sides"),
        ({"num_layers": 0, "join": "sum"}, "num_layers=0 is late fusion, which needs config.model.text_encoder"),
        ({**OLDER, "attention": AttentionConfig(score="cosine")}, "attention is set and nothing reads it"),
        ({"text_encoder": "lstm"}, "text_layers=0: an encoder needs at least 1 layer"),
        ({"image_layers": 1}, "image_encoder='none' with config.model.image_layers=1"),
        ({"late_layers": 1, "text_encoder": "lstm", "text_layers": 1}, "choose one"),
        ({"image_encoder": "cnn", "image_layers": 1, "image_stem": "regions", "image_positions": "boxes"}, "no grid"),
        ({"channel_gate": 25}, "is more than config.model.width=24"),
        ({"channel_gate": 4, "direction": "bottleneck", "bottlenecks": 1}, "before the layers that keep them apart"),
        ({"channel_gate": 4, "late_layers": 1}, "before the layers of the text alone"),
        ({"width": 25, "num_heads": 1, "text_encoder": "lstm", "text_layers": 1}, "width=25 is odd"),
    ],
)
def test_what_makes_no_sense_is_told(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **changes)


def test_a_model_is_read_in_other_directions_or_says_why_not():
    batch, whole = random_batch(0), replace(CONFIG, direction="bottleneck", bottlenecks=2, layers="scan")

    def traced(config, direction):
        return nnx.eval_shape(lambda: SingleStream(config, SPEC, rngs=nnx.Rngs(0))(batch, direction=direction))

    assert "bottlenecks" not in traced(whole, "causal").extra  # nothing but them would read both modalities
    with pytest.raises(ValueError, match="direction='multi_hop', but the model has none"):
        traced(whole, "multi_hop")
    with pytest.raises(ValueError, match="direction='bottleneck', but the model has none"):
        traced(CONFIG, "bottleneck")
    with pytest.raises(ValueError, match="does not go with direction='causal'"):
        traced(settings("full", "hybrid", "cls", "none", 0), "causal")
    writer = replace(settings("full", "hybrid", "cls", "gated", 4), decoder_layers=1)
    assert traced(writer, "decoder").extra["decoder"].shape == (2, 5, 24)


def test_texts_share_a_picture_only_where_it_reads_none():
    shared = DataConfig(texts_per_row=2)
    assert Config(data=shared, model=ModelConfig(direction="multi_hop", hops=1)).data.texts_per_row == 2
    for model in (ModelConfig(direction="multi_hop", hops=2), ModelConfig(direction="both")):
        with pytest.raises(ConfigError, match="else the picture reads its text"):
            Config(data=shared, model=model)
