import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st

from singlestream.batch import BatchError, Regions, Text, make_batch, without_image
from singlestream.model.block import Block
from singlestream.model.config import SIZES, ModelConfig
from singlestream.model.heads import HeadConfig
from singlestream.model.noise import dropout
from singlestream.model.pooling import Pooler, second_last
from singlestream.model.single_stream import SingleStream
from singlestream.model.visibility import Visibility
from tests.model.toy import CONFIG, SPEC, check_alone, padded_batch, random_batch, replace, run, toy_model

POST = replace(CONFIG, norm="post", embed_norm=True, direction="prefix", image_positions="sincos2d", pooler=True)
# Stem, margin and direction as the quickstart has them.
CONV = replace(CONFIG, image_stem="conv", patch_margin=2, direction="prefix", position_init="fourier")
# As ViLT.
VILT = replace(
    CONFIG, text_norm=True, modality="pictures", image_cls=True, position_resize="corners", embed_norm_eps=1e-12
)
# VisualBERT without early fusion.
LATE = replace(CONFIG, late_layers=1, direction="prefix")
MEAN = replace(CONFIG, text_positions="sinusoidal", pooling="mean", activation="relu")


def _close(actual, expected, tolerance=1e-5):
    np.testing.assert_allclose(actual, expected, atol=tolerance)


@pytest.mark.parametrize("config", [CONFIG, POST, CONV, VILT, LATE], ids=["pre", "post", "conv", "vilt", "late"])
@given(
    data=st.data(),
    sizes=st.lists(
        st.tuples(st.integers(2, 6), st.sampled_from([(1, 1), (2, 3), (3, 2), (1, 5)])), min_size=2, max_size=5
    ),
)
def test_an_examples_outputs_do_not_depend_on_its_batch(data, config, sizes):
    """Alone, or packed with others of other sizes under any padding: equal to 1e-5, and the same choice."""
    rows = data.draw(st.lists(st.integers(0, 1), min_size=len(sizes), max_size=len(sizes)))
    check_alone(config, sizes, rows)


def test_padding_an_example_changes_nothing():
    batch = random_batch(3, rows=1, text=4)
    bare, _ = run(batch)
    padded, _ = run(padded_batch(batch))
    _close(padded.pooled[0, 0], bare.pooled[0, 0])
    _close(padded.image[0, :6], bare.image[0])


def test_texts_that_share_a_picture_equal_texts_alone():
    config = replace(CONFIG, direction="prefix")
    one, two = random_batch(0, rows=1), random_batch(1, rows=1)
    two = two.replace(image=one.image)
    ids = np.concatenate([one.text.ids, two.text.ids], 1)
    part = np.repeat(np.array([[1, 2]], np.int32), 5, axis=1)
    for slots in (1, 2):
        shared = make_batch(text=Text(ids=ids, part=part, slots=slots), image=one.image)
        encoded, logits = run(shared, config)
        for k, alone in enumerate((one, two)):
            own, own_logits = run(alone, config)
            _close(encoded.pooled[0, k], own.pooled[0, 0])
            _close(encoded.image, own.image)
            _close(logits["vqa"][0, k], own_logits["vqa"][0, 0])


def test_full_direction_lets_the_picture_read_the_text():
    batch = random_batch(0, rows=1)
    other = batch.replace(text=random_batch(5, rows=1).text)
    assert np.abs(np.asarray(run(batch)[0].image) - np.asarray(run(other)[0].image)).max() > 1e-3
    prefix = replace(CONFIG, direction="prefix")
    _close(run(batch, prefix)[0].image, run(other, prefix)[0].image, 0)


def test_without_image_the_picture_does_not_matter():
    batch = random_batch(0, rows=1)
    other = batch.replace(image=random_batch(5, rows=1).image)
    _close(run(without_image(batch))[0].pooled, run(without_image(other))[0].pooled, 0)
    assert np.abs(np.asarray(run(batch)[0].pooled) - np.asarray(run(other)[0].pooled)).max() > 1e-3


@pytest.mark.parametrize("changes", [{"layers": "scan"}, {"remat": "full"}, {"remat": "dots", "layers": "scan"}])
def test_ways_to_run_the_layers_agree(changes):
    """The same parameters scanned, unrolled, rematerialised: outputs and gradients."""
    batch = random_batch(0)
    params = nnx.to_pure_dict(nnx.state(toy_model()))

    def grads(config):
        graph = nnx.graphdef(toy_model(config))

        def loss(params):
            model = nnx.merge(graph, params)
            encoded = model(batch)
            return sum(jnp.sin(head(encoded)).sum() for head in model.heads.values())

        return jax.jit(jax.value_and_grad(loss))(params)

    jax.tree.map(lambda a, b: _close(a, b, 2e-4), grads(CONFIG), grads(replace(CONFIG, **changes)))


def test_dropout_and_stochastic_depth_follow_the_key():
    config = replace(CONFIG, dropout=0.3, stochastic_depth=0.5)
    model, batch = toy_model(config), random_batch(0)
    one, again, other = (np.asarray(model(batch, key=jax.random.key(k)).pooled) for k in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert not np.allclose(one, other)
    np.testing.assert_array_equal(model(batch).pooled, model(batch).pooled)


def test_without_dropout_of_weights_a_layer_draws_what_it_always_did():
    """Runs go on bit for bit: the keys of its branches are those of the layers before there was that dropout."""
    block, key = Block(replace(CONFIG, dropout=0.5), rngs=nnx.Rngs(0)), jax.random.key(1)
    x, zeros = jax.random.normal(jax.random.key(0), (2, 4, CONFIG.width)), jnp.zeros((2, 4), jnp.int32)
    visibility, keys = Visibility(segments=zeros + 1, part=zeros, modality=zeros), jax.random.split(key, 4)
    expected = x + dropout(block.attention(block.attention_norm(x), visibility)[0], 0.5, keys[0])
    expected = expected + dropout(block.mlp(block.mlp_norm(expected)), 0.5, keys[2])
    np.testing.assert_array_equal(block(x, visibility, depth_rate=jnp.zeros(()), key=key)[0], expected)


def test_a_sandwich_norms_what_a_branch_reads_and_what_it_adds():
    config, rng = replace(CONFIG, norm="sandwich"), np.random.default_rng(0)
    graph, state = nnx.split(nnx.eval_shape(lambda: Block(config, rngs=nnx.Rngs(0))))
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(leaf.dtype), state)
    zeros = jnp.zeros((2, 4), jnp.int32)
    visibility = Visibility(segments=zeros + 1, part=zeros, modality=zeros)

    @jax.jit
    def both(params, x):
        block = nnx.merge(graph, params)
        branch, _ = block.attention(block.attention_norm(x), visibility)
        expected = x + block.attention_out_norm(branch)
        expected = expected + block.mlp_out_norm(block.mlp(block.mlp_norm(expected)))
        return block(x, visibility, depth_rate=jnp.zeros(()))[0], expected

    _close(*both(params, rng.normal(size=(2, 4, config.width)).astype(np.float32)))


@pytest.mark.parametrize("late_layers", [0, 1])
def test_dropout_of_weights_changes_every_layer(late_layers):
    """Each layer's weights, given its input: dropped or scaled up, and by another draw than the other layers'."""
    config = replace(CONFIG, attention_dropout=0.5, late_layers=late_layers)
    found = toy_model(config)(random_batch(0), key=jax.random.key(1), attention=True).attention["self"]
    read = slice(0, 5)  # what every layer reads: the text
    dropped = np.asarray(found[..., read, read] == 0)
    assert dropped.any((1, 2, 3, 4)).all() and not dropped.all((1, 2, 3, 4)).any()
    assert len(np.unique(dropped.reshape(len(dropped), -1), axis=0)) == config.depth


def test_stochastic_depth_drops_a_rows_branch_or_scales_it_up():
    """Every layer's output, from its input by hand: x + f(x) / (1 - rate), or x, for attention and feed-forward."""
    config = replace(CONFIG, num_layers=3, stochastic_depth=0.5)
    encoder, rows = toy_model(config).encoder, 48
    x = jax.random.normal(jax.random.key(0), (rows, 4, config.width))
    zeros = jnp.zeros((rows, 4), jnp.int32)
    visibility = Visibility(segments=zeros + 1, part=zeros, modality=zeros)
    _, hidden, _ = jax.jit(lambda x: encoder(x, visibility, key=jax.random.key(1)))(x)
    graph, stacked = nnx.split(encoder.blocks)

    @jax.jit
    def by_hand(x, params, scales):
        block = nnx.merge(graph, params)
        branch, _ = block.attention(block.attention_norm(x), visibility)
        x = x + scales[0] * branch
        return x + scales[1] * block.mlp(block.mlp_norm(x))

    for i, rate in enumerate((0.0, 0.25, 0.5)):
        before = x if i == 0 else hidden[i - 1]
        params = jax.tree.map(lambda leaf, i=i: leaf[i], stacked)
        kept = 1 / (1 - rate)
        choices = [jnp.array(pair) for pair in ((kept, kept), (0.0, kept), (kept, 0.0), (0.0, 0.0))]
        expected = np.stack([by_hand(before, params, scales) for scales in choices])
        far = np.abs(expected - np.asarray(hidden[i])).max((2, 3))
        assert ((far < 1e-4).sum(0) == 1).all(), "a row is none of the four, or cannot be told"
        counts = np.bincount(far.argmin(0), minlength=4)
        if rate == 0:
            assert counts[0] == rows
        else:
            assert (counts > 0).all()
            dropped = (counts * [0, 1, 1, 2]).sum() / (2 * rows)
            assert abs(dropped - rate) < 4 * np.sqrt(rate * (1 - rate) / (2 * rows))


def test_mean_pooling_takes_an_examples_own_words():
    """Of two examples packed into one row, one of them with two texts, with padding between: each one's own mean."""
    segments = np.array([[1, 1, 1, 1, 1, 0, 2, 2, 0], [1, 0, 0, 0, 0, 0, 0, 0, 0]], np.int32)
    part = np.array([[1, 1, 2, 2, 2, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 0, 0]], np.int32)
    batch = make_batch(text=Text(ids=np.full((2, 9), 7, np.int32), segments=segments, part=part))
    states = np.random.default_rng(0).normal(size=(2, 9, CONFIG.width)).astype(np.float32)
    pooled = Pooler(MEAN, rngs=nnx.Rngs(0))(states, batch.text, batch.examples)
    first, second, none = states[0, :2].mean(0), states[0, 2:5].mean(0), np.zeros(CONFIG.width)
    _close(pooled, [[first, second, states[0, 6:8].mean(0)], [states[1, 0], none, none]], 1e-6)

    encoded, logits = run(random_batch(0), MEAN)
    _close(encoded.pooled[:, 0], encoded.text.mean(1))
    assert all(np.isfinite(value).all() for value in logits.values())


def test_attention_weights_sum_to_one_over_what_is_seen():
    batch = padded_batch(random_batch(0, rows=1, text=4))
    weights = np.asarray(toy_model()(batch, attention=True).attention["self"])
    assert weights.shape == (2, 1, 2, 12, 12)
    np.testing.assert_allclose(weights[:, 0, :, :4].sum(-1), 1, atol=1e-6)
    assert (weights[..., :4, 4:6] == 0).all()


@pytest.mark.parametrize(
    "changes",
    [
        {"text_positions": "none", "image_positions": "none", "activation": "gelu_tanh"},
        {"dtype": "bfloat16"},
    ],
)
def test_choices_build_and_run(changes):
    config = replace(CONFIG, **changes)
    encoded, logits = run(random_batch(0), config)
    assert encoded.pooled.dtype == config.dtype and logits["vqa"].dtype == np.float32
    assert all(np.isfinite(value).all() for value in logits.values())


def test_regions_enter_with_their_boxes():
    config = replace(CONFIG, image_stem="regions", region_dim=9, image_positions="boxes")
    rng = np.random.default_rng(0)
    features = rng.normal(size=(1, 3, 9)).astype(np.float32)
    boxes = rng.uniform(size=(1, 3, 4)).astype(np.float32)

    def pooled(boxes):
        return np.asarray(
            run(
                make_batch(
                    text=Text(ids=np.array([[2, 6, 3]], np.int32)), image=Regions(features=features, boxes=boxes)
                ),
                config,
            )[0].pooled
        )

    assert np.abs(pooled(boxes) - pooled(boxes[:, ::-1])).max() > 1e-4


def test_the_wrong_kind_of_image_is_named():
    with pytest.raises(BatchError, match="reads Patches with 48 numbers each.*got Regions with 9"):
        toy_model()(
            make_batch(
                text=Text(ids=np.array([[2, 6, 3]], np.int32)), image=Regions(features=np.zeros((1, 3, 9), np.float32))
            )
        )


REGIONS = {"image_stem": "regions", "region_dim": 9, "num_images": 1}


@pytest.mark.parametrize(
    "changes",
    [
        {"image_positions": "constant", "modality": "image", "norm": "post", "embed_norm": True},
        {"image_positions": "boxes", "modality": "none", "text_norm": True, "image_norm": "sum"},
        {"image_positions": "boxes7", "modality": "token_types", "text_norm": True, "image_norm": "each"},
    ],
    ids=["VisualBERT", "Unicoder-VL", "UNITER"],
)
def test_an_examples_outputs_do_not_depend_on_padded_regions(changes):
    config, rng = replace(CONFIG, **REGIONS, **changes), np.random.default_rng(0)
    boxes = np.sort(rng.random((1, 4, 2, 2)), axis=2).reshape(1, 4, 4).astype(np.float32)
    features = rng.normal(size=(1, 4, 9)).astype(np.float32)
    text = Text(ids=np.array([[2, 6, 7, 3]], np.int32))
    alone, logits = run(make_batch(text=text, image=Regions(features=features, boxes=boxes)), config)
    padded = Regions(
        features=np.pad(features, ((0, 0), (0, 3), (0, 0)), constant_values=5.0),
        boxes=np.pad(boxes, ((0, 0), (0, 3), (0, 0))),
        segments=np.array([[1, 1, 1, 1, 0, 0, 0]], np.int32),
    )
    among, padded_logits = run(make_batch(text=text, image=padded), config)
    _close(among.text, alone.text)
    _close(among.image[:, :4], alone.image)
    _close(padded_logits["vqa"], logits["vqa"])
    moved = np.asarray(run(make_batch(text=text, image=Regions(features=features, boxes=boxes * 0.5)), config)[0].text)
    assert np.allclose(moved, alone.text) == (config.image_positions == "constant")


def test_the_second_last_token_is_found_in_every_example():
    """Two packed examples, the second of two texts (parts); a text of one token has none."""
    segments = np.array([[1, 1, 1, 2, 2, 2, 2, 0]], np.int32)
    part = np.array([[0, 0, 0, 1, 1, 2, 2, 0]], np.int32)
    batch = make_batch(text=Text(ids=np.full((1, 8), 7, np.int32), segments=segments, part=part))
    states = np.random.default_rng(0).normal(size=(1, 8, 4)).astype(np.float32)
    _close(second_last(states, batch.text, batch.examples)[0], states[0, [1, 3, 5]], 0)
    single = make_batch(text=Text(ids=np.array([[7]], np.int32)))
    _close(second_last(states[:, :1], single.text, single.examples), np.zeros((1, 1, 4)), 0)


def test_a_head_on_patches_of_a_layer_reads_no_class_token():
    batch = random_batch(0)
    model = SingleStream(VILT, SPEC, heads={"last": HeadConfig(size=3, source="image", layer=2)}, rngs=nnx.Rngs(0))
    assert model.heads["last"](model(batch)).shape == (2, batch.image.segments.shape[1], 3)


def test_a_head_of_pairs_wants_pairs():
    model = SingleStream(CONFIG, SPEC, heads={"pair": HeadConfig(size=3, source="pairs")}, rngs=nnx.Rngs(0))
    with pytest.raises(BatchError, match="reads pairs of examples, but a row of the batch has 1"):
        model.heads["pair"](model(random_batch(0)))


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("text.ids", r"text.ids holds -?\d+ to 40, expected 0 to 39 \(the size of the vocabulary is 40\)"),
        ("text.types", r"text.types holds 0 to 40, expected 0 to 1 \(config.model.num_token_types is 2\)"),
        ("text.positions", r"text.positions holds 0 to 40, expected 0 to 15 \(config.model.max_text_length is 16\)"),
        ("image.index", r"image.index holds 0 to 40, expected 0 to 2 \(config.model.num_images is 3\)"),
    ],
)
def test_what_lies_beyond_a_table_is_named(field, message):
    batch = random_batch(0)
    side, _, name = field.partition(".")
    part = getattr(batch, side)
    numbers = np.array(getattr(part, name))
    numbers[0, 0] = 40
    for array in (numbers, jnp.asarray(numbers)):
        with pytest.raises(BatchError, match=message):
            toy_model()(batch.replace(**{side: dataclasses.replace(part, **{name: array})}))


def test_bad_settings_are_named():
    for changes, message in (
        ({"norm": "middle"}, "config.model.norm='middle': choose one of pre, post"),
        ({"width": 25}, "config.model.width=25 is not divisible by config.model.num_heads=2"),
        ({"num_layers": -1}, "config.model.num_layers=-1: must be at least 0"),
        ({"dropout": 1.0}, "config.model.dropout=1.0"),
        ({"attention_dropout": -0.1}, "config.model.attention_dropout=-0.1"),
        ({"late_layers": -1}, "config.model.late_layers=-1: must be at least 0"),
        ({"image_positions": "boxes"}, "does not go with"),
        ({"image_stem": "conv"}, "too small for the convolutional stem"),
    ):
        with pytest.raises(ValueError, match=message):
            SingleStream(replace(CONFIG, **changes), SPEC, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="head: layer=2 goes with source='text' or 'image', not with 'pooled'"):
        HeadConfig(size=2, layer=2)
    with pytest.raises(ValueError, match="choose one of tiny"):
        ModelConfig.named("huge")


def test_base_has_berts_size():
    config = ModelConfig.named("base", image_stem="linear", patch_size=32, image_grid=(12, 12))
    assert (config.width, config.num_layers, config.num_heads, config.mlp_dim) == SIZES["base"]
    model = nnx.eval_shape(lambda: SingleStream(config, SPEC, rngs=nnx.Rngs(0)))
    encoder = sum(np.prod(x.shape) for x in jax.tree.leaves(nnx.state(model.encoder.blocks)))
    assert encoder == 85_054_464  # 12 x (4 x 768^2 + 2 x 768 x 3072 + biases and two LayerNorms)
